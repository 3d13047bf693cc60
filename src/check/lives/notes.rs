//! kqueue's evidence: calls, registrations and notes, each joined to the life that it is about.

use super::life::{Life, Note, Registered, State};
use super::table::Table;
use super::waiting::Evidence;
use super::{Context, Lives};
use crate::check::stats::{self, Order};
use crate::check::timeline::event::Call;
use crate::input::Attach;
use crate::model::{Fact, KernelTime, Kevent, Pid, Regime, TreeId, Witness, note};

/// How long the reader may take to run again after its time-out, while notes are queued that this call does not return.
const WAKE_NS: u64 = 100_000_000;
/// A call that took longer and timed out slept at least so long on an empty queue: the reader's time-out is 200 ms. If it took
/// much longer, its thread was held up afterwards, for an unknown time.
const SLEPT_NS: u64 = 150_000_000;

impl Lives {
    pub(super) fn call(&mut self, cx: &mut Context, call: &Call<'_>) {
        self.calls += 1;
        if call.entered.is_none() {
            self.unmarked = self.calls;
        }
        cx.verdicts.stats.batch_sizes.add(call.notes.len() as u64);
        for attach in call.registered {
            self.register(cx, attach, call.entered.unwrap_or(self.drained(call)), call.at);
        }
        for event in call.notes {
            self.kevent(cx, event, call);
        }
        let Some(entered) = call.entered else { return };
        cx.verdicts.observers(self.number).recent.call(entered, call.at);
        match self.tree {
            _ if !call.drained => {}
            Some(_) => self.drain_one(call, entered),
            None => self.drain(cx, call, entered),
        }
    }

    /// A call that began at `entered` has drained the queue: what was queued before has been delivered, and what was not queued
    /// before never will be.
    fn drain(&mut self, cx: &mut Context, call: &Call<'_>, entered: KernelTime) {
        for queue in &mut self.queues {
            queue.drained = queue.drained.max(entered);
        }
        // A call that timed out slept on an empty queue until a little before it returned: what happened while it surely slept
        // would have woken it.
        let empty = |before, most| match call.notes {
            [] => call.at.minus(before).clamp(entered, entered.plus(most)),
            _ => entered,
        };
        let settle_ns = self.config.settle_ns;
        self.settle_births(cx, empty(settle_ns, SLEPT_NS));
        self.settle_deaths(cx, empty(WAKE_NS, SLEPT_NS.saturating_add(settle_ns)));
        cx.sight.drained(self.number, entered);
    }

    fn register(&mut self, cx: &mut Context, attach: &Attach, entered: KernelTime, at: KernelTime) {
        cx.verdicts.tree(attach.tree);
        if attach.errno != 0 {
            return;
        }
        self.watching.get_or_insert(at);
        if attach.root || attach.notes & note::TRACK != 0 {
            cx.verdicts.tree(attach.tree).notes |= attach.notes;
        }
        let alive = |life: &Life| {
            life.may_run_at(entered) && life.exit.is_none() && !life.death.is_decided()
        };
        let newest = self.table.newest(attach.pid).filter(|slot| alive(&self.table[*slot]));
        let slot = newest.unwrap_or_else(|| self.begin(cx, attach.pid, at));
        if self.table[slot].is_tracked() {
            return;
        }
        self.change(cx, slot, |life| {
            life.registered = Some(Registered { entered, at, notes: attach.notes });
            life.tree.get_or_insert(attach.tree);
            life.proven = life.proven.max(entered);
        });
    }

