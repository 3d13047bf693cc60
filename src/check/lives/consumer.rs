//! The rules for consumers alone. A consumer is a process of the user's that reads a kqueue itself; DTrace alone
//! watches it. Its registrations and kqueues are seen in DTrace's records, or inferred from the kevents that it
//! receives.
//!
//! A process has one birth and one death for a consumer, however many of its kqueues watch the process: the fact was
//! reported if any of them delivered it, and is missing only when all of them were drained.

use std::collections::VecDeque;

use super::drain::WatchedQueue;
use super::life::{FactState, Life, Note, Registered};
use super::waiting::Evidence;
use super::{Basis, Context, Lives};
use crate::check::judge::UNORDERED_NS;
use crate::check::stats::Refusal;
use crate::check::timeline::event::Registration;
use crate::model::{KernelTime, Kevent, Pid, TreeId, Witness, note};

/// With more lives than this, a consumer's table with room for `capacity` of them forgets those of no tree.
pub(super) fn most_strangers(capacity: usize) -> usize {
    (1 << 14).min(capacity / 2)
}

impl Lives {
    /// A consumer has registered a process, or changed a registration.
    pub(super) fn registration(&mut self, cx: &mut Context, tree: TreeId, change: &Registration) {
        let queue = self.queues.iter().find(|queue| queue.descriptor == change.queue);
        if queue.is_some_and(|queue| queue.address != Some(change.kqueue)) {
            self.forget_queue(cx, change.queue);
        }
        let Some(pid) = change.pid else { return };
        if change.errno != 0 {
            let consumer = cx.verdicts.tree(tree).consumer.get_or_insert_default();
            consumer.refused[Refusal::of(change.errno).index()] += 1;
            return;
        }
        self.learn_queue(change.queue, Some(change.kqueue));
        let may_be_old = self.may_be_old_knote(cx, pid, change);
        for slot in self.lives_with_knote(cx, tree, pid, change) {
            self.change_knote(slot, may_be_old, change);
        }
    }

    /// Whether a change may be one of a knote that has nothing more to deliver. kevent(2) finds a knote by its pid (13.2
    /// `kern_event.c`, `kqueue_register`), also if that is another process now.
    fn may_be_old_knote(&self, cx: &Context, pid: Pid, change: &Registration) -> bool {
        let newest = self.table.newest(pid);
        // It has ended before, and was watched, or DTrace may have missed that it was.
        let has_ended = newest.is_some_and(|slot| {
            let life = &self.table[slot];
            let is_another = || cx.sight.pids_came_round_unseen(KernelTime(0), change.entered);
            life.exited.is_some_and(|at| at < change.entered) && (life.is_tracked() || is_another())
        });
        // The note about the life before has not been delivered yet.
        let tracked = self.table.latest(pid, Life::is_tracked).filter(|slot| Some(*slot) != newest);
        let is_of_life_before = tracked.is_some_and(|slot| {
            self.table[slot].exit_note.is_none_or(|exit| exit.queue != change.queue)
        });
        // Its note has come already: the clocks of two CPUs may be apart.
        let is_delivered = self
            .unplaced
            .iter()
            .any(|(ended, note)| *ended == pid && note.at.plus(UNORDERED_NS) > change.entered);
        has_ended || is_of_life_before || is_delivered
    }

    /// The lives that a change is about: the newest one if it adds a knote, else those that may have one.
    fn lives_with_knote(
        &mut self,
        cx: &mut Context,
        tree: TreeId,
        pid: Pid,
        change: &Registration,
    ) -> Vec<usize> {
        if change.has(note::EV_ADD) && !change.has(note::EV_DELETE) {
            self.knote_added(cx, tree, pid, change);
            return self.table.newest(pid).into_iter().collect();
        }
        // Only a knote that is there can be changed: perhaps one whose NOTE_CHILD was not delivered yet.
        if self.table.latest(pid, Life::is_tracked).is_none() && self.may_predate_dtrace(pid) {
            return vec![self.assume_registered_before_dtrace(cx, pid, change.entered)];
        }
        self.table.chain(pid).filter(|slot| self.table[*slot].is_open()).collect()
    }

    /// The knote of this life was changed, or one before it that `may_be_old`.
    fn change_knote(&mut self, slot: usize, may_be_old: bool, change: &Registration) {
        // The first registration that is seen is no change.
        let life = &self.table[slot];
        if !change.has(note::EV_ADD) || life.asked.is_some() || life.registered.is_none() {
            self.knote_changed(slot, change.at);
        }
        let is_only_queue = self.queues.len() < 2;
        let life = &mut self.table[slot];
        let gone = life.muted && !life.disabled && !change.has(note::EV_ADD);
        life.disabled |= change.has(note::EV_DISABLE);
        life.disabled &=
            !(change.has(note::EV_ENABLE) || change.has(note::EV_DELETE) && is_only_queue);
        life.muted = change.has(note::EV_DELETE) || life.disabled || gone || may_be_old;
        life.knote_set = change.at;
        // Any change says anew what is asked for (13.2 `kern_event.c`, `kqueue_register`: kn_sfflags).
        life.asked = Some(change.notes);
    }

