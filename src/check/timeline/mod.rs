//! Stage 1: the two streams, read at any pace, become one stream of [`Event`]s in DTrace's order.
//!
//! DTrace's records are sorted by their time stamps within the reorder horizon. A kevent(2) call of the reader takes the place
//! of its mark; without a mark it takes the latest place that the clocks allow. The result depends on what the streams hold,
//! not on when they were read.

mod calls;
mod clock;
mod consumers;
pub(crate) mod event;
mod order;
mod passes;
mod reconcile;
mod records;

use std::collections::VecDeque;

use super::stats::{BlindReason, Fill, Stats, Table};
use crate::input::Batch;
use crate::model::{KernelTime, MonoTime, Pid, Witness};
use crate::wire::decode::Reason;
use crate::wire::record::Record;
use calls::Calls;
use clock::ClockMap;
use consumers::Consumers;
use event::{Call, Event, Gap, Span};
use passes::Passes;
use reconcile::Reconcile;
use records::{Arrival, Records};

/// So many events may wait for each record that may.
const EVENTS: usize = 4;

pub(crate) struct Timeline {
    config: super::Config,
    records: Records,
    calls: Calls,
    consumers: Consumers,
    /// How many calls of consumers there were.
    consumer_calls: u64,
    clock: ClockMap,
    passes: Passes,
    reconcile: Reconcile,
    /// What has its place and was not handed on yet. A call in it is the one that `calls` has taken out last.
    out: VecDeque<Event<'static>>,
    /// The time of the last step.
    now: KernelTime,
    /// The time of the first record.
    first: Option<KernelTime>,
    /// The place of the last call that had its mark.
    marked: KernelTime,
    /// When what comes now was read, and the latest time that it can be of.
    read: MonoTime,
    horizon: KernelTime,
    missing: Missing,
    /// No marks can come: dtrace is not there.
    away: bool,
    ended: bool,
    /// Records that could not wait for their call, calls that could not wait for their mark, for want of room.
    hurried_records: u64,
    hurried_calls: u64,
}

/// What is missing, until it is known up to when.
#[derive(Debug, Default)]
struct Missing {
    /// dtrace is away since the last record.
    outage: Option<KernelTime>,
    /// A line could not be decoded, since the last record.
    line: Option<KernelTime>,
    /// When dtrace's message about drops was read; a mark tells what time that was on its clock.
    drops: Option<MonoTime>,
    /// The number behind the calls that were lost.
    calls: Option<u64>,
    /// The last call that did not wait for its mark for want of room: its place, and when it had returned.
    hurried: Option<(KernelTime, MonoTime)>,
}

impl Timeline {
    pub(crate) fn new(config: super::Config) -> Timeline {
        Timeline {
            config,
            records: Records::default(),
            calls: Calls::default(),
            consumers: Consumers::default(),
            consumer_calls: 0,
            clock: ClockMap::default(),
            passes: Passes::default(),
            reconcile: Reconcile::default(),
            out: VecDeque::new(),
            now: KernelTime(0),
            first: None,
            marked: KernelTime(0),
            read: MonoTime(0),
            horizon: KernelTime(u64::MAX),
            missing: Missing::default(),
            away: false,
            ended: false,
            hurried_records: 0,
            hurried_calls: 0,
        }
    }

