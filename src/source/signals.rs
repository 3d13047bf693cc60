//! Signal dispositions: which signals a thread leaves to the other threads, and SIGCHLD, which must not be ignored.

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// What a fault or a debugger sends to a thread itself. A thread that blocks one of them dies of it: the kernel cannot
/// deliver it, so it kills the process (13.2 `kern_sig.c`, `trapsignal`; Linux `kernel/signal.c`, `force_sig_info`).
const NEVER_BLOCKED: [Signal; 8] = [
    Signal::SIGTRAP,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGCONT,
];

/// Lets children become zombies until they are waited for. A process whose parent ignored SIGCHLD may have inherited that, and
/// then the kernel throws away how its children end.
pub(crate) fn keep_zombies() {
    // SAFETY: SIG_DFL runs no code of ours. It can only fail for a signal that does not exist.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Leaves the signals that are meant for the process to its other threads.
///
/// # Errors
/// pthread_sigmask(3) fails.
pub(super) fn leave_to_other_threads() -> nix::Result<()> {
    let mut blocked = SigSet::all();
    for signal in NEVER_BLOCKED {
        blocked.remove(signal);
    }
    blocked.thread_block()
}