    /// A registration was changed: of children that were created at about that time it is not known whether the kernel followed
    /// them.
    fn knote_changed(&mut self, slot: usize, at: KernelTime) {
        let life = &mut self.table[slot];
        if !life.was_changed_at_its_end() {
            life.changed = Some(at);
        }
        let recent = self
            .waiting
            .of(Evidence::ChildNote)
            .filter(|waiting| at.since(waiting.at) <= UNORDERED_NS);
        let recent: Vec<usize> =
            recent.filter_map(|waiting| self.table.find(waiting.life)).collect();
        for child in recent {
            let forker = self.table.forker_at_create(child);
            if forker == Some(slot) {
                self.table[child].asked = Some(0);
            }
        }
    }

    /// This event, which a call returned at `at`, has freed its knote (EV_ONESHOT), or disabled it (EV_DISPATCH). Of NOTE_CHILD
    /// with EV_ONESHOT see [`Lives::may_be_used_up`].
    pub(super) fn use_up(&mut self, cx: &Context, pid: Pid, event: &Kevent, at: KernelTime) {
        let used_up = event.flags & (note::EV_ONESHOT | note::EV_DISPATCH) != 0;
        let of_birth = event.fflags & note::CHILD != 0 && event.flags & note::EV_ONESHOT != 0;
        let Some(slot) = self.table.latest(pid, Life::is_tracked).filter(|_| used_up) else {
            return;
        };
        self.table[slot].muted |= !of_birth;
        self.table[slot].disabled |= event.flags & note::EV_DISPATCH != 0;
        if !of_birth || self.may_be_used_up(cx, &self.table[slot]) {
            self.knote_changed(slot, at);
        }
    }

    fn knote_added(&mut self, cx: &mut Context, tree: TreeId, pid: Pid, change: &Registration) {
        let &Registration { entered, at, notes, flags, .. } = change;
        self.watching.get_or_insert(at);
        if notes & note::TRACK != 0 {
            cx.verdicts.tree(tree).notes |= notes;
        }
        self.asked_together(cx, tree, notes);
        *self.oneshot.get_or_insert_default() |= flags & note::EV_ONESHOT != 0;
        // It succeeded: the process runs, or has ended and was not waited for.
        let newest = self.table.newest(pid);
        let over = newest.filter(|slot| {
            let life = &self.table[*slot];
            life.exit_note.is_some() || life.death.is_final()
        });
        let missed = |slot: usize| cx.sight.missed(Witness::Dtrace, self.table[slot].proven, at);
        if over.is_some_and(|slot| !missed(slot)) {
            // Another kqueue has reported its end, or an old knote is there: no other life has begun.
            return;
        }
        let open = newest.filter(|slot| Some(*slot) != over);
        let slot = open.unwrap_or_else(|| self.begin(cx, pid, at));
        if self.table[slot].child_note.is_none() {
            self.change(cx, slot, |life| {
                life.registered = Some(Registered { entered, at });
                life.tree.get_or_insert(tree);
                life.proven = life.proven.max(entered);
            });
        }
    }

    /// Keeps what one knote has asked for beside NOTE_EXIT, or was seen to deliver.
    fn asked_together(&self, cx: &mut Context, tree: TreeId, notes: u32) {
        if notes & note::EXIT != 0 {
            let consumer = cx.verdicts.tree(tree).consumer.get_or_insert_default();
            consumer.beside_exit |= notes & (note::FORK | note::EXEC);
        }
    }

    /// This kqueue watches processes. It may hold notes of long ago, until it is seen to be drained.
    pub(super) fn learn_queue(&mut self, descriptor: i32, address: Option<u64>) {
        if self.queues.iter().any(|queue| queue.descriptor == descriptor) {
            return;
        }
        if !self.queues.is_empty() {
            // It may watch processes that the others do not, and whose lives have been forgotten.
            self.anew = Some(self.now);
        }
        self.queues.push(WatchedQueue::new(descriptor, address));
    }

