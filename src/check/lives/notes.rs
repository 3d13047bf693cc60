//! Which registration, and which note, is about which life of its pid. kqueue names only the pid, and a pid may have
//! several lives in the table: the order of a queue, the drains before a note, and its data decide. Also what an event
//! shows of its tree, and of how this kernel tracks.

use super::life::{Life, Note, Registered};
use super::{Context, Lives};
use crate::check::judge::UNORDERED_NS;
use crate::check::latest::keep_latest;
use crate::check::stats::Order;
use crate::check::timeline::event::Call;
use crate::input::Attach;
use crate::model::{KernelTime, Kevent, Pid, Regime, TreeId, Witness, note};

/// So many notes of ends are remembered that came before what they are about.
const MOST_UNPLACED: usize = 64;

/// Which life a NOTE_CHILD is about.
pub(super) enum ChildNoteOf {
    /// This one, which it announces.
    Announced(usize),
    /// This one, which was announced before: the note is a duplicate.
    Again(usize),
    /// One that DTrace has not shown.
    Unknown,
}

/// Which life a lone NOTE_EXIT is about.
enum ExitNoteOf {
    /// This one, which is tracked.
    Tracked(usize),
    /// This one, whose NOTE_CHILD has not come.
    Unannounced(usize),
    /// A life before this one, whose end another kqueue of the consumer has reported.
    Elsewhere { open: usize },
    /// One that has ended before anything proved that it was watched.
    Unproven,
    /// One whose NOTE_EXIT has come before.
    Again,
    /// One that DTrace has not shown.
    Unknown,
}

impl Lives {
    pub(super) fn mirror_registered(
        &mut self,
        cx: &mut Context,
        attach: &Attach,
        entered: KernelTime,
        at: KernelTime,
    ) {
        cx.verdicts.tree(attach.tree);
        if attach.errno != 0 {
            return;
        }
        self.watching.get_or_insert(at);
        if attach.root || attach.notes & note::TRACK != 0 {
            cx.verdicts.tree(attach.tree).notes |= attach.notes;
        }
        let alive = |life: &Life| {
            life.may_run_at(entered) && life.exit_note.is_none() && !life.death.is_decided()
        };
        let newest = self.table.newest(attach.pid).filter(|slot| alive(&self.table[*slot]));
        let slot = newest.unwrap_or_else(|| self.begin(cx, attach.pid, at));
        if self.table[slot].is_tracked() {
            return;
        }
        self.change(cx, slot, |life| {
            life.registered = Some(Registered { entered, at });
            life.asked = Some(attach.notes).filter(|notes| *notes != 0);
            life.tree.get_or_insert(attach.tree);
            life.proven = life.proven.max(entered);
        });
    }

    /// Joins NOTE_TRACKERR to a life: to that which the same kevent is `about`, if it carries another note too.
    pub(super) fn note_trackerr(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        tree: TreeId,
        note: &Note,
        about: Option<usize>,
    ) {
        cx.verdicts.tree(tree).trackerr_reports += 1;
        let (calls, unmarked) = (self.placed_calls, self.last_unmarked);
        let watched = || {
            self.table.chain(pid).find(|slot| {
                let life = &self.table[*slot];
                let is_watched = life.is_known_to_kqueue() && life.exit_note.is_none();
                is_watched && !self.is_of_a_later_life(cx, *slot, note)
            })
        };
        // On split kernels a process whose birth was lost may still have a knote.
        if let Some(slot) = about.or_else(watched).or_else(|| self.table.newest(pid)) {
            self.table[slot].trackerr.add(calls, note, unmarked);
        }
    }

    /// NOTE_FORK or NOTE_EXEC: the knote was alive after the last drain, so the pid was still this life.
    pub(super) fn sign_of_life(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        tree: TreeId,
        drained: KernelTime,
    ) {
        match self.table.latest(pid, Life::is_tracked) {
            Some(slot) if self.table[slot].exit_note.is_none() => {
                self.table[slot].proven = self.table[slot].proven.max(drained);
            }
            _ if self.may_predate_dtrace(pid) => {
                self.assume_registered_before_dtrace(cx, pid, drained);
            }
            _ => self.tree_violation(cx, tree, Order::UnknownProcess),
        }
    }

