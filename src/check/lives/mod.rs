//! Stage 3: the lives of processes. Joins the evidence of both witnesses about each life of each pid, in DTrace's order, and
//! knows when a fact has waited long enough to be judged.
//!
//! What the kernel guarantees and this relies on (12.3 and later unless said otherwise):
//! - knote_fork queues NOTE_CHILD before proc:::create fires (13.2 `kern_fork.c:734,741`), so a drain that began after a
//!   create has delivered every NOTE_CHILD of it, duplicates included;
//! - NOTE_EXIT is queued soon after proc:::exit (13.2 `kern_exit.c:612,635`), before it on 12.3 and older: hence settle time;
//! - the queue is FIFO by first activation: all notes of one life of a pid come before NOTE_CHILD of the next.

mod consumer;
mod facts;
pub(crate) mod life;
mod notes;
mod settle;
pub(crate) mod table;
pub(crate) mod trackerr;
mod undelivered;
mod waiting;

use std::collections::VecDeque;

use super::Config;
use super::clues::Named;
use super::judge::{self, Policy, UNORDERED_NS};
use super::sight::Sight;
use super::stats::Order;
use super::timeline::event::{Call, Event};
use super::verdicts::Verdicts;
use crate::model::{Fact, KernelTime, Pid, TreeId, Verdict, WaitStatus, Witness};
use crate::wire::decode::Reason;
use consumer::Queue;
use life::State;
use table::Table;
use waiting::{Deadlines, Evidence};

/// A host whose threads were once held up for so long may hold one up for so many times that.
const HELD_UP_TIMES: u64 = 4;
/// Nothing is waited for longer than so many settle times.
const MOST_SETTLE_TIMES: u64 = 20;

/// What the lives of all trackers share: what the witnesses may have missed, and where verdicts go.
pub(crate) struct Context {
    pub(crate) sight: Sight,
    pub(crate) verdicts: Verdicts,
}

/// The lives as one tracker's kqueue reports them: that of the exporter itself, or that of a consumer.
pub(crate) struct Lives {
    config: Config,
    /// Its number: 0 is the exporter's own kqueue.
    number: usize,
    /// The tree, if it is a consumer. Those of the exporter's own kqueue are told apart by their events.
    tree: Option<TreeId>,
    table: Table,
    deadlines: Deadlines,
    /// The kqueues of it that watch processes.
    queues: Vec<Queue>,
    /// Since when all of them are drained, and when that was known: see [`Lives::drain_one`].
    drains: VecDeque<(KernelTime, KernelTime)>,
    /// A knote of it may be used up, or disabled, by the first event (EV_ONESHOT, EV_DISPATCH).
    used_up: bool,
    /// How many calls have been placed.
    calls: u64,
    /// The last of them whose mark is missing.
    unmarked: u64,
    /// How far the timeline has come.
    now: KernelTime,
    /// When the gauges of what is undelivered were brought up to date.
    published: KernelTime,
    /// When the first process was registered.
    watching: Option<KernelTime>,
    /// How long a note, or its probe, may be behind: the settle time, and more on a host that holds up its threads.
    patience_ns: u64,
}

impl Lives {
    pub(crate) fn new(config: Config, number: usize, tree: Option<TreeId>) -> Lives {
        let own = Queue { descriptor: Call::OWN.queue, address: None, drained: KernelTime(0) };
        Lives {
            config,
            number,
            tree,
            queues: if tree.is_none() { vec![own] } else { vec![] },
            drains: VecDeque::new(),
            used_up: false,
            table: Table::new(),
            deadlines: Deadlines::default(),
            calls: 0,
            unmarked: 0,
            now: KernelTime(0),
            published: KernelTime(0),
            watching: None,
            patience_ns: config.settle_ns,
        }
    }