    /// Forgets the processes of the host that are none of the consumer's as far as is known, if there are too many: one that does
    /// not call kevent(2) for long would collect them all. Notes about them may still come, from registrations that are older
    /// than DTrace.
    pub(super) fn forget_strangers(&mut self, cx: &mut Context) {
        if self.tree.is_none() || self.table.len() < self.most_strangers {
            return;
        }
        let awaiting = self.awaiting_child_note(cx);
        for evidence in [Evidence::ChildNote, Evidence::ExitNote] {
            for waiting in self.waiting.take(evidence) {
                let is_ours = |slot: usize| {
                    let life = &self.table[slot];
                    life.tree.is_some() || life.is_known_to_kqueue() || awaiting.contains(&slot)
                };
                match self.table.find(waiting.life).is_some_and(is_ours) {
                    true => self.waiting.push(evidence, waiting),
                    false => self.settle(cx, evidence, waiting, Basis::GivenUp),
                }
            }
        }
        self.forgotten = Some(self.now);
        let (kept, capacity) = (self.table.len(), self.config.capacity);
        // Also while it is full, unless nearly all are its own: to look for the others would take longer than they are worth.
        let most = (2 * kept).min(capacity.max(kept + capacity / 8));
        self.most_strangers = most_strangers(capacity).max(most);
    }

    /// What came was asked for: registrations from before DTrace came are not seen.
    pub(super) fn learn_notes(&self, cx: &mut Context, tree: TreeId, event: &Kevent) {
        let asked = [(note::CHILD, note::TRACK), (note::EXIT, note::EXIT)];
        let asked = asked.into_iter().filter(|(came, _)| event.fflags & came != 0);
        cx.verdicts.tree(tree).notes |= asked.fold(0, |notes, (_, asked)| notes | asked);
        self.asked_together(cx, tree, event.fflags);
    }

    /// Whether a consumer may watch this process since before DTrace came: DTrace has shown neither its create nor its
    /// registration.
    pub(super) fn may_predate_dtrace(&self, pid: Pid) -> bool {
        let unknown = |slot: usize| {
            let life = &self.table[slot];
            life.created.is_none() && !life.is_tracked()
        };
        self.is_consumer() && self.table.newest(pid).is_none_or(unknown)
    }

    /// An event or a change has named a process that a consumer watches since before DTrace came: it was alive at `at`.
    pub(super) fn assume_registered_before_dtrace(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        at: KernelTime,
    ) -> usize {
        let slot = self.table.newest(pid).unwrap_or_else(|| self.begin(cx, pid, at));
        let tree = self.tree;
        self.change(cx, slot, |life| {
            let (entered, registered) = (KernelTime(0), KernelTime(0));
            life.registered = Some(Registered { entered, at: registered });
            life.tree = tree;
        });
        if let Some(tree) = tree {
            self.note_overtaking_exit(cx, slot, tree, at);
        }
        slot
    }

    /// The consumer, this process, has ended.
    pub(super) fn consumer_ended(&mut self, cx: &mut Context, consumer: Pid) {
        self.end(cx);
        let Some(tree) = self.tree else { return };
        let stats = cx.verdicts.tree(tree);
        let now = stats.consumer.get_or_insert_default();
        // The next one may have been found already.
        now.pid.take_if(|now| *now == consumer);
        stats.attached = now.pid.is_some();
        self.process = now.pid;
    }

    /// The consumer is this process. One that it was before is so until its records end.
    pub(crate) fn consumer_is(&mut self, process: Pid) {
        self.process.get_or_insert(process);
    }

    /// A kqueue was closed, which only another one with its descriptor shows; or its registrations were not seen, so that it
    /// may have been. Which processes it watched is not known: nothing needs to be reported of those that there are.
    fn forget_queue(&mut self, cx: &mut Context, descriptor: i32) {
        self.queues.retain(|queue| queue.descriptor != descriptor);
        if self.queues.is_empty() {
            return self.end(cx);
        }
        self.unplaced = self.recent_ends();
        self.give_up_all(cx);
        self.drains.clear();
        self.anew = Some(self.now);
        self.table.slots().into_iter().for_each(|slot| self.table[slot].muted = true);
    }

    /// The consumer has ended, or the only kqueue of it was closed: nothing more will be delivered of what is open.
    fn end(&mut self, cx: &mut Context) {
        let unplaced = self.recent_ends();
        self.give_up_all(cx);
        cx.sight.gone(self.tracker, self.now);
        // Its gauges alone: the same tree may be one of another tracker too.
        for slot in self.table.slots() {
            self.change(cx, slot, |life| life.death = FactState::NoFact);
        }
        cx.verdicts.forget_table(self.tracker);
        let (process, anew) = (self.process, Some(self.now));
        *self =
            Lives { process, anew, unplaced, ..Lives::new(self.config, self.tracker, self.tree) };
    }

    /// The notes of ends that may have come after what comes next: the clocks of two CPUs may be apart.
    fn recent_ends(&self) -> VecDeque<(Pid, Note)> {
        let slots = self.table.slots().into_iter();
        let placed =
            slots.filter_map(|slot| Some((self.table[slot].pid, self.table[slot].exit_note?)));
        let all = self.unplaced.iter().copied().chain(placed);
        all.filter(|(_, note)| note.at.plus(UNORDERED_NS) > self.now).collect()
    }
}
