//! Stage 3: joins the evidence of both witnesses about each life of each pid, in DTrace's order, and has a fact judged
//! when there is no more evidence to wait for.
//!
//! A `Life` is one incarnation of a pid. `Lives` holds those that one tracker's kqueues report: tracker 0 is the
//! mirror, the exporter's own kqueue; each further one is a consumer.
//!
//! [`Lives::take`] takes in the timeline's events: `records.rs` has DTrace's side, this file kqueue's, from the call to
//! the verdict, for which [`Lives::judge`] asks `check/judge.rs`. `notes.rs` knows which note is about which life, `asked.rs`
//! what was asked for, `drain.rs` when a note can no longer come; `settle.rs` decides what has waited for it.

mod asked;
mod consumer;
mod drain;
mod facts;
pub(crate) mod life;
mod notes;
mod records;
mod settle;
pub(crate) mod table;
pub(crate) mod trackerr;
mod undelivered;
mod waiting;

use std::collections::VecDeque;

use super::Config;
use super::causes::{Causes, KnoteFork};
use super::finding::{Clues, Finding};
use super::judge::{self, Circumstances, UNORDERED_NS};
use super::sight::Sight;
use super::stats::Order;
use super::timeline::event::{Call, Event};
use super::verdicts::Verdicts;
use crate::model::{Fact, KernelTime, Kevent, Pid, Regime, TreeId, Verdict, Witness, note};
use consumer::most_strangers;
use drain::{Drain, WatchedQueue};
use life::{FactState, Life, Note};
use notes::ChildNoteOf;
use table::LifeTable;
use waiting::{Evidence, WaitingFacts};

/// What the lives of all trackers share: what the witnesses may have missed, and where verdicts go.
pub(crate) struct Context {
    pub(crate) sight: Sight,
    pub(crate) causes: Causes,
    pub(crate) verdicts: Verdicts,
}

/// The lives as one tracker's kqueue reports them: that of the exporter itself, or that of a consumer.
pub(crate) struct Lives {
    config: Config,
    /// The tracker's number: 0 is the mirror, the exporter's own kqueue.
    tracker: usize,
    /// The tree, if it is a consumer. The trees of the mirror are known by their events.
    tree: Option<TreeId>,
    /// The consumer's process, as far as DTrace's records have come. That there is another one may be known before.
    process: Option<Pid>,
    table: LifeTable,
    waiting: WaitingFacts,
    /// The kqueues of it that watch processes.
    queues: Vec<WatchedQueue>,
    /// Drains of a consumer's queues that do not count yet, each with the return of its call: dtrace(1) has not reported what it
    /// dropped up to then.
    drains: VecDeque<(KernelTime, Drain)>,
    /// The latest NOTE_EXIT of processes that nothing has proved to be watched: [`Lives::note_overtaking_exit`] joins one when
    /// something does.
    unplaced: VecDeque<(Pid, Note)>,
    /// It has asked for EV_ONESHOT, as far as its registrations were seen; `None` as long as none was. If it has, EV_ONESHOT of
    /// a NOTE_CHILD shows nothing of the kernel.
    oneshot: Option<bool>,
    /// Beyond so many lives those of no tree are forgotten.
    most_strangers: usize,
    /// Lives of no tree that DTrace saw up to then have been forgotten.
    forgotten: Option<KernelTime>,
    /// How many calls have been placed, and the number of the last of them without its mark: for NOTE_TRACKERR.
    placed_calls: u64,
    last_unmarked: u64,
    /// How far the timeline has come.
    now: KernelTime,
    /// When the gauges of what is undelivered were brought up to date.
    published: KernelTime,
    /// When the first process was registered.
    watching: Option<KernelTime>,
    /// When what was open was given up, and the lives that are over were forgotten: notes of them may still come.
    anew: Option<KernelTime>,
    /// How long a note, or its probe, may be behind: the settle time, and more on a host that holds up its threads.
    patience_ns: u64,
}

/// What a fact is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Basis {
    /// The evidence, which is complete.
    Complete,
    /// Nothing: there is no room or no time to wait for what may come.
    GivenUp,
}

impl Lives {
    pub(crate) fn new(config: Config, tracker: usize, tree: Option<TreeId>) -> Lives {
        let own = WatchedQueue::new(Call::OWN_QUEUE, None);
        Lives {
            config,
            tracker,
            tree,
            process: None,
            queues: if tree.is_none() { vec![own] } else { vec![] },
            drains: VecDeque::new(),
            unplaced: VecDeque::new(),
            oneshot: tree.is_none().then_some(false),
            most_strangers: most_strangers(config.capacity),
            forgotten: None,
            table: LifeTable::new(),
            waiting: WaitingFacts::default(),
            placed_calls: 0,
            last_unmarked: 0,
            now: KernelTime(0),
            published: KernelTime(0),
            watching: None,
            anew: None,
            patience_ns: config.settle_ns,
        }
    }

