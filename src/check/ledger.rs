//! The book of incarnations: joins both witnesses' words about each life of each pid, in DTrace's order.
//!
//! What the kernel guarantees and this relies on (12.3 and later unless said otherwise):
//! - knote_fork queues NOTE_CHILD before proc:::create fires (13.2 `kern_fork.c:734,741`), so a drain that began after a
//!   create has delivered every NOTE_CHILD of it, duplicates included;
//! - NOTE_EXIT is queued soon after proc:::exit (13.2 `kern_exit.c:612,635`), before it on 12.3 and older: hence settle time;
//! - the queue is FIFO by first activation: all notes of one life of a pid come before NOTE_CHILD of the next.

use std::collections::VecDeque;

use super::align::Placed;
use super::blind::Blind;
use super::damage::NaiveTable;
use super::finding::Finding;
use super::stats::{Note, Order, Stats, TreeStats};
use super::table::{Handle, Incarnation, Said, Table};
use super::{Config, strategies, verdict};
use crate::input::Attach;
use crate::model::{Fact, KernelTime, Kevent, Pid, Regime, TreeId, Verdict, WaitStatus, note};

/// On 10.4 and older a child may run, and end, before proc:::create fires; not longer than this.
pub(crate) const CREATE_TRAILS_NS: u64 = 50_000_000;

/// How long the reader may take to run again after its time-out, while notes are queued that this call does not return.
const WAKE_NS: u64 = 100_000_000;
/// A call without events that took longer was held up after its time-out, nobody knows for how long. The reader's is
/// 200 ms: with a settle time of 500 ms and [`WAKE_NS`], a shorter call slept when the exit came that it settles.
const IDLE_NS: u64 = 750_000_000;
/// A call that timed out slept at least so long.
const SLEPT_NS: u64 = 150_000_000;

pub(crate) struct Ledger {
    pub(crate) config: Config,
    pub(crate) stats: Stats,
    pub(crate) dtrace: Blind,
    pub(crate) kqueue: Blind,
    pub(crate) table: Table,
    /// Creates that no drain has passed yet, in the order of their times.
    pub(crate) births: VecDeque<(Handle, KernelTime)>,
    /// Exits that no drain has passed by the settle time yet.
    pub(crate) deaths: VecDeque<(Handle, KernelTime)>,
    /// Notes that DTrace has not confirmed yet.
    pub(crate) notes: VecDeque<(Handle, KernelTime, Fact)>,
    /// Decided losses that are remembered for a while, to know a late note when it comes.
    pub(crate) lingering: VecDeque<(Handle, KernelTime)>,
    /// How many batches have been placed.
    batches: u64,
    /// The last of them whose mark is missing.
    unmarked: u64,
    /// The beginning of the last call that drained the queue.
    drained: KernelTime,
    pub(crate) now: KernelTime,
    /// What a tracker makes of the kevents.
    naive: NaiveTable,
    /// Findings that nobody has heard yet.
    pub(crate) findings: Vec<Finding>,
}

impl Ledger {
    pub(crate) fn new(config: Config) -> Ledger {
        Ledger {
            config,
            stats: Stats::default(),
            dtrace: Blind::default(),
            kqueue: Blind::default(),
            table: Table::new(),
            births: VecDeque::new(),
            deaths: VecDeque::new(),
            notes: VecDeque::new(),
            lingering: VecDeque::new(),
            batches: 0,
            unmarked: 0,
            drained: KernelTime(0),
            now: KernelTime(0),
            naive: NaiveTable::default(),
            findings: Vec::new(),
        }
    }

    // --- DTrace's words ---------------------------------------------------------------------------------------------

