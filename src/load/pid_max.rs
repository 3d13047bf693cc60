//! Fewer pids, so that each is soon used again: `kern.pid_max`, lowered for a while.

/// A limit low enough that a few thousand forks use every pid twice, high enough for a small system's processes.
/// FreeBSD refuses less than 300 (13.2 `sys/kern/kern_mib.c`, sysctl_kern_pid_max).
pub(crate) const FOR_REUSE: i32 = 1500;

/// The lowered limit. The old one comes back when this is dropped: on return, on error and on panic.
#[derive(Debug)]
pub(crate) struct Lowered {
    #[cfg(target_os = "freebsd")]
    before: i32,
}

#[cfg(target_os = "freebsd")]
mod freebsd {
    use std::io;

    use nix::errno::Errno;
    use nix::libc;

    use super::Lowered;

    impl Lowered {
        /// Lowers `kern.pid_max` to `limit`.
        ///
        /// # Errors
        /// EPERM without root or in a jail, EINVAL for a limit that the kernel does not take.
        pub(crate) fn to(limit: i32) -> io::Result<Lowered> {
            let before = exchange(limit)?;
            Ok(Lowered { before })
        }
    }

    impl Drop for Lowered {
        fn drop(&mut self) {
            if let Err(e) = exchange(self.before) {
                tracing::error!(
                    "cannot restore kern.pid_max: {e}; run: sysctl kern.pid_max={}",
                    self.before
                );
            }
        }
    }

    /// Sets kern.pid_max and says what it was.
    fn exchange(new: libc::c_int) -> io::Result<i32> {
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
}

#[cfg(not(target_os = "freebsd"))]
impl Lowered {
    /// There is no kern.pid_max here.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn to(_limit: i32) -> std::io::Result<Lowered> {
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "only FreeBSD has kern.pid_max"))
    }
}
