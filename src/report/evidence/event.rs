//! One event of a time line: what a witness reported, or what kept it from reporting.

use crate::model::{KernelTime, Kevent, Pid, WaitStatus, Witness, note};

/// Something that a witness reported of a process, or that kept it from reporting.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TimelineEvent {
    /// proc:::create.
    Created { forker: Pid },
    /// proc:::create of a child of its own.
    Forked { child: Pid },
    /// proc:::exec-success.
    Exec,
    /// proc:::exec-failure.
    ExecFailed { errno: i32 },
    /// proc:::exit.
    Exited { status: WaitStatus },
    /// kqueue_register failed for it inside knote_fork.
    NotRegistered { errno: i32 },
    /// knote_fork skipped its forker's knote.
    Skipped,
    /// We registered it ourselves.
    Attached {
        batch: u64,
        /// 0, or why kevent(2) refused.
        errno: i32,
    },
    /// A kevent with its pid, or NOTE_CHILD with its pid as the forker.
    Kevent { batch: u64, event: Kevent },
    /// A consumer registered it with these fflags.
    Registered { consumer: String, fflags: u32 },
    /// A consumer received a kevent with its pid, or NOTE_CHILD with its pid as the forker.
    Received { consumer: String, event: Kevent },
    /// NOTE_CHILD with its pid as the forker, of which no more is kept than when it was delivered.
    NamedForker,
    /// A kevent(2) call that was in the kernel when the process ended.
    Scan {
        /// How long it had been, in nanoseconds.
        ns: u64,
        returned: usize,
    },
    /// The first call that began after its creation and took all there was: NOTE_CHILD is in it or will not come.
    Drained { returned: usize },
    /// A witness looked away: drops, an outage, batches that were not kept.
    Gap(String),
}

impl TimelineEvent {
    /// Which witness reported it; `None` for a gap.
    pub(crate) fn witness(&self) -> Option<Witness> {
        match self {
            TimelineEvent::Created { .. }
            | TimelineEvent::Forked { .. }
            | TimelineEvent::Exec
            | TimelineEvent::ExecFailed { .. }
            | TimelineEvent::Exited { .. }
            | TimelineEvent::NotRegistered { .. }
            | TimelineEvent::Skipped => Some(Witness::Dtrace),
            TimelineEvent::Attached { .. }
            | TimelineEvent::Kevent { .. }
            | TimelineEvent::Registered { .. }
            | TimelineEvent::Received { .. }
            | TimelineEvent::NamedForker
            | TimelineEvent::Scan { .. }
            | TimelineEvent::Drained { .. } => Some(Witness::Kqueue),
            TimelineEvent::Gap(_) => None,
        }
    }

    /// The event in the time line of `pid`, as text.
    pub(crate) fn text(&self, pid: Pid) -> String {
        match self {
            TimelineEvent::Created { forker } => format!("create, forked by {forker}"),
            TimelineEvent::Forked { child } => format!("forks {child}"),
            TimelineEvent::Exec => "exec".to_owned(),
            TimelineEvent::ExecFailed { errno } => format!("exec failed, errno {errno}"),
            TimelineEvent::Exited { status } => {
                format!("exit, {status} (wait status {})", status.0)
            }
            TimelineEvent::NotRegistered { errno } => {
                format!("kqueue_register failed for it in knote_fork, errno {errno}")
            }
            TimelineEvent::Skipped => "knote_fork skipped its forker's knote".to_owned(),
            TimelineEvent::Attached { batch, errno: 0 } => format!("call {batch} registered it"),
            TimelineEvent::Attached { batch, errno } => {
                format!("call {batch} could not register it, errno {errno}")
            }
            TimelineEvent::Kevent { batch, event } => {
                format!("call {batch} returned {}", kevent(event, pid))
            }
            TimelineEvent::Registered { consumer, fflags } => {
                format!("{consumer} registered it for {}", note::names(*fflags))
            }
            TimelineEvent::Received { consumer, event } => {
                format!("{consumer} received {}", kevent(event, pid))
            }
            TimelineEvent::NamedForker => format!("a call returned {}", kevent_of_a_child(pid)),
            TimelineEvent::Scan { ns, returned } => {
                let ms = *ns as f64 / 1e6;
                format!("a call that had been in the kernel for {ms:.3} ms returned {returned}")
            }
            TimelineEvent::Drained { returned } => {
                format!("first call begun after its creation took all there was: {returned}")
            }
            TimelineEvent::Gap(what) => what.clone(),
        }
    }
}

/// An event and its time.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TimelineEntry {
    /// On DTrace's clock; of a call whose mark is missing, the latest time that it can have returned.
    pub at: KernelTime,
    pub event: TimelineEvent,
}

/// The NOTE_CHILD that names `pid`.
pub(super) fn kevent_of_a_child(pid: Pid) -> String {
    format!("NOTE_CHILD of a child of its own, data {pid}")
}

/// A kevent as text for the time line of `pid`: its notes by name, and its data as what it can be.
pub(super) fn kevent(event: &Kevent, pid: Pid) -> String {
    let notes = note::names(event.fflags);
    let whose = match event.ident == u64::from(pid.get()) {
        true => String::new(),
        false => format!(" of {}", event.ident),
    };
    let status = match u32::try_from(event.data) {
        Ok(data) if event.fflags & note::EXIT != 0 => format!(" ({})", WaitStatus(data)),
        _ => String::new(),
    };
    format!("{notes}{whose}, data {}{status}", event.data)
}
