//! fork(2), vfork(2) and waitpid(2) from the root of the load.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::ForkResult;

use super::child::{self, ChildScript};

/// Forks a child that does this job. Returns in the parent only.
pub(super) fn fork(job: ChildScript) -> nix::Result<libc::pid_t> {
    // SAFETY: the child calls `perform` at once, which calls async-signal-safe functions only and never returns, so
    // it is of no importance which locks other threads held.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child.as_raw()),
        ForkResult::Child => child::perform(job),
    }
}

/// Waits for the end of this child: its wait(2) status as the kernel gives it. Async-signal-safe.
pub(super) fn wait(pid: libc::pid_t) -> nix::Result<u32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the kernel to write to.
        match Errno::result(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Ok(_) => return Ok(status as u32),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "freebsd"))]
mod number {
    //! FreeBSD's sys/syscall.h.
    pub(super) const VFORK: i64 = 66;
    pub(super) const EXECVE: i64 = 59;
    pub(super) const EXIT: i64 = 1;
}
#[cfg(all(target_arch = "x86_64", not(target_os = "freebsd")))]
mod number {
    use nix::libc;
    pub(super) const VFORK: i64 = libc::SYS_vfork;
    pub(super) const EXECVE: i64 = libc::SYS_execve;
    pub(super) const EXIT: i64 = libc::SYS_exit;
}

/// vfork(2) of a child that runs `program`, or exits with `status` if there is none or it cannot be run.
/// Async-signal-safe.
///
/// The child borrows our memory and our stack until then, and a function that returns twice is not something that
/// Rust can call. So the child lives and ends inside one block of assembly, which returns once, in the parent.
#[cfg(target_arch = "x86_64")]
pub(super) fn vfork(program: Option<&CStr>, status: u8) -> nix::Result<libc::pid_t> {
    let argv = [c"x".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    let returned: i64;
    // SAFETY: the child makes two system calls and touches no memory and no stack; the strings and the arrays live
    // until it has left them. Every register that a system call may change is declared (clobber_abi). An error is
    // -errno in rax on Linux; on FreeBSD it is errno with the carry flag, which Linux leaves clear.
    unsafe {
        std::arch::asm!(
            "clc",
            "syscall",
            "jnc 2f",
            "neg rax",
            "2:",
            "test rax, rax",
            "jnz 3f",
            "mov rdi, r12",
            "test rdi, rdi",
            "jz 4f",
            "mov rsi, r13",
            "mov rdx, r14",
            "mov eax, {execve}",
            "syscall",
            "4:",
            "mov edi, r15d",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "3:",
            execve = const number::EXECVE,
            exit = const number::EXIT,
            // Registers that the first system call leaves alone.
            in("r12") program.map_or(std::ptr::null(), CStr::as_ptr),
            in("r13") argv.as_ptr(),
            in("r14") envp.as_ptr(),
            in("r15") u64::from(status),
            inlateout("rax") number::VFORK => returned,
            clobber_abi("C"),
            options(nostack),
        );
    }
    match i32::try_from(returned) {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(errno) => Err(Errno::from_raw(-errno)),
        Err(_) => Err(Errno::UnknownErrno),
    }
}

/// vfork(2) is written for amd64 only.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn vfork(_program: Option<&CStr>, _status: u8) -> nix::Result<libc::pid_t> {
    Err(Errno::ENOSYS)
}
