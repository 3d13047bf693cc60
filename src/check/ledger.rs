//! The book of incarnations: joins both witnesses' words about each life of each pid, in DTrace's order.
//!
//! What the kernel guarantees and this relies on (12.3 and later unless said otherwise):
//! - knote_fork queues NOTE_CHILD before proc:::create fires (13.2 `kern_fork.c:734,741`), so a drain that began after a
//!   create has delivered every NOTE_CHILD of it, duplicates included;
//! - NOTE_EXIT is queued soon after proc:::exit (13.2 `kern_exit.c:612,635`), before it on 12.3 and older: hence settle time;
//! - the queue is FIFO by first activation: all notes of one life of a pid come before NOTE_CHILD of the next.

use std::collections::VecDeque;

use super::blind::Blind;
use super::clues::{Lately, Named};
use super::damage::NaiveTable;
use super::finding::{Clues, Finding};
use super::stats::{Order, Stats, TreeStats};
use super::table::{Handle, Incarnation, Table};
use super::{Config, strategies, verdict};
use crate::model::{Fact, KernelTime, Kevent, Pid, Regime, TreeId, Verdict, WaitStatus, note};
use crate::wire::decode::Reason;

/// Two records with time stamps closer than this may have happened in either order. The clocks of two CPUs may be
/// milliseconds apart (the kernel does not measure the skew in a virtual machine: 12.3 `dtrace_subr.c`, `dtrace_gethrtime_init`),
/// and on 10.4 and older a child may run, and end, before proc:::create fires.
pub(crate) const UNORDERED_NS: u64 = 50_000_000;
/// A host whose threads were once held up for so long may hold one up for so many times that.
const HELD_UP_TIMES: u64 = 4;
/// Nobody is waited for longer than so many settle times.
const MOST_SETTLE_TIMES: u64 = 20;