    /// Which life a NOTE_CHILD is about. A queue is in the order of first activation: all notes of one life come before NOTE_CHILD
    /// of the next, so the life is newer than everything that kqueue has reported. In the order of trust:
    ///
    /// 1. the oldest such life whose forker the note names;
    /// 2. if another thread of a consumer got the note of one that fits before: that one (5);
    /// 3. the oldest such life, if the note can be about it;
    /// 4. one of a consumer's whose NOTE_EXIT another thread got before;
    /// 5. one that has been announced: it is a duplicate.
    pub(super) fn child_note_of(&self, cx: &Context, pid: Pid, note: &Note) -> ChildNoteOf {
        if let Some(slot) = self.oldest_unannounced(pid, |life| life.fits_birth(note)) {
            return ChildNoteOf::Announced(slot);
        }
        let is_overtaken = |life: &Life| life.exit_note.is_some() && !life.is_tracked();
        let came_before = |life: &Life| life.is_tracked() && life.fits_birth(note);
        if self.crossed(cx, pid, note, came_before).is_none() {
            let oldest = self.oldest_unannounced(pid, |_| true);
            let oldest = oldest.filter(|slot| self.may_announce(cx, *slot, note));
            if let Some(slot) = oldest.or_else(|| self.crossed(cx, pid, note, is_overtaken)) {
                return ChildNoteOf::Announced(slot);
            }
        }
        match self.announced(cx, pid, note) {
            Some(slot) => ChildNoteOf::Again(slot),
            None => ChildNoteOf::Unknown,
        }
    }

    /// The oldest of the lives that are newer than everything that kqueue has reported of the pid. Not one that has ended, and
    /// whose NOTE_CHILD had not come by the drain after its create.
    fn oldest_unannounced(&self, pid: Pid, which: impl Fn(&Life) -> bool) -> Option<usize> {
        let unknown = self.table.chain(pid).take_while(|s| !self.table[*s].is_known_to_kqueue());
        let is_over = |life: &Life| life.birth_over && life.exited.is_some();
        let may_be = |slot: &usize| !is_over(&self.table[*slot]) && which(&self.table[*slot]);
        unknown.filter(may_be).last()
    }

    /// Whether a NOTE_CHILD that names another forker can be about this life: not if the pid may have come back, for then it is
    /// about the next life, whose create is on its way.
    fn may_announce(&self, cx: &Context, slot: usize, note: &Note) -> bool {
        let life = &self.table[slot];
        let forker = self.table.forker_at_create(slot);
        let is_of_no_tree = forker.is_some_and(|forker| self.table[forker].tree.is_none());
        let created = life.created.unwrap_or(note.at);
        !is_of_no_tree && !cx.sight.pids_came_round(created, note.at)
    }

    /// The life that was announced before by the NOTE_CHILD that this one repeats.
    fn announced(&self, cx: &Context, pid: Pid, note: &Note) -> Option<usize> {
        let newest = self.table.newest(pid).filter(|slot| {
            let life = &self.table[*slot];
            life.is_tracked() && life.exit_note.is_none() && !life.birth_over
        });
        newest.or_else(|| self.crossed(cx, pid, note, Life::is_tracked))
    }

    /// The life that NOTE_CHILD is about although later notes of it came before: several threads of a consumer may read one
    /// kqueue, and several of its kqueues may report one process. It was created since this kqueue was drained.
    fn crossed(
        &self,
        cx: &Context,
        pid: Pid,
        note: &Note,
        which: impl Fn(&Life) -> bool,
    ) -> Option<usize> {
        let crossed = |life: &Life| {
            let elsewhere = life.child_note.filter(|child| child.queue != note.queue);
            let since = life.created.or(elsewhere.map(|child| child.at));
            let fits = |at| {
                let is_only = || !cx.sight.pids_came_round(at, note.at);
                life.fits_birth(note) || elsewhere.is_some() || is_only()
            };
            which(life)
                && since.is_some_and(|at| at.plus(UNORDERED_NS) > note.not_before && fits(at))
        };
        self.table.latest(pid, crossed).filter(|_| self.is_consumer())
    }

