//! This process's memory and start time, by sysctl(3) (`sys/user.h`, struct kinfo_proc), for the process_* metrics on
//! FreeBSD.

use std::ffi::c_int;
use std::time::Duration;
use std::{io, mem, process, ptr};

/// This process, as the kernel keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) resident_bytes: u64,
    pub(crate) virtual_bytes: u64,
    /// When it was started, since 1970.
    pub(crate) started: Duration,
}

/// Reads kern.proc.pid of this process.
pub(crate) fn own() -> io::Result<Own> {
    // SAFETY: kinfo_proc is a C struct of integers, arrays and raw pointers: all zeroes is a value of it.
    let mut info: libc::kinfo_proc = unsafe { mem::zeroed() };
    let pid = c_int::try_from(process::id()).map_err(io::Error::other)?;
    read(libc::KERN_PROC_PID, pid, &mut info)?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let seconds = Duration::from_secs(info.ki_start.tv_sec.try_into().unwrap_or(0));
    Ok(Own {
        resident_bytes: u64::try_from(info.ki_rssize).unwrap_or(0) * page.unsigned_abs(),
        virtual_bytes: info.ki_size.try_into().unwrap_or(0),
        started: seconds + Duration::from_micros(info.ki_start.tv_usec.try_into().unwrap_or(0)),
    })
}

/// Reads kern.proc.nfds of this process: /dev/fd would show three if fdescfs is not mounted. The kernel takes 0 for
/// the caller and no other pid (12.3 `kern_descrip.c:3424`).
pub(crate) fn open_fds() -> io::Result<c_int> {
    let mut count: c_int = 0;
    read(libc::KERN_PROC_NFDS, 0, &mut count)?;
    Ok(count)
}

/// Fills `value` from kern.proc.`what`.`pid`.
fn read<T: Copy>(what: c_int, pid: c_int, value: &mut T) -> io::Result<()> {
    let mib = [libc::CTL_KERN, libc::KERN_PROC, what, pid];
    let mut len = mem::size_of::<T>();
    // SAFETY: `mib` has the four elements that are announced, the kernel writes at most `len` bytes to `value`, which
    // is that large, and every caller's T is made of integers and raw pointers, valid for any bytes.
    let rc = unsafe {
        let out = ptr::from_mut(value).cast();
        libc::sysctl(mib.as_ptr(), mib.len() as u32, out, &mut len, ptr::null(), 0)
    };
    match rc {
        0 if len == mem::size_of::<T>() => Ok(()),
        0 => Err(io::Error::other("the kernel's struct has another size")),
        _ => Err(io::Error::last_os_error()),
    }
}
