//! Stage 1: the two streams, read at any pace, become one stream of [`Event`]s in DTrace's order.
//!
//! - DTrace's records are sorted by their time stamps within the reorder horizon (`records.rs`).
//! - A kevent(2) call of the reader waits for its mark, DTrace's record of the getpriority(2) right after it, and takes the
//!   place of the mark. If that is missing, the call takes the latest place that the clocks allow (`clock.rs`).
//! - A time in which a witness may have missed something is handed on as a [`Gap`](event::Gap) (`gaps.rs`), also one in which a
//!   jump of a clock makes the order unknown (`jumps.rs`).
//!
//! The result depends on what the streams hold, not on when they were read. [`Timeline::call`] takes a call in, `inputs.rs` all
//! else; [`Timeline::next`] hands it on, as [`Event::Call`], to `check/lives/mod.rs`.

mod calls;
mod clock;
mod consumers;
pub(crate) mod event;
mod gaps;
mod inputs;
mod jumps;
mod passes;
mod reconcile;
mod records;
mod wall;

use std::collections::VecDeque;

use super::stats::{BlindReason, BoundedTable, Fill, Stats};
use crate::input::Batch;
use crate::model::{KernelTime, MonoTime, Pid};
use crate::wire::record::{Mark, Record};
use calls::{CallOf, WaitingCalls};
use clock::{ClockMap, STEP_NS};
use consumers::{CallReturn, ConsumerCalls};
use event::{Call, Event, Next, Progress, Span};
use gaps::Missing;
use passes::Passes;
use reconcile::Reconcile;
pub(crate) use records::{Arrival, Arrivals};
use records::{QueuedRecord, RecordQueue};
use wall::WallClock;

/// How many events of calls may wait for each record that may wait: at most `capacity` times this in all.
const EVENTS_PER_RECORD: usize = 4;
/// DTrace prints a heartbeat every 5 s. A longer silence means that its clock has jumped, or that records are missing.
const SILENCE_NS: u64 = 8_000_000_000;

#[derive(Default)]
pub(crate) struct Timeline {
    config: super::Config,
    records: RecordQueue,
    /// The reader's calls that wait for their marks.
    calls: WaitingCalls,
    consumers: ConsumerCalls,
    /// How many calls of consumers there were.
    consumer_calls: u64,
    clock: ClockMap,
    wall: WallClock,
    passes: Passes,
    reconcile: Reconcile,
    /// What [`Timeline::next`] hands on: events that have their places, and gaps.
    out: VecDeque<Next>,
    /// An empty call whose buffers serve the next one.
    spare: Call,
    /// The time of the last step.
    now: KernelTime,
    progress: Progress,
    /// The earliest record that waited when the first ones had come.
    first: Option<KernelTime>,
    /// The place of the last call that had its mark; see [`Timeline::last_marked`].
    place_of_last_marked: KernelTime,
    /// The last mark, in time for its call or too late: up to then it is known whether a clock has jumped. `None` before any.
    compared_up_to: Option<KernelTime>,
    /// When the records that come now were read from dtrace's stdout.
    stdout_read: MonoTime,
    /// The latest time stamp that those can have, as the clocks stood when their reading began: a later one lies in the future.
    /// `None` without marks.
    latest_plausible: Option<KernelTime>,
    /// When something of dtrace(1) was read last, stdout or stderr: shows the host's clock step back.
    last_read: MonoTime,
    /// When dtrace's last message about drops was read: if DTrace's clock jumps forward, the drops may have come after the
    /// jump.
    dropped: Option<MonoTime>,
    /// Up to here records from before a step back of DTrace's clock are mixed with records from after it. Keeps one step from
    /// being noticed twice.
    mixed: KernelTime,
    missing: Missing,
    /// No marks can come: dtrace is not there.
    away: bool,
    ended: bool,
    /// Records that could not wait for their call for want of room, since the beginning.
    hurried_records: u64,
    /// Calls that could not wait for their mark, since [`Timeline::publish`] added them to the calls that were lost before.
    hurried_calls: u64,
}

/// What comes next in DTrace's order.
enum Turn {
    /// Nothing yet: the next record, call or mark may come before what is there.
    Wait,
    /// The first record.
    Record,
    /// The first call, whose mark is the first record.
    Marked(Mark),
    /// The first call, whose mark is missing.
    Unmarked,
    /// The first call, for whose mark there is no room to wait.
    Hurried,
    /// The first record, which is the mark of a call that did not wait for it.
    LateMark(Mark),
}

