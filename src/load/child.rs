//! What a child does between fork(2) and its end.
//!
//! The load may fork from one of several threads, so a child calls only async-signal-safe functions (sigaction(2)):
//! no allocation, no lock, no panic, no destructor.

use std::ffi::CStr;
use std::ptr;

use nix::libc;

use super::process;

/// The program that every system has.
pub(super) const TRUE: &CStr = c"/usr/bin/true";
/// The program that none has.
pub(super) const MISSING: &CStr = c"/nonexistent/prog";

/// Exit status of a child that could not fork in its turn, or whose child could not.
pub(super) const CUT_SHORT: u8 = 75;
const LAST: u8 = 7;
/// Exit status of an orphan.
const ORPHAN: u8 = 11;
/// Exit status of a child of [`ChildScript::ForkExit`], and of the grandchild.
const FORKER: u8 = 5;
const GRANDCHILD: u8 = 3;

/// A child's whole life, chosen before it is forked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChildScript {
    Exit(u8),
    /// Fail to exec, then exit 127.
    Enoent,
    /// Run [`TRUE`]; exit 126 if there is none.
    Exec,
    Signal,
    /// Fork the rest of a chain of this length, wait for it, exit with the length.
    Chain(u8),
    /// Fork an orphan and leave it alone.
    Orphan,
    /// vfork(2) a grandchild that exits at once, spin for this many turns, exit: the exit comes while the reader may
    /// just be scanning the knote because of its NOTE_FORK.
    ForkExit {
        /// A turn takes about a nanosecond.
        turns: u32,
    },
}

/// Does the job and ends the process. To be called in a forked child only.
pub(super) fn perform(job: ChildScript) -> ! {
    match job {
        ChildScript::Exit(status) => exit(status),
        ChildScript::Enoent => exec(MISSING, 127),
        ChildScript::Exec => exec(TRUE, 126),
        ChildScript::Signal => kill_myself(),
        ChildScript::Chain(length) => chain(length),
        ChildScript::Orphan => orphan(),
        ChildScript::ForkExit { turns } => fork_exit(turns),
    }
}

fn exit(status: u8) -> ! {
    // SAFETY: _exit(2) has no precondition; it runs no destructor and no atexit handler.
    unsafe { libc::_exit(status.into()) }
}

fn exec(program: &CStr, otherwise: u8) -> ! {
    let argv = [c"x".as_ptr(), ptr::null()];
    let envp = [ptr::null()];
    // SAFETY: the path is a C string, both arrays end in null, and all outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    exit(otherwise)
}

fn kill_myself() -> ! {
    // SAFETY: getpid(2), kill(2) and pause(3) are async-signal-safe and touch no memory of ours.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
        libc::pause();
    }
    exit(CUT_SHORT)
}

/// Exits with `length` only if the whole rest of the chain did as it should.
fn chain(length: u8) -> ! {
    let Some(rest) = length.checked_sub(1) else { exit(LAST) };
    // SAFETY: this process has one thread, and its child does nothing else either.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => exit(CUT_SHORT),
        0 => chain(rest),
        _ => {
            let expected = if rest == 0 { LAST } else { rest };
            let as_it_should = process::wait(pid) == Ok(u32::from(expected) << 8);
            exit(if as_it_should { length } else { CUT_SHORT })
        }
    }
}

fn orphan() -> ! {
    // SAFETY: this process has one thread, and its child calls async-signal-safe functions only.
    match unsafe { libc::fork() } {
        -1 => exit(CUT_SHORT),
        0 => {
            let nap = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            // SAFETY: both are async-signal-safe; `nap` outlives the call, and the rest is not asked for.
            unsafe {
                libc::setsid();
                libc::nanosleep(&nap, ptr::null_mut());
            }
            exit(ORPHAN)
        }
        _ => exit(0),
    }
}

fn fork_exit(turns: u32) -> ! {
    if process::vfork(None, GRANDCHILD).is_err() {
        exit(CUT_SHORT)
    }
    for turn in 0..turns {
        std::hint::black_box(turn);
    }
    exit(FORKER)
}