    /// Takes the next event of the timeline. Calls and registrations of other trackers are none of its own.
    pub(crate) fn take(&mut self, cx: &mut Context, event: &Event) {
        match event {
            Event::Create { at, newest_stamp, child, forker } => {
                self.create(cx, *at, *newest_stamp, *child, *forker);
            }
            Event::Exit { at, pid, status } => self.exit(cx, *at, *pid, *status),
            Event::Call(call) if call.tracker == self.tracker => self.call(cx, call),
            Event::Registration(change) if change.tracker == self.tracker => {
                if let Some(tree) = self.tree {
                    self.registration(cx, tree, change);
                }
            }
            Event::ConsumerEnded { tracker, consumer } if *tracker == self.tracker => {
                self.consumer_ended(cx, *consumer);
            }
            Event::Call(_) | Event::Registration(_) | Event::ConsumerEnded { .. } => {}
            Event::Passed => {}
        }
    }

    /// Whether these are a consumer's. Otherwise they are the mirror's.
    fn is_consumer(&self) -> bool {
        self.tree.is_some()
    }

    /// The tree, if this is a consumer.
    pub(crate) fn consumer(&self) -> Option<TreeId> {
        self.tree
    }

    /// How many lives there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    // --- kqueue's evidence ------------------------------------------------------------------------------------------

    /// A kevent(2) call has returned: first what it registered, then its notes, then what it has drained.
    fn call(&mut self, cx: &mut Context, call: &Call) {
        self.placed_calls += 1;
        if call.entered.is_none() {
            self.last_unmarked = self.placed_calls;
        }
        cx.verdicts.stats.batch_sizes.add(call.notes.len() as u64);
        for attach in &call.registered {
            let entered = call.entered.unwrap_or(self.drained_before(call));
            self.mirror_registered(cx, attach, entered, call.at);
        }
        let mut delivered = None;
        for event in &call.notes {
            let about = self.kevent(cx, event, call);
            if let Some(slot) = about.filter(|_| self.is_consumer()) {
                delivered = self.delivered_by(slot, event).max(delivered);
            }
        }
        let Some(entered) = call.entered else { return };
        cx.verdicts.observers(self.tracker).recent.call(entered, call.at);
        if self.is_consumer() {
            if let Some(delivered) = call.drained.then_some(entered).max(delivered) {
                self.drain_consumer(call, delivered);
            }
        } else if call.drained {
            self.drain_mirror(cx, call, entered);
        }
    }

    /// Joins the notes of one kevent to the life that they are about. Returns that, if NOTE_CHILD or NOTE_EXIT is among them.
    fn kevent(&mut self, cx: &mut Context, event: &Kevent, call: &Call) -> Option<usize> {
        cx.verdicts.stats.count_kevent(event);
        if event.is_receipt() {
            return None;
        }
        let tree = self.tree_of_event(cx, event);
        let Some(pid) = Pid::new(event.ident) else {
            self.tree_violation(cx, tree, Order::BadIdent);
            return None;
        };
        self.learn_from_event(cx, tree, event, call);
        let note = Note {
            flags: event.flags,
            fflags: event.fflags,
            data: event.data,
            call: call.seq,
            queue: call.queue,
            at: call.at,
            not_before: self.drained_before(call),
        };
        let mut about = None;
        if note.has(note::CHILD) {
            about = self.note_child(cx, pid, tree, note);
        }
        if note.has(note::EXIT) {
            about = about.or_else(|| self.life_that_exits(cx, pid, tree, &note));
        }
        if !note.has(note::CHILD | note::EXIT) {
            self.sign_of_life(cx, pid, tree, note.not_before);
        }
        if note.has(note::TRACKERR) {
            self.note_trackerr(cx, pid, tree, &note, about);
        }
        if let Some(slot) = about.filter(|_| note.has(note::EXIT)) {
            self.note_exit(cx, slot, tree, note);
        }
        if self.is_consumer() && !note.has(note::EXIT) {
            self.use_up(cx, pid, event, call.at);
        }
        about
    }

    /// Joins NOTE_CHILD to its life and returns that; `None` for a duplicate without NOTE_EXIT.
    fn note_child(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        tree: TreeId,
        note: Note,
    ) -> Option<usize> {
        let slot = match self.child_note_of(cx, pid, &note) {
            ChildNoteOf::Announced(slot) => slot,
            ChildNoteOf::Again(slot) => {
                self.counts_of(cx, slot).duplicate_child_notes += 1;
                return note.is_collision().then_some(slot);
            }
            ChildNoteOf::Unknown => self.begin(cx, pid, note.at),
        };
        self.change(cx, slot, |life| {
            life.child_note = Some(note);
            life.tree.get_or_insert(tree);
        });
        self.noted(cx, slot, Fact::Birth, note.at);
        self.note_overtaking_exit(cx, slot, tree, note.at);
        Some(slot)
    }

