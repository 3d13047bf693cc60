//! Which registration, and which note, is about which life of its pid. kqueue names only the pid, and a pid may have
//! several lives in the table: the order of a queue, the drains before a note, and its data decide.

use super::life::{Life, Note, Registered};
use super::table::LifeTable;
use super::{Context, Lives};
use crate::check::judge::UNORDERED_NS;
use crate::check::latest::keep_latest;
use crate::check::stats::Order;
use crate::input::Attach;
use crate::model::{KernelTime, Kevent, Pid, Regime, TreeId, Witness, note};

/// So many notes of ends are remembered that came before what they are about.
const MOST_UNPLACED: usize = 64;

impl Lives {
    pub(super) fn register(
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
            life.may_run_at(entered) && life.exit.is_none() && !life.death.is_decided()
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
        let (calls, unmarked) = (self.calls, self.unmarked);
        let watched = || {
            self.table.chain(pid).find(|slot| {
                let life = &self.table[*slot];
                let is_watched = life.is_known_to_kqueue() && life.exit.is_none();
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
            Some(slot) if self.table[slot].exit.is_none() => {
                self.table[slot].proven = self.table[slot].proven.max(drained);
            }
            _ if self.is_from_before(pid) => {
                self.prove_registered(cx, pid, drained);
            }
            _ => self.tree_violation(cx, tree, Order::UnknownProcess),
        }
    }

    /// The oldest life of `pid` that DTrace knows and kqueue has not announced, among those that are newer than everything
    /// that kqueue has reported: the queue is in the order of first activation, so all notes of one life come before NOTE_CHILD
    /// of the next. One that fits the data goes first. Not one that ended and was not announced by the drain
    /// after its create, or that does not fit if the pid may have come back: the note is about the next life, whose create is
    /// on its way.
    pub(super) fn expecting_child_note(
        &self,
        cx: &Context,
        pid: Pid,
        note: &Note,
    ) -> Option<usize> {
        let over = |life: &Life| life.settled && life.exited.is_some();
        let expecting = || {
            let unknown =
                self.table.chain(pid).take_while(|s| !self.table[*s].is_known_to_kqueue());
            unknown.filter(|s| !over(&self.table[*s]))
        };
        let fits = |slot: &usize| self.table[*slot].fits_birth(note);
        let overtaken = |life: &Life| life.exit.is_some() && !life.is_tracked();
        let announced = |life: &Life| life.is_tracked() && life.fits_birth(note);
        let may_be_it = |slot: &usize| {
            let life = &self.table[*slot];
            let forker = life.forker_life.and_then(|handle| self.table.find(handle));
            let of_no_tree = forker.is_some_and(|forker| self.table[forker].tree.is_none());
            let created = life.created.unwrap_or(note.at);
            !of_no_tree && !cx.sight.pids_came_round(created, note.at)
        };
        let oldest = || expecting().last().filter(may_be_it);
        expecting().filter(fits).last().or_else(|| match self.crossed(cx, pid, note, announced) {
            Some(_) => None,
            None => oldest().or_else(|| self.crossed(cx, pid, note, overtaken)),
        })
    }

    /// The life that a further NOTE_CHILD is about.
    pub(super) fn announced(&self, cx: &Context, pid: Pid, note: &Note) -> Option<usize> {
        let newest = self.table.newest(pid).filter(|slot| {
            let life = &self.table[*slot];
            life.is_tracked() && life.exit.is_none() && !life.settled
        });
        newest.or_else(|| self.crossed(cx, pid, note, |life| life.is_tracked()))
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
            let elsewhere = life.child.filter(|child| child.queue != note.queue);
            let since = life.created.or(elsewhere.map(|child| child.at));
            let fits = |at| {
                let is_only = || !cx.sight.pids_came_round(at, note.at);
                life.fits_birth(note) || elsewhere.is_some() || is_only()
            };
            which(life)
                && since.is_some_and(|at| at.plus(UNORDERED_NS) > note.not_before && fits(at))
        };
        self.table.latest(pid, crossed).filter(|_| self.tree.is_some())
    }

    /// The life that a lone NOTE_EXIT is about. `None` if it was delivered before.
    pub(super) fn exiting(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        tree: TreeId,
        note: &Note,
    ) -> Option<usize> {
        let fits = |t: &LifeTable, s: usize| t[s].fits_death(note.data);
        let may_be_it = |slot: &usize| !self.is_of_a_later_life(cx, *slot, note);
        // A consumer may have registered the pid again before it got the note of the life before.
        let older = self.table.chain(pid).filter(|slot| {
            let life = &self.table[*slot];
            life.is_tracked() && life.exit.is_none() && life.fits_death(note.data)
        });
        let older = older.filter(may_be_it).last().filter(|_| self.tree.is_some());
        let latest = || self.table.latest(pid, Life::is_tracked).filter(may_be_it);
        let tracked = older.or_else(latest);
        let newer = || {
            let is_newer = |s: &usize| Some(*s) != tracked && !self.table[*s].is_known_to_kqueue();
            self.table.chain(pid).take_while(is_newer).filter(may_be_it)
        };
        let open = newer().filter(|s| !self.table[*s].death.is_final()).last();
        let newer = open.or_else(|| newer().last());
        let tracked_open = tracked.filter(|s| self.table[*s].exit.is_none());
        if let Some(open) = tracked_open.filter(|slot| !fits(&self.table, *slot))
            && self.ended_elsewhere(pid, note)
        {
            // If this one ends in the same way, its note may have been taken for that of the life before.
            self.table[open].muted |= self.table[open].status.is_none();
            return None;
        }
        match (tracked_open, newer) {
            // It has ended before anything proved that it was watched.
            (None, _) if self.is_from_before(pid) => {
                keep_latest(&mut self.unplaced, MOST_UNPLACED, (pid, *note));
                None
            }
            (Some(slot), None) => Some(slot),
            (Some(slot), Some(new)) => {
                // What was decided as lost has been waited for.
                let over = |slot: usize| self.table[slot].death.is_final();
                let fits_better = !fits(&self.table, slot) && fits(&self.table, new);
                let may_be_new = fits(&self.table, new) || self.table[new].status.is_none();
                let other = fits_better || over(slot) && !over(new) && may_be_new;
                Some(if other { new } else { slot })
            }
            (None, Some(slot)) => {
                self.tree_violation(cx, tree, Order::ExitBeforeChild);
                Some(slot)
            }
            (None, None) => {
                let known = self.table.latest(pid, Life::is_known_to_kqueue);
                let delivered = known.and_then(|s| self.table[s].exit);
                let is_repeated = |note: Note| {
                    let (from, to) = (note.at, self.now);
                    let missed = cx.sight.missed(Witness::Dtrace, from, to);
                    // Several kqueues of a consumer report one exit.
                    !missed && (self.tree.is_some() || !cx.sight.pids_came_round(from, to))
                };
                if delivered.is_some_and(is_repeated) {
                    self.repeated_exit(cx, tree);
                    return None;
                }
                self.tree_violation(cx, tree, Order::UnknownProcess);
                Some(self.begin(cx, pid, self.now))
            }
        }
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
        let is_drained = exited.max(life.enabled).plus(self.patience_ns) <= note.not_before;
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
            life.exit.is_some_and(|exit| exit.queue != note.queue)
                && life.exited.is_some_and(since)
                && life.fits_death(note.data)
        };
        self.table.latest(pid, ended).is_some()
    }

    /// A lone NOTE_CHILD shows how many knotes a child has: on split kernels its own knote is EV_ONESHOT
    /// (13.2 `kern_event.c:581`), on merged ones it is the tracking knote (10.1 `kern_event.c:504`). That is EV_ONESHOT too if a
    /// consumer has asked for it, or if the process has ended and NOTE_EXIT was not asked for.
    pub(super) fn observe_regime(&self, cx: &mut Context, event: &Kevent) {
        let regime = &mut cx.verdicts.stats.regime;
        if event.fflags & (note::CHILD | note::EXIT) != note::CHILD {
            return;
        }
        let ended = self.tree.is_some() && event.flags & note::EV_EOF != 0;
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
