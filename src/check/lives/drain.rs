//! Drains. A kevent(2) call drains a kqueue if it returns everything that was queued before it began. After a drain the
//! note of an older fact has been delivered, or it will not come: then the fact is judged.

use std::collections::VecDeque;

use super::waiting::{Evidence, WaitingFact};
use super::{Basis, Context, Lives};
use crate::check::judge::UNORDERED_NS;
use crate::check::latest::keep_latest;
use crate::check::timeline::event::Call;
use crate::model::{Fact, KernelTime, Kevent, Verdict, note};

/// How long the reader may take to run again after its time-out, while notes are queued that this call does not return.
const WAKE_NS: u64 = 100_000_000;
/// A call that took longer and timed out slept at least so long on an empty queue: the reader's time-outs are 200 ms and 1 s,
/// and those of a search (10 ms) are shorter than the settle time. If it took much longer, its thread was held up afterwards,
/// for an unknown time.
const SLEPT_NS: u64 = 150_000_000;
/// So many calls of a consumer are remembered: more than its other threads make while one of them returns.
const CALLS: usize = 64;

/// A kqueue that watches processes.
#[derive(Clone, Debug)]
pub(super) struct WatchedQueue {
    pub(super) descriptor: i32,
    /// Its address in the kernel, if a registration has shown it.
    pub(super) address: Option<u64>,
    /// Up to when everything in it has been delivered: the beginning of the last call that drained it, or later.
    pub(super) drained: KernelTime,
    /// The same, as the latest calls of a consumer have shown it, each with when it returned.
    history: VecDeque<(KernelTime, KernelTime)>,
}

impl WatchedQueue {
    pub(super) fn new(descriptor: i32, address: Option<u64>) -> WatchedQueue {
        let (drained, history) = (KernelTime(0), VecDeque::new());
        WatchedQueue { descriptor, address, drained, history }
    }

    /// Up to when everything in it had been delivered when a call began at `entered`. Another thread's call may have taken later
    /// notes since, and have returned before.
    fn drained_at(&self, entered: KernelTime) -> KernelTime {
        let known = self.history.iter().rev().find(|(returned, _)| *returned <= entered);
        known.map_or(KernelTime(0), |(_, drained)| *drained)
    }
}

/// All queues of a tracker are drained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// When the call began that drained the last of them: what was queued before has been delivered.
    entered: KernelTime,
    /// Until when they are known to have been empty: of NOTE_CHILD, and of NOTE_EXIT.
    no_child: KernelTime,
    no_exit: KernelTime,
}

impl Drain {
    /// Whether the queue was drained of a fact of this time: its note has been delivered, or never will be.
    ///
    /// - A birth: knote_fork queues NOTE_CHILD before proc:::create fires (13.2 `kern_fork.c:734,741`), so a call that begins
    ///   after the create, by more than clocks may be apart, has delivered every NOTE_CHILD of it, duplicates included.
    /// - A death: exit1 queues NOTE_EXIT soon after proc:::exit (13.2 `kern_exit.c:612,635`; before it on 12.3 and older), and
    ///   its thread may be held up between the two: hence `patience_ns`.
    fn is_of(&self, fact: Fact, at: KernelTime, patience_ns: u64) -> bool {
        match fact {
            Fact::Birth => at.plus(UNORDERED_NS) <= self.no_child,
            Fact::Death => at.plus(patience_ns) <= self.no_exit,
        }
    }
}

impl Lives {
    /// A call of a consumer has delivered what its queue held at `at`. What that decides waits: the notes are in DTrace's stream,
    /// and that one is missing is known when dtrace(1) has reported what it dropped up to the return of the call.
    pub(super) fn drain_consumer(&mut self, call: &Call, at: KernelTime) {
        self.mark_delivered(call, at);
        let all = self.queues.iter().map(|queue| queue.drained).min();
        let drain = all.map(|entered| Drain { entered, no_child: entered, no_exit: entered });
        self.drains.extend(drain.map(|drain| (call.at, drain)));
    }