    /// Joins NOTE_EXIT to its life.
    fn note_exit(&mut self, cx: &mut Context, slot: usize, tree: TreeId, note: Note) {
        if self.table[slot].exit_note.is_some() {
            return self.repeated_exit(cx, tree);
        }
        let life = &self.table[slot];
        let child =
            life.child_note.filter(|child| child.queue == note.queue && life.knote_set.0 == 0);
        if child.is_some_and(|child| child.flags & note::EV_ONESHOT != 0 && child.call < note.call)
        {
            // The knote of NOTE_CHILD was freed, and there was another one, which no registration made.
            cx.verdicts.stats.regime = Regime::Split;
        }
        self.change(cx, slot, |life| {
            life.exit_note = Some(note);
            life.tree.get_or_insert(tree);
        });
        self.noted(cx, slot, Fact::Death, note.at);
    }

    /// The note of a fact has come at `at`. If DTrace's record has come before, it confirms the note, and the fact is judged at
    /// once; if not, the record is waited for.
    fn noted(&mut self, cx: &mut Context, slot: usize, fact: Fact, at: KernelTime) {
        let life = &self.table[slot];
        if life.state(fact).is_decided() {
            cx.verdicts.late_note(self.tracker, life.pid, life.created, fact);
            return self.violation(cx, slot, Order::Late);
        }
        self.count_reported(cx, slot, fact);
        match self.table[slot].has_record(fact) {
            true => self.judge(cx, slot, fact, Basis::Complete),
            false => self.wait(slot, Evidence::Record, fact, at),
        }
    }

    // --- the verdict ------------------------------------------------------------------------------------------------

    /// Gives a fact its verdict: the only place where one falls, once for each fact. It is called when both witnesses have
    /// reported the fact, when the other one's evidence can no longer be on its way (`drain.rs`, `settle.rs`), or when that is
    /// not waited for any more.
    fn judge(&mut self, cx: &mut Context, slot: usize, fact: Fact, basis: Basis) {
        let (life, given) = (&self.table[slot], self.circumstances(cx));
        let verdict = match (basis, fact) {
            (Basis::GivenUp, _) => Verdict::Undecided,
            (Basis::Complete, Fact::Birth) => {
                let forker = self.forker(slot).map(|forker| &self.table[forker]);
                judge::birth(life, forker.filter(|forker| forker.tree.is_some()), &given)
            }
            (Basis::Complete, Fact::Death) => judge::death(life, &given),
        };
        match fact {
            Fact::Birth => self.learn_from_birth(cx, slot, verdict),
            Fact::Death => self.learn_from_death(cx, slot, verdict),
        }
        self.count_reported(cx, slot, fact);
        if fact == Fact::Death {
            self.count_collision(cx, slot);
        }
        self.change(cx, slot, |life| *life.state_mut(fact) = FactState::Decided(verdict));
        let life = &self.table[slot];
        let finding = Finding {
            tree: life.tree.unwrap_or(TreeId(0)),
            pid: life.pid,
            consumer: self.process,
            fact,
            verdict,
            dtrace: life.dtrace_evidence(),
            kqueue: life.kqueue_evidence(),
            clues: if verdict.needs_clues() { clues_of(life.knote_fork) } else { Clues::default() },
            decided: self.now,
        };
        let unknown_forker = self.is_forker_unknown(cx, slot);
        cx.verdicts.decided(self.tracker, finding, unknown_forker);
    }

    /// The life that forked this one. One whose own create is missing was not known then, but may be now.
    fn forker(&self, slot: usize) -> Option<usize> {
        let (known, life) = (self.table.forker_at_create(slot), &self.table[slot]);
        let (Some(forker), Some(created)) = (life.forker, life.created) else { return known };
        let forked = |forker: &Life| {
            let here = match forker.created {
                Some(at) => at > created && at.since(created) <= UNORDERED_NS,
                None => forker.is_tracked(),
            };
            here && forker.may_run_at(created)
        };
        known.or_else(|| self.table.latest(forker, forked))
    }

    fn circumstances<'a>(&self, cx: &'a Context) -> Circumstances<'a> {
        Circumstances {
            sight: &cx.sight,
            notes_in: self.notes_in(),
            strangers_forgotten_up_to: self.forgotten,
            settle_ns: self.config.settle_ns,
            patience_ns: self.patience_ns,
            first_registration: self.watching.unwrap_or_default(),
            forgot_all_at: self.anew,
            regime: cx.verdicts.stats.regime,
            now: self.now,
        }
    }

    /// In whose stream the notes are: those of a consumer are in DTrace's.
    fn notes_in(&self) -> Witness {
        if self.is_consumer() { Witness::Dtrace } else { Witness::Kqueue }
    }
}

/// What the registration shows of the way through the kernel.
fn clues_of(knote_fork: KnoteFork) -> Clues {
    let errno = match knote_fork {
        KnoteFork::Failed(errno) => Some(errno),
        _ => None,
    };
    Clues { errno, influx: knote_fork == KnoteFork::PassedOver, ..Clues::default() }
}