    pub(crate) fn create(&mut self, at: KernelTime, child: Pid, forker: Pid) {
        let early = self.announced_early(child, at);
        let slot = early.unwrap_or_else(|| self.begin(child, at));
        let living = self.table.newest(forker).filter(|f| self.table[*f].exited.is_none());
        let forker_handle = living.map(|f| self.pin(f));
        let batches = self.batches;
        let reported_after =
            living.map_or(0, |f| std::mem::replace(&mut self.table[f].forked_after, batches));
        let inc = &mut self.table[slot];
        (inc.created, inc.forker, inc.forker_handle) = (Some(at), Some(forker), forker_handle);
        (inc.created_after, inc.reported_after) = (batches, reported_after);
        let pinned = self.pin(slot);
        self.births.push_back((pinned, at));
        if self.table[slot].child.is_some() {
            match self.table[slot].birth {
                None => self.join_birth(slot),
                // The probe fired later than the settle time after knote_fork: the verdict stands.
                Some(_) => self.violation(slot, Order::Late),
            }
        }
    }

    /// The incarnation that this create belongs to, where other words about it came first: NOTE_CHILD while the forker
    /// was held up between knote_fork and the probe; on old kernels even its exit.
    fn announced_early(&self, pid: Pid, at: KernelTime) -> Option<usize> {
        let slot = self.table.newest(pid)?;
        let inc = &self.table[slot];
        if inc.created.is_some() {
            return None;
        }
        if inc.attached.is_some() {
            // Registered before dtrace could tell when that was.
            return (inc.exited.is_none() && at < inc.proven).then_some(slot);
        }
        let ended = [inc.exited, inc.exit.map(|e| e.at)].into_iter().flatten().min();
        match ended {
            Some(end) => (at.since(end) <= CREATE_TRAILS_NS && inc.birth.is_none()).then_some(slot),
            None => inc.child.map(|_| slot),
        }
    }

    /// A new life of `pid`, in a table with room for it.
    fn begin(&mut self, pid: Pid, at: KernelTime) -> usize {
        self.bury_predecessor(pid, at);
        self.make_room();
        self.table.begin(pid, at)
    }

    /// A pid is used again: whoever had it before is dead and reaped, even if DTrace's record of that is missing.
    fn bury_predecessor(&mut self, pid: Pid, at: KernelTime) {
        if let Some(old) = self.table.newest(pid)
            && self.table[old].exited.is_none()
            && self.table[old].exit.is_none()
        {
            // Its NOTE_EXIT was queued before the pid was free: wait for the next drain.
            let pinned = self.pin(old);
            self.deaths.push_back((pinned, at));
        }
    }

    pub(crate) fn exit(&mut self, at: KernelTime, pid: Pid, status: WaitStatus) {
        let living = self.table.newest(pid).filter(|slot| self.table[*slot].exited.is_none());
        let slot = living.unwrap_or_else(|| self.begin(pid, at));
        let inc = &mut self.table[slot];
        (inc.exited, inc.status) = (Some(at), Some(status));
        self.count_lost_alive(slot, false);
        let pinned = self.pin(slot);
        self.deaths.push_back((pinned, at));
        if self.table[slot].exit.is_some() && self.table[slot].death.is_none() {
            self.join_death(slot);
        }
    }

    // --- kqueue's words ---------------------------------------------------------------------------------------------