    /// The next event, if one is due.
    pub(crate) fn next(&mut self) -> Option<Event<'_>> {
        if self.out.is_empty() {
            self.calls.release();
            self.step();
        }
        Some(match self.out.pop_front()? {
            Event::Call(call) => {
                let (registered, notes) = match call.tracker {
                    0 => self.calls.taken(),
                    _ => (&[][..], self.consumers.lent()),
                };
                Event::Call(Call { registered, notes, ..call })
            }
            event => event,
        })
    }

    /// Whether [`Timeline::next`] may have something: cheap, for the record that only has to wait.
    pub(crate) fn is_ready(&self) -> bool {
        let ready = match self.records.first() {
            Some(first) => self.is_due(first.at) || self.is_full(),
            None => self.calls.first().is_some(),
        };
        ready || self.is_crowded() || !self.out.is_empty()
    }

    fn gap(&mut self, witness: Witness, reason: BlindReason, span: Span) {
        self.out.push_back(Event::Gap(Gap { witness, reason, span }));
    }

    fn dtrace_gap(&mut self, reason: BlindReason, span: Span) {
        self.gap(Witness::Dtrace, reason, span);
    }

    // --- DTrace's stream --------------------------------------------------------------------------------------------

    /// Takes a record that was read at `read`. Returns why it, or the one before it, is refused.
    pub(crate) fn record(&mut self, record: Record, read: MonoTime) -> Option<Reason> {
        if read != self.read {
            self.begin_read(read);
        }
        let (at, newest) = (record.at(), self.records.newest());
        let future = at > self.horizon;
        let Arrival { queued, refused } = self.records.take(at, record, self.now, future);
        if let Some((reason, from)) = refused
            && reason != Reason::Duplicate
        {
            // Behind it others may come that are as late, and take places among those that came before it.
            let to = self.records.newest().unwrap_or(from).max(self.now).max(from);
            self.dtrace_gap(BlindReason::Late, Span::Between(from, to));
        }
        if queued {
            self.away = false;
            self.arrived(&record, at, newest);
            if future {
                self.forget_clock(newest.unwrap_or(at), at);
            }
            self.clock.read(at, read);
        }
        refused.map(|(reason, _)| reason)
    }

    /// What comes from here on was read at `read`.
    fn begin_read(&mut self, read: MonoTime) {
        if let Some(newest) = self.records.newest() {
            self.passes.read(self.read, newest);
        }
        self.read = read;
        self.horizon = self.clock.horizon(read);
    }

    /// DTrace is there and has come to the time of this record.
    fn arrived(&mut self, record: &Record, at: KernelTime, before: Option<KernelTime>) {
        if self.first.is_none() {
            let first = self.records.first().map_or(at, |first| first.at);
            self.first = Some(first);
            self.dtrace_gap(BlindReason::Outage, Span::Before(first));
            self.reconcile.begins(first);
        }
        if self.missing.outage.take_if(|since| *since <= at).is_some() {
            self.dtrace_gap(BlindReason::Outage, Span::Until(at));
        }
        if let (Record::Begin { .. }, Some(before)) = (record, before) {
            self.dtrace_gap(BlindReason::Outage, Span::Between(before, at));
            self.reconcile.begins(at);
            self.consumers.restart();
        }
        if self.missing.line.take_if(|since| *since <= at).is_some() {
            self.dtrace_gap(BlindReason::BadLine, Span::Until(at));
        }
    }

    /// A line of dtrace's stdout is no record: a record is missing between its neighbours.
    pub(crate) fn bad_line(&mut self) {
        let since = self.newest();
        self.missing.line.get_or_insert(since);
        self.dtrace_gap(BlindReason::BadLine, Span::Since(since));
    }

    /// dtrace(1) reported, in a message read at `read`, that something was dropped since its last report: since the pass
    /// before the one that reports it. That one has printed the last record that was read, unless stdout was read ahead of
    /// stderr; so what had been read by the time of that record is of a pass before.
    pub(crate) fn drops(&mut self, read: MonoTime) {
        let reason = BlindReason::Drops;
        if read.0 == 0 {
            return self.dtrace_gap(reason, Span::Anywhere);
        }
        let (Some(earliest), Some(latest)) = (self.clock.earliest(read), self.clock.latest(read))
        else {
            // Nothing was read yet: from the beginning until a mark tells what time it is.
            self.missing.drops = Some(read);
            return self.dtrace_gap(reason, Span::Since(KernelTime(0)));
        };
        let passes = earliest.minus(2 * self.config.switch_ns);
        let read_by = match self.records.newest() {
            Some(newest) if self.read.0 == 0 => newest,
            Some(newest) => self.passes.read_by(newest, &self.clock),
            None => earliest,
        };
        self.dtrace_gap(reason, Span::Between(passes.min(read_by), latest));
    }

    /// dtrace was started. From here on calls may have marks: one that does not wait for its mark would overtake every record,
    /// which comes a switch of buffers later, and so on for ever.
    pub(crate) fn dtrace_up(&mut self) {
        self.reconcile.restart();
        self.away = false;
    }

    /// dtrace is gone: calls cannot wait for marks.
    pub(crate) fn dtrace_down(&mut self) {
        let since = self.newest();
        self.missing.outage.get_or_insert(since);
        self.dtrace_gap(BlindReason::Outage, Span::Since(since));
        self.away = true;
    }

    /// From now on this tracker is the consumer with this pid.
    pub(crate) fn consumer(&mut self, tracker: usize, pid: Pid) {
        self.consumers.set(tracker, pid);
    }

    /// The kernel's count of forks, read at `at`.
    pub(crate) fn forks(&mut self, at: MonoTime, total: u64) {
        self.reconcile.sample(at, total);
    }

    // --- kqueue's stream --------------------------------------------------------------------------------------------

    /// Takes a call of the reader. `false` if its number is not a new one.
    pub(crate) fn call(&mut self, batch: &Batch<'_>) -> bool {
        self.calls.push(batch)
    }

    /// Calls before `next_seq` could not be kept: between the call before them and the one after them kqueue may have
    /// delivered anything.
    pub(crate) fn calls_lost(&mut self, next_seq: u64) {
        self.calls.skip(next_seq);
        self.missing.calls = self.missing.calls.max(Some(next_seq));
        self.gap(Witness::Kqueue, BlindReason::Overflow, Span::Since(self.marked));
    }

    /// Nothing more will come: everything is due.
    pub(crate) fn end(&mut self) {
        if self.records.newest().is_none() {
            // Not one record: DTrace was blind throughout.
            self.dtrace_gap(BlindReason::Drops, Span::Anywhere);
        }
        self.records.end();
        self.ended = true;
        // DTrace shows nothing of what came after its last record.
        self.dtrace_gap(BlindReason::Outage, Span::Since(self.newest().plus(1)));
    }

    /// The times of DTrace's first and last record.
    pub(crate) fn span(&self) -> (KernelTime, KernelTime) {
        let first = self.first.unwrap_or_default();
        (first, self.newest().max(first))
    }

    fn newest(&self) -> KernelTime {
        self.records.newest().unwrap_or_default()
    }

    /// Brings the gauges up to date.
    pub(crate) fn publish(&mut self, stats: &mut Stats) {
        let fill = |entries, capacity| Fill { entries: entries as u64, capacity: capacity as u64 };
        let Timeline { config: super::Config { capacity, .. }, .. } = *self;
        let events = fill(self.calls.events_waiting(EVENTS), capacity.saturating_mul(EVENTS));
        stats.tables[Table::Records.index()] = fill(self.records.len(), capacity);
        stats.tables[Table::Events.index()] = events;
        stats.evictions[Table::Records.index()] = self.hurried_records;
        stats.evictions[Table::Events.index()] += std::mem::take(&mut self.hurried_calls);
        stats.clock = self.now.0;
        stats.began = self.first.unwrap_or_default().0;
        stats.reconcile_delta = self.reconcile.delta;
    }
}

#[cfg(test)]
mod tests;