    /// Takes the next event of the timeline. Calls and registrations of other trackers are none of its own.
    pub(crate) fn take(&mut self, cx: &mut Context, event: &Event<'_>) {
        match event {
            Event::Now { at, complete } => self.come_to(cx, *at, *complete),
            Event::Create { at, printed, child, forker } => {
                self.create(cx, *at, *printed, *child, *forker);
            }
            Event::Exit { at, pid, status } => self.exit(cx, *at, *pid, *status),
            Event::Call(call) if call.tracker == self.number => self.call(cx, call),
            Event::Registration(change) if change.tracker == self.number => {
                if let Some(tree) = self.tree {
                    self.registration(cx, tree, change);
                }
            }
            Event::Ended { tracker, consumer } if *tracker == self.number => {
                self.consumer_ended(cx, *consumer);
            }
            Event::Call(_) | Event::Registration(_) | Event::Ended { .. } | Event::Gap(_) => {}
        }
    }

    /// The tree, if this is a consumer.
    pub(crate) fn consumer(&self) -> Option<TreeId> {
        self.tree
    }

    /// How many lives there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    // --- DTrace's evidence ------------------------------------------------------------------------------------------

    fn create(
        &mut self,
        cx: &mut Context,
        at: KernelTime,
        printed: KernelTime,
        child: Pid,
        forker: Pid,
    ) {
        if self.is_known_create(at, child, forker) {
            cx.verdicts.stats.bad_lines[Reason::Duplicate.index()] += 1;
            return;
        }
        let early = self.announced_early(child, at);
        let slot = early.unwrap_or_else(|| self.begin(cx, child, at));
        // Its exit may be stamped before the fork.
        let living = self.table.newest(forker).filter(|f| self.table[*f].may_run_at(at));
        let forker_life = living.map(|f| self.table.pin(f));
        let calls = self.calls;
        let forked_before =
            living.map_or(0, |f| std::mem::replace(&mut self.table[f].calls.forked, calls));
        let life = &mut self.table[slot];
        (life.created, life.forker, life.forker_life) = (Some(at), Some(forker), forker_life);
        (life.calls.created, life.calls.forked_before) = (calls, forked_before);
        self.wait(slot, Evidence::ChildNote, Fact::Birth, printed);
        match (self.table[slot].child, self.table[slot].birth) {
            (None, _) => {}
            // The probe fired later than the settle time after knote_fork: the verdict stands.
            (Some(_), State::Decided(_)) => self.violation(cx, slot, Order::Late),
            (Some(_), _) => self.join_birth(cx, slot),
        }
    }

    /// Whether this life of the pid has begun already: the probe was printed twice (two enablings, or two dtraces that write to
    /// one file), each time with a time stamp of its own. A pid is not used again so soon.
    fn is_known_create(&self, at: KernelTime, child: Pid, forker: Pid) -> bool {
        let newest = self.table.newest(child).map(|slot| &self.table[slot]);
        newest.is_some_and(|life| {
            let soon = life.created.is_some_and(|created| at.since(created) <= UNORDERED_NS);
            soon && life.forker == Some(forker)
        })
    }

    /// Whether DTrace has printed the exit of this life of the pid already.
    fn is_known_exit(&self, at: KernelTime, pid: Pid, status: WaitStatus) -> bool {
        let newest = self.table.newest(pid).map(|slot| &self.table[slot]);
        newest.is_some_and(|life| {
            let soon = life.exited.is_some_and(|exited| at.since(exited) <= UNORDERED_NS);
            soon && life.status == Some(status)
        })
    }

    /// The life that this create belongs to, if other evidence of it came first: NOTE_CHILD while the forker was held up
    /// between knote_fork and the probe; on old kernels even its exit.
    fn announced_early(&self, pid: Pid, at: KernelTime) -> Option<usize> {
        let slot = self.table.newest(pid)?;
        let life = &self.table[slot];
        if life.created.is_some() {
            return None;
        }
        if life.registered.is_some() {
            // Registered before dtrace could tell when that was.
            return (life.exited.is_none() && at < life.proven).then_some(slot);
        }
        let ended = [life.exited, life.exit.map(|e| e.at)].into_iter().flatten().min();
        match ended {
            Some(end) => {
                (at.since(end) <= UNORDERED_NS && !life.birth.is_decided()).then_some(slot)
            }
            None => life.child.map(|_| slot),
        }
    }

