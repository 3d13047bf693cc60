//! Fewer pids, so that each is soon used again: `kern.pid_max`, lowered for a while.

use std::io;

/// A limit low enough that a few thousand forks use every pid twice, high enough for a small system's processes.
/// FreeBSD refuses less than 300 (13.2 `sys/kern/kern_mib.c`, sysctl_kern_pid_max).
pub(crate) const FOR_REUSE: i32 = 1500;

/// The lowered limit. The old one comes back when this is dropped: on return, on error and on panic.
#[derive(Debug)]
pub(crate) struct Lowered {
    before: i32,
}

impl Lowered {
    /// Lowers `kern.pid_max` to `limit`.
    ///
    /// # Errors
    /// EPERM without root or in a jail, EINVAL for a limit that the kernel does not take; always on systems other than
    /// FreeBSD.
    pub(crate) fn to(limit: i32) -> io::Result<Lowered> {
        Ok(Lowered { before: exchange(limit)? })
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        let before = self.before;
        if let Err(e) = exchange(before) {
            tracing::error!("cannot restore kern.pid_max: {e}; run: sysctl kern.pid_max={before}");
        }
    }
}

/// Sets kern.pid_max; returns what it was.
#[cfg(target_os = "freebsd")]
fn exchange(new: i32) -> io::Result<i32> {
    use nix::errno::Errno;
    use nix::libc;

    let mut old: libc::c_int = 0;
    let mut old_len = size_of_val(&old);
    // SAFETY: the name is a C string; kern.pid_max is an int, and both places are ints of the stated size.
    let result = unsafe {
        libc::sysctlbyname(
            c"kern.pid_max".as_ptr(),
            std::ptr::from_mut(&mut old).cast(),
            &mut old_len,
            std::ptr::from_ref(&new).cast(),
            size_of_val(&new),
        )
    };
    Errno::result(result)?;
    Ok(old)
}

#[cfg(not(target_os = "freebsd"))]
fn exchange(_: i32) -> io::Result<i32> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only FreeBSD has kern.pid_max"))
}
