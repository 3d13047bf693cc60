//! Calls of the operating system: a signal at the parent's death, closing inherited descriptors, rights on descriptors.

use std::io;
use std::os::fd::BorrowedFd;

/// Asks for SIGKILL to this process when its parent ends; for the time between fork(2) and exec(2).
#[cfg(target_os = "freebsd")]
pub(super) fn die_with_parent() -> io::Result<()> {
    let mut signal = libc::SIGKILL;
    // SAFETY: PROC_PDEATHSIG_CTL of this process reads an int (procctl(2), FreeBSD 11.2 and later).
    let result = unsafe {
        libc::procctl(libc::P_PID, 0, libc::PROC_PDEATHSIG_CTL, (&raw mut signal).cast())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for SIGKILL to this process when its parent ends; for the time between fork(2) and exec(2).
#[cfg(target_os = "linux")]
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
}

/// Elsewhere only the end of its pipes tells a process that its parent is gone.
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(())
}

/// Closes every inherited descriptor but stdin, stdout and stderr. Only before it has opened anything itself.
#[cfg(target_os = "freebsd")]
pub(crate) fn close_inherited() {
    // SAFETY: nothing in this process owns a descriptor from 3 up yet.
    unsafe { libc::closefrom(3) }
}

/// Closes every inherited descriptor but stdin, stdout and stderr. Only before it has opened anything itself.
#[cfg(target_os = "linux")]
pub(crate) fn close_inherited() {
    use nix::libc::{SYS_close_range, c_uint, syscall};

    let (first, last, flags): (c_uint, c_uint, c_uint) = (3, c_uint::MAX, 0);
    // SAFETY: nothing in this process owns a descriptor from 3 up yet.
    unsafe { syscall(SYS_close_range, first, last, flags) };
}

/// Elsewhere it keeps them.
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
pub(crate) fn close_inherited() {}

/// Makes a descriptor good for read(2) and poll(2) and nothing else, for the process that will have it (capsicum(4)).
#[cfg(target_os = "freebsd")]
pub(super) fn for_reading_only(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    let mut rights = MaybeUninit::uninit();
    // SAFETY: cap_rights_init(3) writes the whole of `rights`; its list of rights ends with 0.
    let rights = unsafe {
        libc::__cap_rights_init(
            libc::CAP_RIGHTS_VERSION,
            rights.as_mut_ptr(),
            libc::CAP_READ,
            libc::CAP_EVENT,
            0_u64,
        );
        rights.assume_init()
    };
    // SAFETY: it reads `rights` and keeps nothing.
    if unsafe { libc::cap_rights_limit(descriptor.as_raw_fd(), &raw const rights) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A kernel without capsicum(4).
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        error => Err(error),
    }
}

/// Elsewhere a descriptor is what it is.
#[cfg(not(target_os = "freebsd"))]
pub(super) fn for_reading_only(_: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}