    pub(crate) fn batch(
        &mut self,
        placed: &Placed,
        attached: impl Iterator<Item = Attach>,
        events: impl Iterator<Item = Kevent>,
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
            self.event(&event, placed);
        }
        if let Some(entered) = placed.entered.filter(|_| placed.head.drained) {
            self.drained = self.drained.max(entered);
            // A call that timed out slept on an empty queue until then, or until a little earlier.
            let idle = placed.head.events == 0 && placed.at.since(entered) <= IDLE_NS;
            let empty = |before| if idle { placed.at.minus(before).max(entered) } else { entered };
            self.settle_births(empty(self.config.settle_ns).min(entered.plus(SLEPT_NS)));
            self.settle_deaths(empty(WAKE_NS));
        }
    }

    fn attach(&mut self, attach: &Attach, entered: KernelTime, at: KernelTime) {
        self.ensure_tree(attach.tree);
        if attach.errno != 0 {
            return;
        }
        let newest = self.table.newest(attach.pid);
        let slot = match newest.filter(|s| self.table[*s].exited.is_none()) {
            Some(slot) if self.table[slot].exit.is_none() => slot,
            _ => self.begin(attach.pid, at),
        };
        if self.table[slot].tracked() {
            return;
        }
        self.count_lost_alive(slot, false);
        let inc = &mut self.table[slot];
        inc.attached = Some((entered, at));
        inc.tree.get_or_insert(attach.tree);
        inc.proven = inc.proven.max(entered);
        self.count_tracked(slot, true);
    }

    fn event(&mut self, event: &Kevent, placed: &Placed) {
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
    /// everything kqueue has spoken of; one that fits the data goes first.
    fn unannounced(&self, pid: Pid, said: &Said) -> Option<usize> {
        let news = || self.table.chain(pid).take_while(|s| !self.table[*s].known_to_kqueue());
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

    // --- both -------------------------------------------------------------------------------------------------------

    fn join_birth(&mut self, slot: usize) {
        let verdict = verdict::birth(&self.table[slot], &self.dtrace);
        let inc = &mut self.table[slot];
        let (Some(created), Some(child)) = (inc.created, inc.child) else { return };
        inc.proven = inc.proven.max(created);
        let forker = inc.forker_handle;
        self.tree_at(slot).child_latency.add(child.at.since(created));
        if let Some(forker) = forker.and_then(|h| self.table.find(h))
            && verdict == Verdict::Agreed
        {
            let forker = &mut self.table[forker];
            forker.proven = forker.proven.max(created);
        }
        self.decide_birth(slot, verdict);
    }

    fn join_death(&mut self, slot: usize) {
        let verdict = verdict::death(&self.table[slot], &self.dtrace);
        if let (Some(exited), Some(exit)) = (self.table[slot].exited, self.table[slot].exit) {
            self.tree_at(slot).exit_latency.add(exit.at.since(exited));
        }
        self.decide_death(slot, verdict);
    }

    pub(crate) fn owe_birth(&mut self, slot: usize) {
        if !std::mem::replace(&mut self.table[slot].birth_owed, true) {
            self.tree_at(slot).births_reported += 1;
        }
    }

    pub(crate) fn owe_death(&mut self, slot: usize) {
        if !std::mem::replace(&mut self.table[slot].death_owed, true) {
            self.tree_at(slot).deaths_reported += 1;
        }
    }

    /// The one place where a birth gets its verdict.
    pub(crate) fn decide_birth(&mut self, slot: usize, verdict: Verdict) {
        self.owe_birth(slot);
        let inc = &mut self.table[slot];
        inc.birth = Some(verdict);
        let happened = inc.created.or(inc.child.map(|c| c.at));
        let alive = inc.exited.is_none() && inc.death.is_none();
        self.tree_at(slot).births[verdict.index()] += 1;
        self.count_lost_alive(slot, verdict.is_lost() && alive);
        self.tell(slot, Fact::Birth, verdict, happened);
    }

    /// The one place where a death gets its verdict.
    pub(crate) fn decide_death(&mut self, slot: usize, verdict: Verdict) {
        self.owe_death(slot);
        self.count_tracked(slot, false);
        self.count_lost_alive(slot, false);
        let inc = &mut self.table[slot];
        inc.death = Some(verdict);
        let happened = inc.exited.or(inc.exit.map(|e| e.at));
        let believed_alive = inc.tracked() && inc.exit.is_none();
        let collision = inc.child.is_some_and(|c| c.is_collision());
        let winner = verdict::winner(inc);
        let tree = self.tree_at(slot);
        tree.deaths[verdict.index()] += 1;
        tree.ghosts += u64::from(believed_alive && verdict.is_lost());
        if collision {
            tree.collisions[winner.index()] += 1;
            if let (Some(regime), Regime::Unknown | Regime::MergedStatus) =
                (verdict::regime_of(winner), self.stats.regime)
            {
                self.stats.regime = regime;
            }
        }
        self.tell(slot, Fact::Death, verdict, happened);
    }

    fn tell(&mut self, slot: usize, fact: Fact, verdict: Verdict, happened: Option<KernelTime>) {
        self.stats.verdict_delay.add(happened.map_or(0, |at| self.now.since(at)));
        let inc = &self.table[slot];
        let finding = Finding {
            tree: inc.tree.unwrap_or(TreeId(0)),
            pid: inc.pid,
            fact,
            verdict,
            dtrace: inc.dtrace_said(),
            kqueue: inc.kqueue_said(),
            decided: self.now,
        };
        let unheard = self.unheard(slot);
        let standing = self.naive.finding(&finding, unheard, &mut self.stats.trees);
        strategies::count(&finding, standing, self.tree(finding.tree));
        self.findings.push(finding);
    }

    /// Whether kqueue has said nothing of the forker, and nothing that it said is missing.
    fn unheard(&self, slot: usize) -> bool {
        let inc = &self.table[slot];
        let forker = inc.forker_handle.and_then(|h| self.table.find(h));
        forker.is_some_and(|f| !self.table[f].tracked())
            && inc.created.is_some_and(|created| !self.kqueue.overlaps(created, self.now))
    }

    /// A lone NOTE_CHILD shows how many knotes a child has: on split kernels its own knote is EV_ONESHOT
    /// (13.2 `kern_event.c:581`), on merged ones it is the tracking knote (10.1 `kern_event.c:504`).
    fn observe_regime(&mut self, event: &Kevent) {
        if event.fflags & (note::CHILD | note::EXIT) == note::CHILD {
            if event.flags & note::EV_ONESHOT != 0 {
                self.stats.regime = Regime::Split;
            } else if self.stats.regime == Regime::Unknown {
                self.stats.regime = Regime::MergedStatus;
            }
        }
    }

    // --- small help -------------------------------------------------------------------------------------------------

    pub(crate) fn pin(&mut self, slot: usize) -> Handle {
        self.table[slot].pins += 1;
        self.table.handle(slot)
    }

    fn await_dtrace(&mut self, slot: usize, at: KernelTime, fact: Fact) {
        let pinned = self.pin(slot);
        self.notes.push_back((pinned, at, fact));
    }

    /// Whether kqueue believes this process alive; the gauge follows, whatever order the words came in.
    fn count_tracked(&mut self, slot: usize, is: bool) {
        let was = std::mem::replace(&mut self.table[slot].in_tracked, is);
        let gauge = &mut self.tree_at(slot).tracked;
        *gauge = *gauge + u64::from(is) - u64::from(was);
    }

    /// Whether this process is lost and alive; the gauge follows.
    fn count_lost_alive(&mut self, slot: usize, is: bool) {
        let was = std::mem::replace(&mut self.table[slot].in_lost_alive, is);
        let gauge = &mut self.tree_at(slot).lost_alive;
        *gauge = *gauge + u64::from(is) - u64::from(was);
    }

    fn violation(&mut self, slot: usize, order: Order) {
        self.tree_at(slot).order_violations[order.index()] += 1;
    }

    /// The tree of an event: by its cookie, else that of the process that forked or is named, else the first.
    fn tree_of(&mut self, event: &Kevent) -> TreeId {
        let known = |pid: u64| {
            Pid::new(pid).and_then(|p| self.table.newest(p)).and_then(|s| self.table[s].tree)
        };
        let tree = TreeId::from_cookie(event.udata)
            .or_else(|| known(event.ident))
            .or_else(|| u64::try_from(event.data).ok().and_then(known))
            .filter(|tree| usize::from(tree.0) < self.stats.trees.len())
            .unwrap_or(TreeId(0));
        self.ensure_tree(tree);
        tree
    }

    pub(crate) fn ensure_tree(&mut self, tree: TreeId) {
        while self.stats.trees.len() <= usize::from(tree.0) {
            let name = format!("tree{}", self.stats.trees.len());
            self.stats.trees.push(TreeStats { name, ..TreeStats::default() });
        }
    }

    pub(crate) fn tree(&mut self, tree: TreeId) -> &mut TreeStats {
        &mut self.stats.trees[usize::from(tree.0)]
    }

    /// The counts of the tree that this incarnation belongs to.
    pub(crate) fn tree_at(&mut self, slot: usize) -> &mut TreeStats {
        let tree = self.table[slot].tree.unwrap_or(TreeId(0));
        self.tree(tree)
    }
}
