//! Evidence about the cause of a loss: calls that were scanning the queue when the process ended, and children that
//! named it as their forker. It changes no verdict; `report/paths.rs` chooses the way through the kernel by it.

use std::collections::VecDeque;

use super::finding::{Clues, DtraceEvidence};
use super::judge::UNORDERED_NS;
use super::latest::keep_latest;
use crate::model::{KernelTime, Pid};

/// How many kevent(2) calls are remembered: more than a busy reader makes in the settle time.
const CALLS: usize = 1 << 14;
/// How many unannounced forkers are remembered.
const NAMED: usize = 1 << 10;

pub(crate) struct RecentContext {
    /// When the latest calls began and returned.
    calls: VecDeque<(KernelTime, KernelTime)>,
    named: VecDeque<UnannouncedForker>,
}

/// NOTE_CHILD named a process as the forker that had not been announced itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnannouncedForker {
    pub(crate) forker: Pid,
    /// When the child was created.
    pub(crate) forked: KernelTime,
    /// When the note came.
    pub(crate) at: KernelTime,
}

impl Default for RecentContext {
    /// With room from the start for what comes with every call and every birth.
    fn default() -> RecentContext {
        let (calls, named) = (VecDeque::with_capacity(CALLS), VecDeque::with_capacity(NAMED));
        RecentContext { calls, named }
    }
}

impl RecentContext {
    /// A kevent(2) call of the reader has returned.
    pub(crate) fn call(&mut self, entered: KernelTime, returned: KernelTime) {
        keep_latest(&mut self.calls, CALLS, (entered, returned));
    }

    pub(crate) fn named(&mut self, named: UnannouncedForker) {
        keep_latest(&mut self.named, NAMED, named);
    }

    /// Adds to `clues` what is known of this process.
    pub(crate) fn about(&self, pid: Pid, dtrace: &DtraceEvidence, clues: &mut Clues) {
        // It forked that child in this life.
        let as_forker = |named: &&UnannouncedForker| {
            named.forker == pid
                && dtrace.created.is_none_or(|t| named.forked.plus(UNORDERED_NS) >= t)
                && dtrace.exited.is_none_or(|t| named.forked <= t)
        };
        clues.named_forker = self.named.iter().find(as_forker).map(|named| named.at);
        clues.scanned_at_exit = dtrace.exited.is_some_and(|exited| self.in_a_call(exited));
    }

    fn in_a_call(&self, at: KernelTime) -> bool {
        let next = self.calls.partition_point(|(_, returned)| *returned <= at);
        self.calls.get(next).is_some_and(|(entered, _)| *entered <= at)
    }
}