    /// A new life of `pid`, in a table with room for it.
    fn begin(&mut self, cx: &mut Context, pid: Pid, at: KernelTime) -> usize {
        // A pid is used again: its last owner is dead and reaped, even if DTrace's record of that is missing.
        if let Some(old) = self.table.newest(pid)
            && self.table[old].exited.is_none()
            && self.table[old].exit.is_none()
        {
            // Its NOTE_EXIT was queued before the pid was free: wait for the next drain.
            self.wait(old, Evidence::ExitNote, Fact::Death, at);
        }
        self.make_room(cx);
        self.table.begin(pid, at)
    }

    fn exit(&mut self, cx: &mut Context, at: KernelTime, pid: Pid, status: WaitStatus) {
        if self.is_known_exit(at, pid, status) {
            cx.verdicts.stats.bad_lines[Reason::Duplicate.index()] += 1;
            return;
        }
        let living = self.table.newest(pid).filter(|slot| self.table[*slot].exited.is_none());
        let slot = living.unwrap_or_else(|| self.begin(cx, pid, at));
        self.change(cx, slot, |life| (life.exited, life.status) = (Some(at), Some(status)));
        self.wait(slot, Evidence::ExitNote, Fact::Death, at);
        if self.table[slot].exit.is_some() && !self.table[slot].death.is_decided() {
            self.join_death(cx, slot);
        }
    }

    // --- both witnesses ---------------------------------------------------------------------------------------------

    /// A create and NOTE_CHILD have met.
    fn join_birth(&mut self, cx: &mut Context, slot: usize) {
        let verdict = judge::birth(&self.table[slot], None, &self.policy(cx));
        let life = &mut self.table[slot];
        let (Some(created), Some(note)) = (life.created, life.child) else { return };
        life.proven = life.proven.max(created);
        self.held_up(note.at, created);
        self.tree_of(cx, slot).child_latency.add(note.at.since(created));
        if verdict == Verdict::Agreed {
            self.prove_forker(cx, slot, created, note.at);
        }
        self.decide(cx, slot, Fact::Birth, verdict);
    }

    /// NOTE_CHILD named the forker, when it came at `at`: that was alive at `created`, and had a knote.
    fn prove_forker(&mut self, cx: &mut Context, slot: usize, created: KernelTime, at: KernelTime) {
        let life = &self.table[slot];
        let named = life.forker;
        let forker = life.forker_life.and_then(|handle| self.table.find(handle));
        if let Some(forker) = forker {
            let forker = &mut self.table[forker];
            forker.proven = forker.proven.max(created);
        }
        let Some(named) = named else { return };
        if forker.is_none_or(|forker| !self.table[forker].is_tracked()) {
            let recent = &mut cx.verdicts.observers(self.number).recent;
            recent.named(Named { forker: named, forked: created, at });
        }
        if self.is_from_before(named) {
            self.prove_registered(cx, named, created);
        }
    }

    /// An exit and NOTE_EXIT have met.
    fn join_death(&mut self, cx: &mut Context, slot: usize) {
        let verdict = judge::death(&self.table[slot], &self.policy(cx));
        if let (Some(exited), Some(note)) = (self.table[slot].exited, self.table[slot].exit) {
            // The queue was drained then, and the note was not in it.
            self.held_up(exited, note.not_before);
            self.tree_of(cx, slot).exit_latency.add(note.at.since(exited));
        }
        self.decide(cx, slot, Fact::Death, verdict);
    }

    /// One was queued, or fired, so long after the other.
    fn held_up(&mut self, earlier: KernelTime, later: KernelTime) {
        let most = self.config.settle_ns.saturating_mul(MOST_SETTLE_TIMES);
        let patience_ns = later.since(earlier).saturating_mul(HELD_UP_TIMES).min(most);
        self.patience_ns = self.patience_ns.max(patience_ns);
    }

    fn policy<'a>(&self, cx: &'a Context) -> Policy<'a> {
        Policy {
            sight: &cx.sight,
            notes_in: self.notes_in(),
            settle_ns: self.config.settle_ns,
            patience_ns: self.patience_ns,
            watching: self.watching.unwrap_or_default(),
            regime: cx.verdicts.stats.regime,
            now: self.now,
        }
    }

    /// In whose stream the notes are: those of a consumer are in DTrace's.
    fn notes_in(&self) -> Witness {
        if self.tree.is_some() { Witness::Dtrace } else { Witness::Kqueue }
    }
}