impl Timeline {
    pub(crate) fn new(config: super::Config) -> Timeline {
        Timeline { config, ..Timeline::default() }
    }

    /// Takes a call of the reader, which waits for its mark from now on. `false` if its number is not a new one.
    pub(crate) fn call(&mut self, batch: &Batch<'_>) -> bool {
        self.calls.push(batch)
    }

    /// Whether [`Timeline::next`] may have something: cheap, for the record that only has to wait.
    pub(crate) fn is_ready(&self) -> bool {
        self.due_record().is_some()
            || self.records.is_empty() && self.calls.first().is_some()
            || self.is_crowded()
            || !self.out.is_empty()
    }

    /// The next event or gap, if one is due.
    pub(crate) fn next(&mut self) -> Option<Next> {
        if self.out.is_empty() {
            self.step();
        }
        self.out.pop_front()
    }

    /// How far it has come with the events that [`Timeline::next`] hands on.
    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// The call is over: its buffers serve the next one, so that nothing is allocated for a call.
    pub(crate) fn reuse(&mut self, call: Call) {
        self.spare = call;
    }

    fn empty_call(&mut self) -> Call {
        let mut call = std::mem::take(&mut self.spare);
        call.registered.clear();
        call.notes.clear();
        call
    }

    // --- whose turn it is -------------------------------------------------------------------------------------------

    /// Places the next record or call, if one is due.
    fn step(&mut self) {
        if self.calls.take_step_back() {
            // By the readings from before, this call would seem to have returned long ago.
            self.forget_clock(self.last_marked(), self.newest());
        }
        match self.turn() {
            Turn::Wait => {}
            Turn::Record => self.place_record(),
            Turn::Marked(mark) => self.place_marked(&mark),
            Turn::Unmarked => self.place_unmarked(false),
            Turn::Hurried => self.place_unmarked(true),
            Turn::LateMark(mark) => self.place_late_mark(&mark),
        }
    }

    fn turn(&self) -> Turn {
        let Some(&QueuedRecord { at, record, .. }) = self.due_record() else {
            return self.turn_of_call();
        };
        if let Record::Mark(mark) = record
            // Only the `M` records of older recordings have `returned`. If it is negative, the call was interrupted and made
            // again: this mark is of no call.
            && mark.returned.is_none_or(|returned| returned >= 0)
        {
            match self.calls.call_of(&mark, &self.clock) {
                CallOf::First => return Turn::Marked(mark),
                // The marks of the calls before it were dropped.
                CallOf::Later => return Turn::Unmarked,
                CallOf::Ahead if self.calls.first().is_some() => return Turn::Unmarked,
                CallOf::Ahead if self.may_wait(&mark) => return Turn::Wait,
                // It was waited for long enough.
                CallOf::Ahead => return Turn::Record,
                CallOf::Gone => return Turn::LateMark(mark),
            }
        }
        if self.is_call_passed(at) { Turn::Unmarked } else { Turn::Record }
    }

    /// Whether the first call cannot wait for its mark: nothing will come, or there is no room.
    fn turn_of_call(&self) -> Turn {
        let Some(head) = self.calls.first() else { return Turn::Wait };
        if self.records.is_empty() {
            let newest = self.records.newest();
            let passed = |at: KernelTime| {
                newest.is_some_and(|newest| newest >= at.plus(self.config.reorder_ns))
            };
            if self.ended || self.away || self.clock.latest(head.after).is_some_and(passed) {
                return Turn::Unmarked;
            }
        }
        if self.is_crowded() { Turn::Hurried } else { Turn::Wait }
    }

    /// The first record, if it need not wait: no earlier one can come, or there is no room to wait for it.
    fn due_record(&self) -> Option<&QueuedRecord> {
        self.records.first().filter(|first| self.is_due(first.at) || self.is_full())
    }

    /// Whether no record can come any more that is earlier than this time.
    fn is_due(&self, at: KernelTime) -> bool {
        let due_at = at.plus(self.config.reorder_ns);
        self.records.newest().is_some_and(|newest| due_at <= newest) || self.ended || self.away
    }

    /// Whether there is no room for the first record to wait any longer.
    fn is_full(&self) -> bool {
        self.records.len() > self.config.capacity
    }

    /// Whether there is no room for calls to wait for their marks.
    fn is_crowded(&self) -> bool {
        self.calls.events_waiting(EVENTS_PER_RECORD)
            > self.config.capacity.saturating_mul(EVENTS_PER_RECORD)
    }

