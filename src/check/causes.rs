//! The records of the cause probes, by child. An R record: kqueue_register failed for this child inside knote_fork. An
//! S record: knote_fork passed over a knote of the forker because it was in flux.
//!
//! If the probes run and no R record names a child, its registration did not fail, so a NOTE_TRACKERR of its forker is
//! about another child. A missing S record proves nothing: only the first knote of a forker is traced. Neither record
//! names the kqueue.

use std::collections::{HashMap, VecDeque};

use super::judge::UNORDERED_NS;
use super::latest::keep_latest;
use crate::model::{KernelTime, Pid};

/// How many runs of dtrace(1) are remembered.
const RUNS: usize = 8;

/// What a cause probe saw in knote_fork.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause {
    pub(crate) at: KernelTime,
    pub(crate) forker: Pid,
    pub(crate) child: Pid,
    /// Why kqueue_register failed; `None` if knote_fork passed over a knote in flux.
    pub(crate) errno: Option<i32>,
}

/// What knote_fork made of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum KnoteFork {
    /// The cause probes are not traced.
    #[default]
    Unknown,
    /// They are traced, and their records may be missing.
    Missed,
    /// It failed with this errno: the kernel has set NOTE_TRACKERR on the forker's knote.
    Failed(i32),
    /// knote_fork passed over the forker's knote, which sets nothing.
    PassedOver,
    /// No registration failed.
    NoneFailed,
}

/// The latest causes.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    /// When the latest runs of dtrace(1) began, and whether the causes are traced in them.
    runs: VecDeque<(KernelTime, bool)>,
    /// The program that begins now has announced that it traces them.
    announced: bool,
    /// The latest of each child, and that of the life of its pid before.
    by_child: HashMap<Pid, [Option<Cause>; 2]>,
}

impl Causes {
    /// The program that begins next traces the causes.
    pub(crate) fn announce(&mut self) {
        self.announced = true;
    }

    /// A program has begun.
    pub(crate) fn begin(&mut self, at: KernelTime) {
        keep_latest(&mut self.runs, RUNS, (at, std::mem::take(&mut self.announced)));
    }

    /// A failed registration says more than a knote that was passed over.
    pub(crate) fn seen(&mut self, cause: Cause) {
        let [latest, before] = self.by_child.entry(cause.child).or_default();
        match latest {
            Some(known) if known.is_of(cause.forker, cause.at) => {
                known.errno = known.errno.or(cause.errno);
            }
            _ => *before = latest.replace(cause),
        }
    }

    /// What is known of knote_fork for `child`, which `forker` created at `created`.
    pub(crate) fn about(&self, child: Pid, forker: Pid, created: KernelTime) -> KnoteFork {
        let known = self.by_child.get(&child).into_iter().flatten().flatten();
        match known.copied().find(|cause| cause.is_of(forker, created)) {
            Some(Cause { errno: Some(errno), .. }) => KnoteFork::Failed(errno),
            Some(Cause { errno: None, .. }) => KnoteFork::PassedOver,
            None if self.are_traced(created) => KnoteFork::NoneFailed,
            None => KnoteFork::Unknown,
        }
    }

    fn are_traced(&self, at: KernelTime) -> bool {
        let run = self.runs.iter().rev().find(|(began, _)| *began <= at);
        run.is_some_and(|(_, traced)| *traced)
    }
}

impl Cause {
    /// Whether it is of a fork by `forker` at about this time. knote_fork comes before proc:::create, but the clocks of two CPUs
    /// may be apart.
    fn is_of(&self, forker: Pid, at: KernelTime) -> bool {
        self.forker == forker && self.at.distance(at) <= UNORDERED_NS
    }
}