pub(crate) struct Ledger {
    pub(crate) config: Config,
    pub(crate) stats: Stats,
    pub(crate) dtrace: Blind,
    pub(crate) kqueue: Blind,
    pub(crate) table: Table,
    /// Creates that no drain has passed yet, in the order of their times, and when they were printed at the latest.
    pub(crate) births: VecDeque<(Handle, KernelTime)>,
    /// Exits that no drain has passed by the settle time yet.
    pub(crate) deaths: VecDeque<(Handle, KernelTime)>,
    /// Notes that DTrace has not confirmed yet.
    pub(crate) notes: VecDeque<(Handle, KernelTime, Fact)>,
    /// Decided losses that are remembered for a while, to know a late note when it comes.
    pub(crate) lingering: VecDeque<(Handle, KernelTime)>,
    /// How many batches have been placed.
    pub(super) batches: u64,
    /// The last of them whose mark is missing.
    pub(super) unmarked: u64,
    /// The beginning of the last call that drained the queue.
    pub(super) drained: KernelTime,
    pub(crate) now: KernelTime,
    /// When something was last given up for want of room.
    pub(super) overflowed: KernelTime,
    /// When the first process was registered.
    pub(super) watching: Option<KernelTime>,
    /// How long a note, or its probe, may be behind: the settle time, and more on a host that starves its threads.
    pub(super) patience_ns: u64,
    /// What a tracker makes of the kevents.
    naive: NaiveTable,
    /// What tells why something was lost.
    pub(super) lately: Lately,
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
            overflowed: KernelTime(0),
            watching: None,
            patience_ns: config.settle_ns,
            naive: NaiveTable::default(),
            lately: Lately::new(),
            findings: Vec::new(),
        }
    }

    // --- DTrace's words ---------------------------------------------------------------------------------------------

    /// `printed`: a drain before that time may have been before the fork.
    pub(crate) fn create(&mut self, at: KernelTime, printed: KernelTime, child: Pid, forker: Pid) {
        if self.is_known_create(at, child, forker) {
            self.stats.bad_lines[Reason::Duplicate.index()] += 1;
            return;
        }
        let early = self.announced_early(child, at);
        let slot = early.unwrap_or_else(|| self.begin(child, at));
        // Its exit may be stamped before the fork.
        let living = self.table.newest(forker).filter(|f| self.table[*f].may_run_at(at));
        let forker_handle = living.map(|f| self.pin(f));
        let batches = self.batches;
        let reported_after =
            living.map_or(0, |f| std::mem::replace(&mut self.table[f].forked_after, batches));
        let inc = &mut self.table[slot];
        (inc.created, inc.forker, inc.forker_handle) = (Some(at), Some(forker), forker_handle);
        (inc.created_after, inc.reported_after) = (batches, reported_after);
        let pinned = self.pin(slot);
        self.births.push_back((pinned, printed));
        if self.table[slot].child.is_some() {
            match self.table[slot].birth {
                None => self.join_birth(slot),
                // The probe fired later than the settle time after knote_fork: the verdict stands.
                Some(_) => self.violation(slot, Order::Late),
            }
        }
    }

    /// Whether this life of the pid has begun already: the probe was printed twice (two enablings, or two dtraces that
    /// write to one file), each time with a time stamp of its own. A pid is not used again so soon.
    fn is_known_create(&self, at: KernelTime, child: Pid, forker: Pid) -> bool {
        let newest = self.table.newest(child).map(|slot| &self.table[slot]);
        newest.is_some_and(|inc| {
            let soon = inc.created.is_some_and(|created| at.since(created) <= UNORDERED_NS);
            soon && inc.forker == Some(forker)
        })
    }

    /// Whether DTrace has printed the exit of this life of the pid already.
    fn is_known_exit(&self, at: KernelTime, pid: Pid, status: WaitStatus) -> bool {
        let newest = self.table.newest(pid).map(|slot| &self.table[slot]);
        newest.is_some_and(|inc| {
            let soon = inc.exited.is_some_and(|exited| at.since(exited) <= UNORDERED_NS);
            soon && inc.status == Some(status)
        })
    }

    /// The incarnation that this create belongs to, where other words about it came first: NOTE_CHILD while the forker
    /// was held up between knote_fork and the probe; on old kernels even its exit.
    pub(super) fn announced_early(&self, pid: Pid, at: KernelTime) -> Option<usize> {
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
            Some(end) => (at.since(end) <= UNORDERED_NS && inc.birth.is_none()).then_some(slot),
            None => inc.child.map(|_| slot),
        }
    }

    /// A new life of `pid`, in a table with room for it.
    pub(super) fn begin(&mut self, pid: Pid, at: KernelTime) -> usize {
        self.bury_predecessor(pid, at);
        self.make_room();
        self.table.begin(pid, at)
    }

    /// A pid is used again: whoever had it before is dead and reaped, even if DTrace's record of that is missing.
    pub(super) fn bury_predecessor(&mut self, pid: Pid, at: KernelTime) {
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
        if self.is_known_exit(at, pid, status) {
            self.stats.bad_lines[Reason::Duplicate.index()] += 1;
            return;
        }
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

    // --- both -------------------------------------------------------------------------------------------------------

    /// One was queued, or fired, so long after the other.
    fn held_up(&mut self, earlier: KernelTime, later: KernelTime) {
        let most = self.config.settle_ns.saturating_mul(MOST_SETTLE_TIMES);
        let patience_ns = later.since(earlier).saturating_mul(HELD_UP_TIMES).min(most);
        self.patience_ns = self.patience_ns.max(patience_ns);
    }

    fn missed(&self) -> verdict::Missed<'_> {
        let Ledger { dtrace, kqueue, config, watching, .. } = self;
        let watching = watching.unwrap_or_default();
        verdict::Missed { dtrace, kqueue, settle_ns: config.settle_ns, watching }
    }

    pub(super) fn join_birth(&mut self, slot: usize) {
        let verdict = verdict::birth(&self.table[slot], &self.missed());
        let inc = &mut self.table[slot];
        let (Some(created), Some(child)) = (inc.created, inc.child) else { return };
        inc.proven = inc.proven.max(created);
        self.held_up(child.at, created);
        let inc = &self.table[slot];
        let forker = inc.forker_handle;
        self.tree_at(slot).child_latency.add(child.at.since(created));
        if verdict == Verdict::Agreed {
            let named = self.table[slot].forker;
            let forker = forker.and_then(|h| self.table.find(h));
            if let Some(forker) = forker {
                let forker = &mut self.table[forker];
                forker.proven = forker.proven.max(created);
            }
            if let Some(named) = named
                && forker.is_none_or(|forker| !self.table[forker].tracked())
            {
                self.lately.named(Named { forker: named, forked: created, at: child.at });
            }
        }
        self.decide_birth(slot, verdict);
    }

    pub(super) fn join_death(&mut self, slot: usize) {
        let verdict = verdict::death(&self.table[slot], &self.missed());
        if let (Some(exited), Some(exit)) = (self.table[slot].exited, self.table[slot].exit) {
            // The queue was drained then, and the note was not in it.
            self.held_up(exited, exit.not_before);
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

    pub(super) fn tell(
        &mut self,
        slot: usize,
        fact: Fact,
        verdict: Verdict,
        happened: Option<KernelTime>,
    ) {
        self.stats.verdict_delay.add(happened.map_or(0, |at| self.now.since(at)));
        let inc = &self.table[slot];
        let finding = Finding {
            tree: inc.tree.unwrap_or(TreeId(0)),
            pid: inc.pid,
            fact,
            verdict,
            dtrace: inc.dtrace_said(),
            kqueue: inc.kqueue_said(),
            clues: self.clues(inc, verdict),
            decided: self.now,
        };
        let unheard = self.unheard(slot);
        let standing = self.naive.finding(&finding, unheard, &mut self.stats.trees);
        strategies::count(&finding, standing, self.tree(finding.tree));
        self.findings.push(finding);
    }

    fn clues(&self, inc: &Incarnation, verdict: Verdict) -> Clues {
        match verdict {
            Verdict::LostReported | Verdict::LostSilent => self.lately.about(inc),
            _ => Clues::default(),
        }
    }

    /// Whether kqueue has said nothing of the forker, and nothing that it said is missing.
    pub(super) fn unheard(&self, slot: usize) -> bool {
        let inc = &self.table[slot];
        let forker = inc.forker_handle.and_then(|h| self.table.find(h));
        forker.is_some_and(|f| !self.table[f].tracked())
            && inc.created.is_some_and(|created| !self.kqueue.overlaps(created, self.now))
    }

    /// A lone NOTE_CHILD shows how many knotes a child has: on split kernels its own knote is EV_ONESHOT
    /// (13.2 `kern_event.c:581`), on merged ones it is the tracking knote (10.1 `kern_event.c:504`).
    pub(super) fn observe_regime(&mut self, event: &Kevent) {
        if event.fflags & (note::CHILD | note::EXIT) == note::CHILD {
            if event.flags & note::EV_ONESHOT != 0 {
                self.stats.regime = Regime::Split;
            } else if self.stats.regime == Regime::Unknown {
                self.stats.regime = Regime::MergedStatus;
            }
        }
    }

    /// Whether the end of this process is a fact: its registration, or that of its ancestor, asked for NOTE_EXIT.
    pub(super) fn asks_for_exit(&self, slot: usize) -> bool {
        let inc = &self.table[slot];
        let of_tree = inc.tree.and_then(|tree| self.stats.trees.get(usize::from(tree.0)));
        let notes = match &inc.attached {
            Some(registration) => registration.notes,
            None => of_tree.map_or(0, |tree| tree.notes),
        };
        notes == 0 || notes & note::EXIT != 0
    }

    // --- small help -------------------------------------------------------------------------------------------------

    pub(crate) fn pin(&mut self, slot: usize) -> Handle {
        self.table[slot].pins += 1;
        self.table.handle(slot)
    }

    pub(super) fn await_dtrace(&mut self, slot: usize, at: KernelTime, fact: Fact) {
        let pinned = self.pin(slot);
        self.notes.push_back((pinned, at, fact));
    }

    /// Whether kqueue believes this process alive; the gauge follows, whatever order the words came in.
    pub(super) fn count_tracked(&mut self, slot: usize, is: bool) {
        let was = std::mem::replace(&mut self.table[slot].in_tracked, is);
        if was != is {
            let gauge = &mut self.tree_at(slot).tracked;
            *gauge = *gauge + u64::from(is) - u64::from(was);
        }
    }

    /// Whether this process is lost and alive; the gauge follows.
    pub(super) fn count_lost_alive(&mut self, slot: usize, is: bool) {
        let was = std::mem::replace(&mut self.table[slot].in_lost_alive, is);
        if was != is {
            let gauge = &mut self.tree_at(slot).lost_alive;
            *gauge = *gauge + u64::from(is) - u64::from(was);
        }
    }

    pub(super) fn violation(&mut self, slot: usize, order: Order) {
        self.tree_at(slot).order_violations[order.index()] += 1;
    }

    /// The tree of an event: by its cookie, else that of the process that forked or is named, else the first.
    pub(super) fn tree_of(&mut self, event: &Kevent) -> TreeId {
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

    #[inline]
    pub(crate) fn ensure_tree(&mut self, tree: TreeId) {
        while self.stats.trees.len() <= usize::from(tree.0) {
            let name = format!("tree{}", self.stats.trees.len());
            self.stats.trees.push(TreeStats { name, ..TreeStats::default() });
        }
    }

    /// The counts of this tree, which need not have been declared.
    #[inline]
    pub(crate) fn tree(&mut self, tree: TreeId) -> &mut TreeStats {
        self.ensure_tree(tree);
        &mut self.stats.trees[usize::from(tree.0)]
    }

    /// The counts of the tree that this incarnation belongs to.
    pub(crate) fn tree_at(&mut self, slot: usize) -> &mut TreeStats {
        let tree = self.table[slot].tree.unwrap_or(TreeId(0));
        self.tree(tree)
    }
}