    /// Whether the first call must have returned before this time.
    fn is_call_passed(&self, at: KernelTime) -> bool {
        let latest = self.calls.first().and_then(|head| self.clock.latest(head.after));
        latest.is_some_and(|latest| latest < at)
    }

    /// Whether there is time and room to wait for the call of this mark.
    fn may_wait(&self, mark: &Mark) -> bool {
        let most = self.config.reorder_ns.saturating_add(self.config.settle_ns);
        let waited = self.records.newest().map_or(0, |newest| newest.since(mark.at));
        !self.ended && waited <= most && !self.is_full()
    }

    // --- its place --------------------------------------------------------------------------------------------------

    /// The first call takes the place of its mark, which shows on DTrace's clock when it began and returned. That also ends
    /// some of the gaps.
    fn place_marked(&mut self, mark: &Mark) {
        let mut call = self.empty_call();
        // `turn` has found a first call, so there is one.
        let Some(head) = self.calls.move_marked(&mut call) else { return };
        self.records.hand_on();
        self.compare_clocks(head.before, head.after, mark.at);
        // The reader makes one call after the other. If this one seems to have begun before the last one returned, the clocks
        // of two CPUs are apart, or DTrace's has stepped back.
        if mark.entered.0 != 0 && mark.entered.plus(STEP_NS) < self.place_of_last_marked {
            self.report_clock_gap(mark.entered, self.newest().max(self.place_of_last_marked));
        }
        self.place_of_last_marked = mark.at;
        self.close_gaps(&head, mark.at);
        self.come_to(mark.at);
        (call.at, call.entered) = (mark.at, Some(mark.entered.min(mark.at)));
        self.emit(Event::Call(call));
    }

    /// The first call takes a place without its mark: the latest that the clocks allow, and before the first record.
    fn place_unmarked(&mut self, hurried: bool) {
        let mut call = self.empty_call();
        // `turn` has found a first call, so there is one.
        let Some(head) = self.calls.move_unmarked(&mut call) else { return };
        let bound = match self.records.first() {
            Some(first) => first.at,
            None if self.ended || self.away => KernelTime(u64::MAX),
            None => self.records.newest().unwrap_or(self.now),
        };
        let at = self.clock.latest(head.after).unwrap_or(self.now).min(bound).max(self.now);
        if self.compared_up_to.is_some() && self.clock.latest(head.after).is_none() {
            // The clocks do not bound its time, which may be later than this place.
            self.report_clock_gap(at, self.newest().max(at));
        }
        if hurried {
            self.hurried_calls += 1;
            let since = self.missing.hurried.map_or(at, |(since, _)| since);
            self.missing.hurried = Some((since, head.after));
        }
        if self.missing.hurried.is_some() {
            // Its place is earlier than those of some records that are older than it.
            self.dtrace_gap(BlindReason::Overflow, Span::UntilDrained { since: at, lost: None });
        }
        self.come_to(at);
        (call.at, call.entered) = (at, None);
        self.emit(Event::Call(call));
    }

    /// The mark of a call that did not wait for it: it moves the clocks, which may let the first call wait longer.
    fn place_late_mark(&mut self, mark: &Mark) {
        self.compare_clocks_by_late(mark);
        match self.is_call_passed(mark.at) {
            true => self.place_unmarked(false),
            false => self.place_record(),
        }
    }

    fn place_record(&mut self) {
        self.hurried_records += u64::from(self.is_full());
        let Some(QueuedRecord { at, record, newest_stamp }) = self.records.hand_on() else {
            return;
        };
        self.come_to(at);
        if let Some(consumer) = record.consumer()
            && let Some((tracker, consumer)) = self.consumers.replace_process(consumer)
        {
            self.emit(Event::ConsumerEnded { tracker, consumer });
        }
        match record {
            Record::Create { at, child, forker, .. } => {
                self.reconcile.create();
                self.emit(Event::Create { at, newest_stamp, child, forker });
            }
            Record::Exit { at, pid, status, .. } => {
                self.emit(Event::Exit { at, pid, status });
                if let Some(tracker) = self.consumers.ended(pid) {
                    self.emit(Event::ConsumerEnded { tracker, consumer: pid });
                }
            }
            _ => {
                self.emit(Event::Passed);
                self.place_of_consumer(&record);
            }
        }
        if let Some((from, to)) = self.reconcile.advance(at, &self.clock) {
            self.dtrace_gap(BlindReason::Reconcile, Span::Between(from, to));
        }
    }