    /// The life that a lone NOTE_EXIT is about. `None` if it was delivered before, or is not known yet.
    pub(super) fn life_that_exits(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        tree: TreeId,
        note: &Note,
    ) -> Option<usize> {
        match self.exit_note_of(cx, pid, note) {
            ExitNoteOf::Tracked(slot) => Some(slot),
            ExitNoteOf::Unannounced(slot) => {
                self.tree_violation(cx, tree, Order::ExitBeforeChild);
                Some(slot)
            }
            ExitNoteOf::Elsewhere { open } => {
                // If this one ends in the same way, its note may have been taken for that of the life before.
                self.table[open].muted |= self.table[open].status.is_none();
                None
            }
            ExitNoteOf::Unproven => {
                keep_latest(&mut self.unplaced, MOST_UNPLACED, (pid, *note));
                None
            }
            ExitNoteOf::Again => {
                self.repeated_exit(cx, tree);
                None
            }
            ExitNoteOf::Unknown => {
                self.tree_violation(cx, tree, Order::UnknownProcess);
                Some(self.begin(cx, pid, self.now))
            }
        }
    }

    /// Which life a lone NOTE_EXIT is about: one that is tracked, or a newer one whose NOTE_CHILD is missing.
    fn exit_note_of(&self, cx: &Context, pid: Pid, note: &Note) -> ExitNoteOf {
        let tracked = self.tracked_until(cx, pid, note);
        let newer = self.untracked_since(cx, pid, note, tracked);
        let open = tracked.filter(|slot| self.table[*slot].exit_note.is_none());
        match (open, newer) {
            (Some(open), _)
                if !self.table[open].fits_death(note.data) && self.ended_elsewhere(pid, note) =>
            {
                ExitNoteOf::Elsewhere { open }
            }
            (None, _) if self.may_predate_dtrace(pid) => ExitNoteOf::Unproven,
            (Some(open), Some(newer)) if self.is_rather_of(newer, open, note) => {
                ExitNoteOf::Unannounced(newer)
            }
            (Some(open), _) => ExitNoteOf::Tracked(open),
            (None, Some(newer)) => ExitNoteOf::Unannounced(newer),
            (None, None) if self.has_come_before(cx, pid) => ExitNoteOf::Again,
            (None, None) => ExitNoteOf::Unknown,
        }
    }

    /// The tracked life that a NOTE_EXIT may be about: the latest. A consumer may have registered the pid again before it got the
    /// note of the life before: then the oldest that has not been reported and fits.
    fn tracked_until(&self, cx: &Context, pid: Pid, note: &Note) -> Option<usize> {
        let may_be_it = |slot: &usize| !self.is_of_a_later_life(cx, *slot, note);
        let fits = |slot: &usize| {
            let life = &self.table[*slot];
            life.is_tracked() && life.exit_note.is_none() && life.fits_death(note.data)
        };
        let oldest = || self.table.chain(pid).filter(fits).filter(may_be_it).last();
        let latest = || self.table.latest(pid, Life::is_tracked).filter(may_be_it);
        if self.is_consumer() { oldest().or_else(latest) } else { latest() }
    }

    /// The oldest life that is newer than the `tracked` one, of which kqueue has reported nothing; one that is open, if there is
    /// any.
    fn untracked_since(
        &self,
        cx: &Context,
        pid: Pid,
        note: &Note,
        tracked: Option<usize>,
    ) -> Option<usize> {
        let newer = || {
            let is_newer = |s: &usize| Some(*s) != tracked && !self.table[*s].is_known_to_kqueue();
            let newer = self.table.chain(pid).take_while(is_newer);
            newer.filter(|slot| !self.is_of_a_later_life(cx, *slot, note))
        };
        let open = newer().filter(|s| !self.table[*s].death.is_final()).last();
        open.or_else(|| newer().last())
    }

    /// Whether a NOTE_EXIT is about the `newer` life, and not about the tracked one that is `open`.
    fn is_rather_of(&self, newer: usize, open: usize, note: &Note) -> bool {
        let (newer, open) = (&self.table[newer], &self.table[open]);
        let fits_better = newer.fits_death(note.data) && !open.fits_death(note.data);
        let may_fit = newer.fits_death(note.data) || newer.status.is_none();
        // What was decided as lost has been waited for.
        fits_better || open.death.is_final() && !newer.death.is_final() && may_fit
    }

    /// Whether the NOTE_EXIT of the pid's latest life that kqueue knows has come already, and no life since then was missed.
    fn has_come_before(&self, cx: &Context, pid: Pid) -> bool {
        let known = self.table.latest(pid, Life::is_known_to_kqueue);
        known.and_then(|slot| self.table[slot].exit_note).is_some_and(|delivered| {
            let (from, to) = (delivered.at, self.now);
            let missed = cx.sight.missed(Witness::Dtrace, from, to);
            // Several kqueues of a consumer report one exit.
            !missed && (self.is_consumer() || !cx.sight.pids_came_round(from, to))
        })
    }