    /// Everything that was in the call's queue at `at` has been delivered.
    fn mark_delivered(&mut self, call: &Call, at: KernelTime) {
        let is_consumer = self.is_consumer();
        let queue = self.queues.iter_mut().find(|queue| queue.descriptor == call.queue);
        if let Some(queue) = queue {
            queue.drained = queue.drained.max(at);
            if is_consumer {
                keep_latest(&mut queue.history, CALLS, (call.at, queue.drained));
            }
        }
    }

    /// Up to when everything has been delivered that was in the queue of this event, which is about the life in `slot`.
    ///
    /// A kqueue is first in, first out by the first activation of a knote (13.2 `kern_event.c`, `knote_enqueue`,
    /// `kqueue_scan`): what was activated before has been delivered with it or before it. The probe of its fact may have fired
    /// as much as the settle time after its activation, or more on a host that holds up its threads.
    pub(super) fn delivered_by(&self, slot: usize, event: &Kevent) -> Option<KernelTime> {
        let life = &self.table[slot];
        let (state, happened) = match event.fflags {
            note::EXIT => (life.death, life.exited),
            fflags if fflags & note::CHILD != 0 => (life.birth, life.created),
            // An older note may have activated it.
            _ => return None,
        };
        // Otherwise it may be about another life of the pid.
        let is_good = state.verdict().is_some_and(Verdict::is_good);
        happened.filter(|_| is_good).map(|at| at.minus(self.patience_ns))
    }

    /// This call of the reader has drained its queue, which it began to read at `entered`.
    pub(super) fn drain_mirror(&mut self, cx: &mut Context, call: &Call, entered: KernelTime) {
        self.mark_delivered(call, entered);
        let (mut no_child, mut no_exit) = (entered, entered);
        if call.notes.is_empty() {
            // It timed out: it slept on an empty queue until a little before it returned. What happened while it surely slept
            // would have woken it.
            let settle_ns = self.config.settle_ns;
            let slept = entered.plus(SLEPT_NS);
            no_child = call.at.minus(settle_ns).clamp(entered, slept);
            no_exit = call.at.minus(WAKE_NS).clamp(entered, slept.plus(settle_ns));
        }
        self.settle_drained(cx, Drain { entered, no_child, no_exit });
    }

    /// dtrace(1) has reported what it dropped up to `complete`: what a consumer drained before that is drained.
    pub(super) fn complete_drains(&mut self, cx: &mut Context, complete: KernelTime) {
        while let Some((_, drain)) = self.drains.pop_front_if(|(at, _)| *at <= complete) {
            self.settle_drained(cx, drain);
        }
    }

    /// Judges the facts whose notes can no longer come.
    fn settle_drained(&mut self, cx: &mut Context, drain: Drain) {
        let patience_ns = self.patience_ns;
        for (evidence, fact) in
            [(Evidence::ChildNote, Fact::Birth), (Evidence::ExitNote, Fact::Death)]
        {
            let is_due = |at: KernelTime| drain.is_of(fact, at, patience_ns);
            while let Some(waiting) = self.waiting.due(evidence, is_due) {
                match self.note_queued_at(&waiting) {
                    at if is_due(at) => self.settle(cx, evidence, waiting, Basis::Complete),
                    at => self.waiting.push(evidence, WaitingFact { at, ..waiting }),
                }
            }
        }
        cx.sight.drained(self.tracker, drain.entered);
    }

    /// When the note of this fact was queued, or a little before. That of a process that had ended already is queued by its
    /// registration, that of a disabled knote when it is enabled.
    fn note_queued_at(&self, waiting: &WaitingFact) -> KernelTime {
        let knote_set = || self.table.find(waiting.life).map(|slot| self.table[slot].knote_set);
        match waiting.fact {
            Fact::Birth => waiting.at,
            Fact::Death => waiting.at.max(knote_set().unwrap_or_default()),
        }
    }

    /// The beginning of the last call before this one that drained its queue.
    pub(super) fn drained_before(&self, call: &Call) -> KernelTime {
        let queue = self.queues.iter().find(|queue| queue.descriptor == call.queue);
        queue.map_or(KernelTime(0), |queue| match (self.tree, call.entered) {
            (Some(_), Some(entered)) => queue.drained_at(entered),
            _ => queue.drained,
        })
    }
}
