//! The facts that wait for evidence: one queue for each kind of evidence.

use std::collections::VecDeque;

use super::table::Handle;
use crate::model::{Fact, KernelTime};

/// The evidence that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Evidence {
    /// A process was created: NOTE_CHILD may come until the queue is drained.
    ChildNote,
    /// A process has exited: NOTE_EXIT may come until the queue is drained the settle time later.
    ExitNote,
    /// A note has come: DTrace's record may be late.
    Record,
    /// A loss was decided: it is remembered for a while, to know a late note when it comes.
    LateNote,
}

impl Evidence {
    const COUNT: usize = 4;
    /// In which order lives are given up for want of room: those that are decided first.
    const GIVEN_UP: [Evidence; Self::COUNT] =
        [Evidence::LateNote, Evidence::ChildNote, Evidence::ExitNote, Evidence::Record];
}

/// A fact that waits for evidence, since `at`. Its life is pinned.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingFact {
    pub(super) life: Handle,
    pub(super) fact: Fact,
    pub(super) at: KernelTime,
}

/// Each kind in a queue of its own, in the order in which the waits began: how long a kind waits differs, and changes. A wait is
/// over when those before it are, so one that was put off delays those that began later.
#[derive(Debug, Default)]
pub(super) struct WaitingFacts([VecDeque<WaitingFact>; Evidence::COUNT]);

impl WaitingFacts {
    pub(super) fn push(&mut self, evidence: Evidence, waiting: WaitingFact) {
        self.0[evidence as usize].push_back(waiting);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(VecDeque::is_empty)
    }

    /// Those that wait for this evidence, the oldest first.
    pub(super) fn of(&self, evidence: Evidence) -> impl Iterator<Item = &WaitingFact> {
        self.0[evidence as usize].iter()
    }

    /// Takes out those that wait for this evidence, the oldest first.
    pub(super) fn take(&mut self, evidence: Evidence) -> VecDeque<WaitingFact> {
        std::mem::take(&mut self.0[evidence as usize])
    }

    /// The oldest that waits for this evidence, if it is due with the time since which it waits.
    pub(super) fn due(
        &mut self,
        evidence: Evidence,
        is_due: impl Fn(KernelTime) -> bool,
    ) -> Option<WaitingFact> {
        self.0[evidence as usize].pop_front_if(|waiting| is_due(waiting.at))
    }

    /// The one to be given up next: the oldest of its kind.
    pub(super) fn oldest(&mut self) -> Option<(Evidence, WaitingFact)> {
        let mut kinds = Evidence::GIVEN_UP.into_iter();
        kinds.find_map(|evidence| Some((evidence, self.0[evidence as usize].pop_front()?)))
    }
}
