//! The verdict on a fact that both witnesses spoke of: pure functions of one incarnation's words.

use super::blind::Blind;
use super::table::Incarnation;
use crate::model::{KernelTime, Pid, Regime, Verdict, Winner};

/// What may have been missed: while a witness was blind, a note may be about another life of its pid.
pub(crate) struct Missed<'a> {
    pub(crate) dtrace: &'a Blind,
    pub(crate) kqueue: &'a Blind,
    /// How long before a fact kqueue's words about the life before may have come.
    pub(crate) settle_ns: u64,
    /// When the first process was registered: no note is about a life that ended before.
    pub(crate) watching: KernelTime,
}

impl Missed<'_> {
    fn between(&self, from: KernelTime, to: KernelTime) -> bool {
        self.dtrace.overlaps(from, to) || self.kqueue.overlaps(from.minus(self.settle_ns), to)
    }
}

/// The birth of an incarnation with both create and NOTE_CHILD.
pub(crate) fn birth(inc: &Incarnation, missed: &Missed<'_>) -> Verdict {
    let (Some(created), Some(child)) = (inc.created, inc.child) else { return Verdict::Undecided };
    if inc.forker.is_some_and(|f| i64::from(f.get()) == child.data) {
        return Verdict::Agreed;
    }
    // The data is not the forker's pid: it may be about a life that DTrace missed since the drain before.
    let status_fits = inc.status.is_some_and(|s| i64::from(s.0) == child.data);
    let drained = child.not_before.max(missed.watching);
    let (from, to) = (created.min(child.at).min(drained), created.max(child.at));
    if !(child.is_collision() && status_fits) && missed.between(from, to) {
        return Verdict::Undecided;
    }
    if child.is_collision() { Verdict::Overwritten } else { Verdict::Corrupt }
}

/// The death of an incarnation with both exit and NOTE_EXIT.
pub(crate) fn death(inc: &Incarnation, missed: &Missed<'_>) -> Verdict {
    let (Some(exited), Some(exit), Some(status)) = (inc.exited, inc.exit, inc.status) else {
        return Verdict::Undecided;
    };
    if i64::from(status.0) == exit.data {
        return Verdict::Agreed;
    }
    let drained = exit.not_before.max(missed.watching);
    if missed.between(inc.proven.min(exited).min(drained), exited.max(exit.at)) {
        return Verdict::Undecided;
    }
    let ppid_won = match inc.forker {
        Some(forker) => i64::from(forker.get()) == exit.data,
        None => (1..=i64::from(Pid::MAX)).contains(&exit.data),
    };
    if exit.is_collision() && ppid_won { Verdict::Overwritten } else { Verdict::Corrupt }
}

/// Whose data a kevent with both notes carries.
pub(crate) fn winner(inc: &Incarnation) -> Winner {
    let Some(exit) = inc.exit else { return Winner::Other };
    if inc.status.is_some_and(|s| i64::from(s.0) == exit.data) {
        Winner::Status
    } else if inc.forker.is_some_and(|f| i64::from(f.get()) == exit.data) {
        Winner::Ppid
    } else {
        Winner::Other
    }
}

/// What a collision says of the kernel.
pub(crate) fn regime_of(winner: Winner) -> Option<Regime> {
    match winner {
        Winner::Status => Some(Regime::MergedStatus),
        Winner::Ppid => Some(Regime::MergedPpid),
        Winner::Other => None,
    }
}