    /// A record about a consumer. Its registration or call is an event when all records of it are there.
    fn place_of_consumer(&mut self, record: &Record) {
        match *record {
            Record::Register(register) => self.consumers.register(&register),
            Record::RegDone { at, tid, errno, consumer } => {
                if let Some(done) = self.consumers.registered(at, consumer, tid, errno) {
                    self.emit(Event::Registration(done));
                }
            }
            Record::Copyout(copyout) => self.consumers.copied(&copyout),
            Record::Call { at, tid, fd, nevents, returned, consumer, .. } => {
                let call_return = CallReturn { at, tid, fd, nevents, event_count: returned };
                self.place_consumers_call(consumer, &call_return);
            }
            _ => {}
        }
    }

    /// A call of a consumer returns. If events of it are missing, notes may be missing since the call before it returned.
    fn place_consumers_call(&mut self, consumer: Pid, call_return: &CallReturn) {
        self.consumer_calls += 1;
        let mut call = self.empty_call();
        call.seq = self.consumer_calls;
        let Some(lacks_events) = self.consumers.complete_call(consumer, call_return, &mut call)
        else {
            return;
        };
        if lacks_events {
            let from = call.entered.unwrap_or(call.at).minus(self.config.settle_ns);
            let from = from.max(self.first.unwrap_or_default());
            self.dtrace_gap(BlindReason::BadLine, Span::Between(from, call.at));
        }
        self.emit(Event::Call(call));
    }

    fn emit(&mut self, event: Event) {
        self.out.push_back(Next::Event(event));
    }

    /// The next event is of the time `at`.
    fn come_to(&mut self, at: KernelTime) {
        if self.now > KernelTime(0) && at.since(self.now) > SILENCE_NS {
            self.report_clock_gap(self.now, self.newest().max(at));
        }
        self.now = self.now.max(at);
        let complete = match self.away || self.ended || !self.stdout_read.is_known() {
            true => self.now,
            false => self.passes.advance_to(self.now, &self.clock),
        };
        let compared = match self.away && self.records.is_empty() {
            true => {
                self.give_up_comparing();
                self.now
            }
            false => self.compared_up_to.unwrap_or_default(),
        };
        let ticked = self.wall.compared_up_to().unwrap_or(self.now);
        self.progress = Progress { at: self.now, complete, compared, ticked };
    }

    /// dtrace is gone, and no mark will tell whether a clock has jumped: it counts as gone since the last mark.
    fn give_up_comparing(&mut self) {
        let newest = self.newest();
        if let Some(last) = self.compared_up_to.filter(|last| *last < newest) {
            self.dtrace_gap(BlindReason::Outage, Span::Since(last));
            self.compared_up_to = Some(newest);
        }
    }

    // --- how far it has come ----------------------------------------------------------------------------------------

    /// The times of DTrace's first and last record.
    pub(crate) fn span(&self) -> (KernelTime, KernelTime) {
        let first = self.first.unwrap_or_default();
        (first, self.newest().max(first))
    }

    /// The place of the last call that had its mark, or the first record.
    fn last_marked(&self) -> KernelTime {
        self.place_of_last_marked.max(self.first.unwrap_or_default())
    }

    fn newest(&self) -> KernelTime {
        self.records.newest().unwrap_or_default()
    }

    /// Brings the gauges up to date.
    pub(crate) fn publish(&mut self, stats: &mut Stats) {
        let fill = |entries, capacity| Fill { entries: entries as u64, capacity: capacity as u64 };
        let Timeline { config: super::Config { capacity, .. }, .. } = *self;
        let events = fill(
            self.calls.events_waiting(EVENTS_PER_RECORD),
            capacity.saturating_mul(EVENTS_PER_RECORD),
        );
        stats.tables[BoundedTable::Records.index()] = fill(self.records.len(), capacity);
        stats.tables[BoundedTable::Events.index()] = events;
        stats.evictions[BoundedTable::Records.index()] = self.hurried_records;
        stats.evictions[BoundedTable::Events.index()] += std::mem::take(&mut self.hurried_calls);
        stats.clock = self.now.0;
        stats.began = self.first.unwrap_or_default().0;
        stats.reconcile_delta = self.reconcile.delta;
    }
}

#[cfg(test)]
mod tests;