    fn kevent(&mut self, cx: &mut Context, event: &Kevent, call: &Call<'_>) {
        if event.is_receipt() {
            cx.verdicts.stats.kevents[stats::Note::Receipt.index()] += 1;
            return;
        }
        for (bit, kind) in [
            (note::CHILD, stats::Note::Child),
            (note::EXIT, stats::Note::Exit),
            (note::FORK, stats::Note::Fork),
            (note::EXEC, stats::Note::Exec),
            (note::TRACKERR, stats::Note::Trackerr),
        ] {
            cx.verdicts.stats.kevents[kind.index()] += u64::from(event.fflags & bit != 0);
        }
        let tree = self.tree_of_event(cx, event);
        // What came was asked for: a recording of an old version does not say it.
        cx.verdicts.tree(tree).notes |= event.fflags & (note::FORK | note::EXEC);
        if self.tree.is_some() {
            self.learn_queue(call.queue, None, call.entered.unwrap_or_default());
            self.learn_notes(cx, tree, event);
        }
        let Some(pid) = Pid::new(event.ident) else {
            cx.verdicts.tree(tree).order_violations[Order::BadIdent.index()] += 1;
            return;
        };
        self.observe_regime(cx, event);
        let note = Note {
            flags: event.flags,
            fflags: event.fflags,
            data: event.data,
            call: call.seq,
            at: call.at,
            not_before: self.drained(call),
        };
        let has = |bit| event.fflags & bit != 0;
        let born = if has(note::CHILD) { self.note_child(cx, pid, tree, note) } else { None };
        if has(note::TRACKERR) {
            self.note_trackerr(cx, pid, tree, &note);
        }
        if has(note::EXIT) {
            if let Some(slot) = born.or_else(|| self.exiting(cx, pid, tree, note.data)) {
                self.note_exit(cx, slot, tree, note);
            }
        } else if !has(note::CHILD) {
            self.sign_of_life(cx, pid, tree, note.not_before);
        }
    }

    /// The beginning of the last call that drained this call's queue.
    fn drained(&self, call: &Call<'_>) -> KernelTime {
        let queue = self.queues.iter().find(|queue| queue.descriptor == call.queue);
        queue.map_or(KernelTime(0), |queue| queue.drained)
    }

    fn note_trackerr(&mut self, cx: &mut Context, pid: Pid, tree: TreeId, note: &Note) {
        cx.verdicts.tree(tree).trackerr_reports += 1;
        let (calls, unmarked) = (self.calls, self.unmarked);
        let slot = self.table.latest(pid, Life::is_known_to_kqueue);
        // On split kernels a process whose birth was lost may still have a knote.
        if let Some(slot) = slot.or_else(|| self.table.newest(pid)) {
            self.table[slot].trackerr.add(calls, note, unmarked);
        }
    }

    /// NOTE_FORK or NOTE_EXEC: the knote was alive after the last drain, so the pid was still this life.
    fn sign_of_life(&mut self, cx: &mut Context, pid: Pid, tree: TreeId, drained: KernelTime) {
        let used_up = self.used_up;
        match self.table.latest(pid, Life::is_tracked) {
            Some(slot) if self.table[slot].exit.is_none() => {
                let life = &mut self.table[slot];
                life.proven = life.proven.max(drained);
                life.muted |= used_up;
            }
            _ if self.is_from_before(pid) => self.prove_registered(cx, pid, drained),
            _ => self.tree_violation(cx, tree, Order::UnknownProcess),
        }
    }

    /// Joins NOTE_CHILD to its life and returns that; `None` for a duplicate.
    fn note_child(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        tree: TreeId,
        note: Note,
    ) -> Option<usize> {
        let expecting = self.expecting_child_note(pid, &note);
        if expecting.is_none()
            && let Some(slot) = self.table.newest(pid)
            && let life = &self.table[slot]
            && life.is_tracked()
            && life.exit.is_none()
            && !life.settled
        {
            self.tree_of(cx, slot).duplicate_child_notes += 1;
            return note.is_collision().then_some(slot);
        }
        let slot = expecting.unwrap_or_else(|| self.begin(cx, pid, note.at));
        let calls = self.calls;
        self.change(cx, slot, |life| {
            (life.child, life.calls.announced) = (Some(note), calls);
            life.tree.get_or_insert(tree);
        });
        let life = &self.table[slot];
        match (life.birth, life.created) {
            (State::Decided(_), _) => self.violation(cx, slot, Order::Late),
            (_, created) => {
                self.report(cx, slot, Fact::Birth);
                match created {
                    Some(_) => self.join_birth(cx, slot),
                    None => self.wait(slot, Evidence::Record, Fact::Birth, note.at),
                }
            }
        }
        Some(slot)
    }

    /// The oldest life of `pid` that DTrace knows and kqueue has not announced, among those that are newer than everything
    /// that kqueue has reported; one that fits the data goes first. Not one that ended and was not announced by the drain
    /// after its create: the note is about the next life, whose create is on its way.
    fn expecting_child_note(&self, pid: Pid, note: &Note) -> Option<usize> {
        let over = |life: &Life| life.settled && life.exited.is_some();
        let expecting = || {
            let unknown =
                self.table.chain(pid).take_while(|s| !self.table[*s].is_known_to_kqueue());
            unknown.filter(|s| !over(&self.table[*s]))
        };
        let fits = |slot: &usize| {
            let life = &self.table[*slot];
            life.forker.is_some_and(|f| i64::from(f.get()) == note.data)
                || note.is_collision() && life.status.is_some_and(|s| i64::from(s.0) == note.data)
        };
        expecting().filter(fits).last().or_else(|| expecting().last())
    }

