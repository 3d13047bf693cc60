//! kqueue's words: batches, registrations and events, each joined to the incarnation that it is about.

use super::align::Placed;
use super::ledger::Ledger;
use super::stats::{BlindReason, Note, Order};
use super::table::{Incarnation, Registration, Said, Table};
use crate::input::Attach;
use crate::model::{Fact, KernelTime, Kevent, Pid, TreeId, note};

/// How long the reader may take to run again after its time-out, while notes are queued that this call does not return.
const WAKE_NS: u64 = 100_000_000;
/// A call that took longer and timed out slept at least so long on an empty queue: the reader's time-out is 200 ms. When
/// it took much longer, its thread was held up afterwards, and nobody knows for how long.
const SLEPT_NS: u64 = 150_000_000;

impl Ledger {
    pub(crate) fn batch<'a>(
        &mut self,
        placed: &Placed,
        attached: impl Iterator<Item = Attach>,
        events: impl Iterator<Item = &'a Kevent>,
    ) {
        self.batches += 1;
        if placed.entered.is_none() {
            self.unmarked = self.batches;
        }
        self.stats.batch_sizes.add(placed.head.events.into());
        for attach in attached {
            self.attach(&attach, placed.entered.unwrap_or(self.drained), placed.at);
        }
        for event in events {
            self.event(event, placed);
        }
        if let Some(entered) = placed.entered {
            self.lately.call(entered, placed.at);
        }
        if let Some(entered) = placed.entered.filter(|_| placed.head.drained) {
            self.drained = self.drained.max(entered);
            // A call that timed out slept on an empty queue until a little before it returned: what happened while it
            // surely slept would have woken it.
            let empty = |before, most| match placed.head.events {
                0 => placed.at.minus(before).clamp(entered, entered.plus(most)),
                _ => entered,
            };
            let settle_ns = self.config.settle_ns;
            self.settle_births(empty(settle_ns, SLEPT_NS));
            self.settle_deaths(empty(WAKE_NS, SLEPT_NS.saturating_add(settle_ns)));
            // Every note of what was given up has been delivered.
            if self.overflowed.plus(self.config.settle_ns) <= entered {
                self.dtrace.sure(entered, BlindReason::Overflow);
            }
        }
    }

    fn attach(&mut self, attach: &Attach, entered: KernelTime, at: KernelTime) {
        self.ensure_tree(attach.tree);
        if attach.errno != 0 {
            return;
        }
        self.watching.get_or_insert(at);
        if attach.root || attach.notes & note::TRACK != 0 {
            self.tree(attach.tree).notes |= attach.notes;
        }
        let alive = |inc: &Incarnation| {
            inc.may_run_at(entered) && inc.exit.is_none() && inc.death.is_none()
        };
        let newest = self.table.newest(attach.pid).filter(|slot| alive(&self.table[*slot]));
        let slot = newest.unwrap_or_else(|| self.begin(attach.pid, at));
        if self.table[slot].tracked() {
            return;
        }
        self.count_lost_alive(slot, false);
        let inc = &mut self.table[slot];
        let notes = attach.notes;
        inc.attached = Some(Box::new(Registration { entered, returned: at, notes }));
        inc.tree.get_or_insert(attach.tree);
        inc.proven = inc.proven.max(entered);
        self.count_tracked(slot, true);
    }

    fn event(&mut self, event: &Kevent, placed: &Placed) {
        if event.is_receipt() {
            self.stats.kevents[Note::Receipt.index()] += 1;
            return;
        }
        for (bit, note) in [
            (note::CHILD, Note::Child),
            (note::EXIT, Note::Exit),
            (note::FORK, Note::Fork),
            (note::EXEC, Note::Exec),
            (note::TRACKERR, Note::Trackerr),
        ] {
            self.stats.kevents[note.index()] += u64::from(event.fflags & bit != 0);
        }
        let tree = self.tree_of(event);
        // What came was asked for: a recording of an old version does not say it.
        self.tree(tree).notes |= event.fflags & (note::FORK | note::EXEC);
        let Some(pid) = Pid::new(event.ident) else {
            self.tree(tree).order_violations[Order::BadIdent.index()] += 1;
            return;
        };
        self.observe_regime(event);
        let said = Said {
            flags: event.flags,
            fflags: event.fflags,
            data: event.data,
            batch: placed.head.seq,
            at: placed.at,
            not_before: self.drained,
        };
        let born = (event.fflags & note::CHILD != 0).then(|| self.note_child(pid, tree, said));
        if event.fflags & note::TRACKERR != 0 {
            self.trackerr(pid, tree, &said);
        }
        if event.fflags & note::EXIT != 0 {
            let slot = born.flatten().or_else(|| self.exiting(pid, tree, event.data));
            if let Some(slot) = slot {
                self.note_exit(slot, tree, said);
            }
        } else if event.fflags & note::CHILD == 0 {
            self.sign_of_life(pid, tree);
        }
    }

    fn trackerr(&mut self, pid: Pid, tree: TreeId, said: &Said) {
        self.tree(tree).trackerr_reports += 1;
        let (batch, unmarked) = (self.batches, self.unmarked);
        let slot = self.table.latest(pid, Incarnation::known_to_kqueue);
        // On split kernels a process whose birth was lost may still have a knote.
        if let Some(slot) = slot.or_else(|| self.table.newest(pid)) {
            self.table[slot].trackerr.add(batch, said, unmarked);
        }
    }

    /// NOTE_FORK or NOTE_EXEC: the knote was alive after the last drain, so the pid was still this incarnation.
    fn sign_of_life(&mut self, pid: Pid, tree: TreeId) {
        let drained = self.drained;
        match self.table.latest(pid, Incarnation::tracked) {
            Some(slot) if self.table[slot].exit.is_none() => {
                let inc = &mut self.table[slot];
                inc.proven = inc.proven.max(drained);
            }
            _ => self.tree(tree).order_violations[Order::UnknownProcess.index()] += 1,
        }
    }

    /// Joins NOTE_CHILD to its incarnation and returns that; `None` for a duplicate.
    fn note_child(&mut self, pid: Pid, tree: TreeId, said: Said) -> Option<usize> {
        if let Some(slot) = self.unannounced(pid, &said) {
            // kqueue learns of it after all, if it was lost.
            self.count_lost_alive(slot, false);
            self.announce(slot, said);
            self.table[slot].tree.get_or_insert(tree);
            if self.table[slot].exit.is_none() && self.table[slot].death.is_none() {
                self.count_tracked(slot, true);
            }
            if self.table[slot].birth.is_some() {
                self.violation(slot, Order::Late);
            } else {
                self.owe_birth(slot);
                match self.table[slot].created {
                    Some(_) => self.join_birth(slot),
                    None => self.await_dtrace(slot, said.at, Fact::Birth),
                }
            }
            return Some(slot);
        }
        let open = self.table.newest(pid).filter(|s| {
            let inc = &self.table[*s];
            inc.exit.is_none() && inc.tracked() && !inc.closed
        });
        if let Some(slot) = open {
            self.tree_at(slot).duplicate_child_notes += 1;
            return Some(slot).filter(|_| said.is_collision());
        }
        let slot = self.begin(pid, said.at);
        self.announce(slot, said);
        self.table[slot].tree = Some(tree);
        self.owe_birth(slot);
        self.count_tracked(slot, true);
        self.await_dtrace(slot, said.at, Fact::Birth);
        Some(slot)
    }

    fn announce(&mut self, slot: usize, said: Said) {
        let inc = &mut self.table[slot];
        (inc.child, inc.announced_by) = (Some(said), self.batches);
    }

    /// The oldest incarnation of `pid` that DTrace knows and kqueue has not announced, among those that are newer than
    /// everything kqueue has spoken of; one that fits the data goes first. Not one that ended and was not announced by
    /// the drain after its create: the note is of the next life, whose create is on its way.
    fn unannounced(&self, pid: Pid, said: &Said) -> Option<usize> {
        let over = |inc: &Incarnation| inc.closed && inc.exited.is_some();
        let news = || {
            let unheard = self.table.chain(pid).take_while(|s| !self.table[*s].known_to_kqueue());
            unheard.filter(|s| !over(&self.table[*s]))
        };
        let fits = |slot: &usize| {
            let inc = &self.table[*slot];
            inc.forker.is_some_and(|f| i64::from(f.get()) == said.data)
                || said.is_collision() && inc.status.is_some_and(|s| i64::from(s.0) == said.data)
        };
        news().filter(fits).last().or_else(|| news().last())
    }

    /// The incarnation that a lone NOTE_EXIT is about. `None` where it was told before.
    fn exiting(&mut self, pid: Pid, tree: TreeId, data: i64) -> Option<usize> {
        let fits =
            |t: &Table, s: usize| t[s].status.is_some_and(|status| i64::from(status.0) == data);
        let tracked = self.table.latest(pid, Incarnation::tracked);
        let newer = self
            .table
            .chain(pid)
            .take_while(|s| Some(*s) != tracked && !self.table[*s].known_to_kqueue())
            .last();
        let tracked_open = tracked.filter(|s| self.table[*s].exit.is_none());
        match (tracked_open, newer) {
            (Some(slot), None) => Some(slot),
            (Some(slot), Some(new)) => {
                let other = !fits(&self.table, slot) && fits(&self.table, new);
                Some(if other { new } else { slot })
            }
            (None, Some(slot)) => {
                self.tree(tree).order_violations[Order::ExitBeforeChild.index()] += 1;
                Some(slot)
            }
            (None, None) => {
                let told = tracked.and_then(|s| self.table[s].exit);
                if told.is_some_and(|said| !self.dtrace.overlaps(said.at, self.now)) {
                    self.tree(tree).order_violations[Order::DuplicateExit.index()] += 1;
                    return None;
                }
                self.tree(tree).order_violations[Order::UnknownProcess.index()] += 1;
                Some(self.begin(pid, self.now))
            }
        }
    }

    fn note_exit(&mut self, slot: usize, tree: TreeId, said: Said) {
        if self.table[slot].exit.is_some() {
            return self.violation(slot, Order::DuplicateExit);
        }
        let inc = &mut self.table[slot];
        inc.exit = Some(said);
        inc.tree.get_or_insert(tree);
        if inc.death.is_some() {
            return self.violation(slot, Order::Late);
        }
        self.count_tracked(slot, false);
        self.owe_death(slot);
        match self.table[slot].exited {
            Some(_) => self.join_death(slot),
            None => self.await_dtrace(slot, said.at, Fact::Death),
        }
    }
}