    /// Joins the NOTE_EXIT of a consumer's process that came before anything proved that it was watched, by its birth or
    /// otherwise, if there is one. It was alive at `at`.
    pub(super) fn note_overtaking_exit(
        &mut self,
        cx: &mut Context,
        slot: usize,
        tree: TreeId,
        at: KernelTime,
    ) {
        let pid = self.table[slot].pid;
        let is_it = |(ended, exit): &(Pid, Note)| *ended == pid && exit.at.plus(UNORDERED_NS) > at;
        let place = self.unplaced.iter().position(is_it);
        if let Some((_, exit)) = place.and_then(|place| self.unplaced.remove(place)) {
            self.note_exit(cx, slot, tree, exit);
        }
    }

    /// Whether this note is about a later life of the pid than that in `slot`: the queue was drained after the end of that one,
    /// when the note was not in it, and the pid may have come back. If it has not, the note is late.
    fn is_of_a_later_life(&self, cx: &Context, slot: usize, note: &Note) -> bool {
        let life = &self.table[slot];
        let Some(exited) = life.exited else { return false };
        let is_drained = exited.max(life.knote_set).plus(self.patience_ns) <= note.not_before;
        let came_back = || {
            self.table.newest(life.pid) != Some(slot)
                || cx.sight.pids_may_have_come_round(exited, self.now)
        };
        is_drained && came_back()
    }

    /// Whether another kqueue of a consumer has reported this end of an earlier life of the pid, since this one was drained.
    fn ended_elsewhere(&self, pid: Pid, note: &Note) -> bool {
        let since = |exited: KernelTime| exited.plus(self.patience_ns) > note.not_before;
        let ended = |life: &Life| {
            life.exit_note.is_some_and(|exit| exit.queue != note.queue)
                && life.exited.is_some_and(since)
                && life.fits_death(note.data)
        };
        self.table.latest(pid, ended).is_some()
    }

    /// What an event shows besides what it reports: what was asked for, a consumer's queue, and the kernel.
    pub(super) fn learn_from_event(
        &mut self,
        cx: &mut Context,
        tree: TreeId,
        event: &Kevent,
        call: &Call,
    ) {
        // What came was asked for: a recording of an old version does not say it.
        let also_asked = event.fflags & (note::FORK | note::EXEC);
        if also_asked != 0 {
            cx.verdicts.tree(tree).notes |= also_asked;
        }
        if self.is_consumer() {
            if call.queue != Call::UNKNOWN_QUEUE {
                self.learn_queue(call.queue, None);
            }
            self.learn_notes(cx, tree, event);
        }
        self.observe_regime(cx, event);
    }

    /// A lone NOTE_CHILD shows how many knotes a child has: on split kernels its own knote is EV_ONESHOT
    /// (13.2 `kern_event.c:581`), on merged ones it is the tracking knote (10.1 `kern_event.c:504`). That is EV_ONESHOT too if a
    /// consumer has asked for it, or if the process has ended and NOTE_EXIT was not asked for.
    pub(super) fn observe_regime(&self, cx: &mut Context, event: &Kevent) {
        let regime = &mut cx.verdicts.stats.regime;
        if event.fflags & (note::CHILD | note::EXIT) != note::CHILD {
            return;
        }
        let ended = self.is_consumer() && event.flags & note::EV_EOF != 0;
        match event.flags & note::EV_ONESHOT {
            0 if *regime == Regime::Unknown => *regime = Regime::MergedStatus,
            0 => {}
            _ if self.oneshot == Some(false) && !ended => *regime = Regime::Split,
            _ => {}
        }
    }

    /// The tree of an event: by its cookie, else that of the process that forked or is named, else the first.
    pub(super) fn tree_of_event(&self, cx: &Context, event: &Kevent) -> TreeId {
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
    pub(super) fn repeated_exit(&self, cx: &mut Context, tree: TreeId) {
        if self.queues.len() < 2 {
            self.tree_violation(cx, tree, Order::DuplicateExit);
        }
    }

    pub(super) fn tree_violation(&self, cx: &mut Context, tree: TreeId, order: Order) {
        cx.verdicts.tree(tree).order_violations[order.index()] += 1;
    }
}
