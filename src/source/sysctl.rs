//! Facts of the kernel by sysctl(3), and the third witness: how many processes it has created since boot.

use std::ffi::{CStr, CString};
use std::io;

/// The kernel, as recordings and the metric kernel_info name it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct KernelInfo {
    /// System, release and machine, such as `FreeBSD 13.2-RELEASE amd64`.
    pub uname: String,
    /// The release, such as `13.2-RELEASE`.
    pub osrelease: String,
    /// kern.osreldate, such as 1302001; 0 if the system has none.
    pub osreldate: u32,
}

pub(crate) fn kernel_info() -> KernelInfo {
    let Ok(uname) = nix::sys::utsname::uname() else { return KernelInfo::default() };
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let (system, release) = (text(uname.sysname()), text(uname.release()));
    KernelInfo {
        uname: format!("{system} {release} {}", text(uname.machine())),
        osrelease: release,
        osreldate: osreldate().unwrap_or(0),
    }
}

/// The sum of vm.stats.vm.v_forks, v_vforks and v_rforks, as a number that only grows.
#[derive(Debug, Default)]
pub(crate) struct ForkCounter {
    counters: [Growing; 3],
}

impl ForkCounter {
    /// Reads the counters.
    ///
    /// # Errors
    /// The error of sysctl(3); always on systems other than FreeBSD.
    pub(crate) fn read(&mut self) -> io::Result<u64> {
        Ok(self.take(fork_counters()?))
    }

    fn take(&mut self, raw: [Raw; 3]) -> u64 {
        self.counters.iter_mut().zip(raw).map(|(counter, raw)| counter.take(raw)).sum()
    }
}

/// A counter as sysctl gives it: 64 bits wide since FreeBSD 12, 32 before (`vm_meter.c`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(any(test, target_os = "freebsd")), expect(dead_code))]
enum Raw {
    Wide(u64),
    Narrow(u32),
}

/// Makes a counter that wraps at 2^32 grow on, as long as it is read once per wrap.
#[derive(Debug, Default)]
struct Growing(u64);

impl Growing {
    fn take(&mut self, raw: Raw) -> u64 {
        match raw {
            Raw::Wide(value) => self.0 = value,
            Raw::Narrow(value) => {
                self.0 += u64::from(value.wrapping_sub(self.0 as u32));
            }
        }
        self.0
    }
}

/// What may hide other users' processes from an unprivileged one, and the value with which it does so (13.2
/// `kern_prot.c`, `cr_canseeotheruids` and `cr_canseeothergids`; mac_seeotheruids(4) if it is loaded).
const HIDING: [(&str, i32); 3] = [
    ("security.bsd.see_other_uids", 0),
    ("security.bsd.see_other_gids", 0),
    ("security.mac.seeotheruids.enabled", 1),
];

/// What hides the processes in jails from an unprivileged one outside of them, and the value with which it does so (13.2
/// `kern_prot.c`, `cr_canseejailproc`).
pub(crate) const HIDING_JAILED: (&str, i32) = ("security.bsd.see_jail_proc", 0);

pub(crate) fn hides_jailed() -> bool {
    let (name, hides) = HIDING_JAILED;
    integer(name) == Some(hides)
}

/// The first of [`HIDING`] that hides them here.
pub(crate) fn hidden_by() -> Option<&'static str> {
    HIDING.iter().find(|(name, hides)| integer(name) == Some(*hides)).map(|(name, _)| *name)
}

/// A sysctl of the type int; `None` if there is none of this name, and always on systems other than FreeBSD.
pub(crate) fn integer(name: &str) -> Option<i32> {
    match counter(&CString::new(name).ok()?).ok()? {
        Raw::Narrow(value) => Some(value.cast_signed()),
        Raw::Wide(_) => None,
    }
}

fn fork_counters() -> io::Result<[Raw; 3]> {
    Ok([
        counter(c"vm.stats.vm.v_forks")?,
        counter(c"vm.stats.vm.v_vforks")?,
        counter(c"vm.stats.vm.v_rforks")?,
    ])
}

fn osreldate() -> Option<u32> {
    match counter(c"kern.osreldate").ok()? {
        Raw::Narrow(value) => Some(value),
        Raw::Wide(_) => None,
    }
}

#[cfg(target_os = "freebsd")]
fn counter(name: &CStr) -> io::Result<Raw> {
    let mut bytes = [0u8; 8];
    let len = by_name(name, Some(&mut bytes))?;
    match (len, bytes) {
        (8, bytes) => Ok(Raw::Wide(u64::from_ne_bytes(bytes))),
        (4, [a, b, c, d, ..]) => Ok(Raw::Narrow(u32::from_ne_bytes([a, b, c, d]))),
        _ => {
            let what = format!("{} is not a number of 4 or 8 bytes", name.to_string_lossy());
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

#[cfg(not(target_os = "freebsd"))]
fn counter(_: &CStr) -> io::Result<Raw> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only FreeBSD has these counters"))
}

/// A table that may grow while it is read, into `table`.
#[cfg(target_os = "freebsd")]
pub(super) fn table(name: &CStr, table: &mut Vec<u8>) -> io::Result<()> {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        let size = by_name(name, None)?;
        table.resize(size + size / 4 + 4096, 0);
        match by_name(name, Some(table)) {
            Ok(len) => {
                table.truncate(len);
                return Ok(());
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENOMEM))
}

/// sysctlbyname(3): how many bytes it wrote to `value`, or would write if there is none.
#[cfg(target_os = "freebsd")]
fn by_name(name: &CStr, value: Option<&mut [u8]>) -> io::Result<usize> {
    let (to, mut len) = match value {
        Some(bytes) => (bytes.as_mut_ptr(), bytes.len()),
        None => (std::ptr::null_mut(), 0),
    };
    // SAFETY: `name` ends with a NUL; `to` is null or has room for `len` bytes, and nothing else uses them meanwhile;
    // no new value is passed.
    let result =
        unsafe { libc::sysctlbyname(name.as_ptr(), to.cast(), &raw mut len, std::ptr::null(), 0) };
    if result == 0 { Ok(len) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_counter_grows_over_its_wrap() {
        let mut forks = ForkCounter::default();
        let narrow = |v: u32| [Raw::Narrow(v), Raw::Narrow(0), Raw::Narrow(1)];
        assert_eq!(forks.take(narrow(u32::MAX)), u64::from(u32::MAX) + 1);
        assert_eq!(forks.take(narrow(4)), u64::from(u32::MAX) + 6);
        assert_eq!(forks.take(narrow(4)), u64::from(u32::MAX) + 6);
    }

    #[test]
    fn a_wide_counter_is_what_it_is() {
        let mut forks = ForkCounter::default();
        assert_eq!(forks.take([Raw::Wide(1 << 40), Raw::Wide(2), Raw::Wide(3)]), (1 << 40) + 5);
    }
}