    /// The life that a lone NOTE_EXIT is about. `None` if it was delivered before.
    fn exiting(&mut self, cx: &mut Context, pid: Pid, tree: TreeId, data: i64) -> Option<usize> {
        let fits =
            |t: &Table, s: usize| t[s].status.is_some_and(|status| i64::from(status.0) == data);
        let tracked = self.table.latest(pid, Life::is_tracked);
        let newer = self
            .table
            .chain(pid)
            .take_while(|s| Some(*s) != tracked && !self.table[*s].is_known_to_kqueue())
            .last();
        let tracked_open = tracked.filter(|s| self.table[*s].exit.is_none());
        match (tracked_open, newer) {
            // It has ended before anything proved that it was watched.
            (None, _) if self.is_from_before(pid) => None,
            (Some(slot), None) => Some(slot),
            (Some(slot), Some(new)) => {
                let other = !fits(&self.table, slot) && fits(&self.table, new);
                Some(if other { new } else { slot })
            }
            (None, Some(slot)) => {
                self.tree_violation(cx, tree, Order::ExitBeforeChild);
                Some(slot)
            }
            (None, None) => {
                let delivered = tracked.and_then(|s| self.table[s].exit);
                let dtrace = Witness::Dtrace;
                if delivered.is_some_and(|note| !cx.sight.missed(dtrace, note.at, self.now)) {
                    self.repeated_exit(cx, tree);
                    return None;
                }
                self.tree_violation(cx, tree, Order::UnknownProcess);
                Some(self.begin(cx, pid, self.now))
            }
        }
    }

    fn note_exit(&mut self, cx: &mut Context, slot: usize, tree: TreeId, note: Note) {
        if self.table[slot].exit.is_some() {
            return self.repeated_exit(cx, tree);
        }
        self.change(cx, slot, |life| {
            life.exit = Some(note);
            life.tree.get_or_insert(tree);
        });
        let life = &self.table[slot];
        match (life.death, life.exited) {
            (State::Decided(_), _) => self.violation(cx, slot, Order::Late),
            (_, exited) => {
                self.report(cx, slot, Fact::Death);
                match exited {
                    Some(_) => self.join_death(cx, slot),
                    None => self.wait(slot, Evidence::Record, Fact::Death, note.at),
                }
            }
        }
    }

    /// A lone NOTE_CHILD shows how many knotes a child has: on split kernels its own knote is EV_ONESHOT
    /// (13.2 `kern_event.c:581`), on merged ones it is the tracking knote (10.1 `kern_event.c:504`).
    fn observe_regime(&self, cx: &mut Context, event: &Kevent) {
        let regime = &mut cx.verdicts.stats.regime;
        if event.fflags & (note::CHILD | note::EXIT) == note::CHILD {
            if event.flags & note::EV_ONESHOT != 0 {
                *regime = Regime::Split;
            } else if *regime == Regime::Unknown {
                *regime = Regime::MergedStatus;
            }
        }
    }

    /// The tree of an event: by its cookie, else that of the process that forked or is named, else the first.
    fn tree_of_event(&self, cx: &Context, event: &Kevent) -> TreeId {
        let known = |pid: u64| {
            Pid::new(pid).and_then(|p| self.table.newest(p)).and_then(|s| self.table[s].tree)
        };
        if let Some(tree) = self.tree {
            return tree;
        }
        TreeId::from_cookie(event.udata)
            .or_else(|| known(event.ident))
            .or_else(|| u64::try_from(event.data).ok().and_then(known))
            .filter(|tree| usize::from(tree.0) < cx.verdicts.stats.trees.len())
            .unwrap_or(TreeId(0))
    }

    /// A second NOTE_EXIT of one life. Each kqueue of a consumer may report it once.
    fn repeated_exit(&self, cx: &mut Context, tree: TreeId) {
        if self.queues.len() < 2 {
            self.tree_violation(cx, tree, Order::DuplicateExit);
        }
    }

    fn tree_violation(&self, cx: &mut Context, tree: TreeId, order: Order) {
        cx.verdicts.tree(tree).order_violations[order.index()] += 1;
    }
}
