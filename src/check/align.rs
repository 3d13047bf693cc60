//! Two streams, read at any pace, into one order: DTrace's.
//!
//! Records are sorted by their time stamps within the reorder horizon. A batch takes the place of its mark; a batch whose
//! mark was dropped takes the latest place that the clocks allow. The result depends on what was said, not on when
//! it was read.

use std::collections::VecDeque;

use super::clock::{ClockMap, Head};
use super::passes::Passes;
use super::records::{Arrival, Records, Waiting};
use super::stats::{Fill, Table};
use crate::input::{Attach, Batch};
use crate::model::{KernelTime, Kevent, MonoTime};
use crate::wire::record::{Mark, Record};

/// How far a mark may lie outside of its batch's bracket before it must be another batch's.
const SLACK_NS: u64 = 1_000_000;

/// After so many calls their capacities repeat.
const CAPACITIES: u64 = 1024;

/// So many events may wait for each record that may.
const EVENTS: usize = 4;

/// The next thing in DTrace's order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Record(Waiting),
    Batch(Placed),
}

/// A batch with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) head: Head,
    /// When the call returned; the latest possible where the mark is missing.
    pub(crate) at: KernelTime,
    /// When the call began, or earlier. `None` where the mark is missing: nothing is known to be drained then.
    pub(crate) entered: Option<KernelTime>,
}

pub(crate) struct Align {
    reorder_ns: u64,
    patience_ns: u64,
    capacity: usize,
    /// Those that wait for their turn.
    records: Records,
    /// The time of the last step.
    now: KernelTime,
    batches: VecDeque<Head>,
    pub(crate) events: VecDeque<Kevent>,
    pub(crate) attached: VecDeque<Attach>,
    next_seq: u64,
    /// The place of the last batch that had its mark.
    pub(crate) marked: KernelTime,
    /// The number behind the last batch that was placed.
    placed_seq: u64,
    /// The last batches that were placed without their marks: no two with one capacity.
    unmarked: VecDeque<Head>,
    pub(crate) clock: ClockMap,
    passes: Passes,
    /// When what comes now was read, and the latest that it can be of.
    read: MonoTime,
    horizon: KernelTime,
    /// A clock has jumped: between which times on DTrace's clock the order of both streams cannot be told.
    pub(crate) jumped: Option<(KernelTime, KernelTime)>,
    /// No marks can come: dtrace is not there.
    blind: bool,
    ended: bool,
    /// Records that could not wait for their batch, batches that could not wait for their mark, for want of room.
    pub(crate) hurried_records: u64,
    pub(crate) hurried_batches: u64,
    /// When the last of those batches had returned, until a mark tells what time that was.
    pub(crate) hurried: Option<MonoTime>,
}

impl Align {
    pub(crate) fn new(reorder_ns: u64, patience_ns: u64, capacity: usize) -> Align {
        Align {
            reorder_ns,
            patience_ns,
            capacity,
            records: Records::default(),
            now: KernelTime(0),
            batches: VecDeque::new(),
            events: VecDeque::new(),
            attached: VecDeque::new(),
            next_seq: 0,
            marked: KernelTime(0),
            placed_seq: 0,
            unmarked: VecDeque::new(),
            clock: ClockMap::default(),
            passes: Passes::default(),
            read: MonoTime(0),
            horizon: KernelTime(u64::MAX),
            jumped: None,
            blind: false,
            ended: false,
            hurried_records: 0,
            hurried_batches: 0,
            hurried: None,
        }
    }

    /// How far DTrace's records have been read.
    pub(crate) fn newest(&self) -> Option<KernelTime> {
        self.records.newest()
    }

    /// The time of the first record that has not been handed on.
    pub(crate) fn first(&self) -> Option<KernelTime> {
        self.records.first().map(|first| first.at)
    }

    /// How far DTrace's records have been handed on.
    pub(crate) fn now(&self) -> KernelTime {
        self.now
    }

    /// dtrace is gone: batches cannot wait for marks.
    pub(crate) fn lose_sight(&mut self) {
        self.blind = true;
    }

    /// dtrace is there again: the batches from here on may have marks. Without this, one that does not wait for its mark
    /// would overtake every record, which comes a switch of buffers later, and so on for ever.
    pub(crate) fn regain_sight(&mut self) {
        self.blind = false;
    }

    /// Nothing more will come: everything is due.
    pub(crate) fn end(&mut self) {
        self.records.end();
        self.ended = true;
    }

    /// Takes a record of the time `at` that was read at `read`.
    #[inline]
    pub(crate) fn record(&mut self, at: KernelTime, record: Record, read: MonoTime) -> Arrival {
        if read != self.read {
            self.begin_read(read);
        }
        let (future, newest) = (at > self.horizon, self.newest());
        let arrival = self.records.take(at, record, self.now, future);
        if arrival == Arrival::Queued {
            self.blind = false;
            if future {
                self.forget_clock(newest.unwrap_or(at), at);
            }
            self.clock.read(at, read);
        }
        arrival
    }

    /// What comes from here on was read at `read`.
    #[cold]
    fn begin_read(&mut self, read: MonoTime) {
        if let Some(newest) = self.newest() {
            self.passes.read(self.read, newest);
        }
        self.read = read;
        self.horizon = self.clock.horizon(read);
    }

    /// DTrace's clock has jumped from one of these times to the other. The next marks say where it is now; until then no
    /// batch is thought to have been passed.
    #[cold]
    fn forget_clock(&mut self, from: KernelTime, to: KernelTime) {
        self.clock = ClockMap::default();
        self.horizon = KernelTime(u64::MAX);
        self.jumped = Some((from, to));
    }

    /// A batch has its mark.
    fn learn(&mut self, head: &Head, at: KernelTime) {
        if !self.clock.marked(head, at) {
            // Records of before and of after it may stand among each other, up to the newest.
            let to = self.newest().unwrap_or(at).max(at);
            self.jumped = Some((self.marked.min(at), to));
        }
    }

    /// How far DTrace had been read when its clock was at `at`; `at` itself where nobody knows when anything was read.
    pub(crate) fn read_by(&self, at: KernelTime) -> KernelTime {
        if self.read.0 == 0 { at } else { self.passes.read_by(at, &self.clock) }
    }

    /// Up to where dtrace has told of everything that it dropped, now that its records have come to `now`: what it printed
    /// since then, it took from its buffers later.
    pub(crate) fn told(&self, now: KernelTime) -> KernelTime {
        if self.blind || self.ended { now } else { self.read_by(now) }
    }

    /// Takes a batch. `false` where its number is not a new one.
    pub(crate) fn batch(&mut self, batch: &Batch<'_>) -> bool {
        if batch.seq < self.next_seq {
            return false;
        }
        if self.next_seq == 0 {
            self.placed_seq = batch.seq;
        }
        self.next_seq = batch.seq.saturating_add(1);
        self.batches.push_back(Head::of(batch));
        self.events.extend(batch.events);
        self.attached.extend(batch.attached);
        true
    }

    /// Batches were lost before they came here: marks of them wait for nothing.
    pub(crate) fn skip_batches(&mut self, next_seq: u64) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// Whether [`Align::next`] may have something: cheap, for the record that only has to wait.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        let ready = match self.records.first() {
            Some(first) => self.is_due(first.at) || self.records.len() > self.capacity,
            None => !self.batches.is_empty(),
        };
        ready || self.is_crowded()
    }

    /// Whether nothing can come before a record of this time any more.
    #[inline]
    fn is_due(&self, at: KernelTime) -> bool {
        self.newest().is_some_and(|newest| at.plus(self.reorder_ns) <= newest)
            || self.ended
            || self.blind
    }

    /// Whether there is no room for batches to wait for their marks.
    #[inline]
    fn is_crowded(&self) -> bool {
        self.events_waiting() > self.capacity.saturating_mul(EVENTS)
    }

    /// How many events wait for their marks. A batch needs room as well: it counts as [`EVENTS`] of them at least.
    #[inline]
    fn events_waiting(&self) -> usize {
        self.events.len().max(self.batches.len() * EVENTS)
    }

    /// How full the tables of records and of events are.
    pub(crate) fn fill(&self) -> [(Table, Fill); 2] {
        let fill = |entries, capacity| Fill { entries: entries as u64, capacity: capacity as u64 };
        [
            (Table::Records, fill(self.records.len(), self.capacity)),
            (Table::Events, fill(self.events_waiting(), self.capacity.saturating_mul(EVENTS))),
        ]
    }

    /// The next step, if it is due.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Step> {
        let Some(&Waiting { at, record, .. }) = self.records.first() else {
            return self.overdue_batch().map(Step::Batch);
        };
        if !self.is_due(at) && !self.is_hurried() {
            return self.overdue_batch().map(Step::Batch);
        }
        if let Record::Mark(mark) = record
            && mark.returned.is_none_or(|returned| returned >= 0)
        {
            match self.place_of(&mark) {
                Some(0) => return self.pop_marked(&mark).map(Step::Batch),
                // The marks of the batches before it were dropped.
                Some(_) => return self.pop_unmarked().map(Step::Batch),
                None if !self.is_ahead(&mark) => self.learn_from_late(&mark),
                None if !self.batches.is_empty() => return self.pop_unmarked().map(Step::Batch),
                None if self.may_wait(&mark) => return None,
                None => {}
            }
        }
        if self.is_front_passed(at) {
            return self.pop_unmarked().map(Step::Batch);
        }
        let record = self.records.hand_on()?;
        self.now = self.now.max(at);
        Some(Step::Record(record))
    }

    /// Whether the first batch must have returned before this time.
    fn is_front_passed(&self, at: KernelTime) -> bool {
        let latest = self.batches.front().and_then(|head| self.clock.latest(head.after));
        latest.is_some_and(|latest| latest < at)
    }

    /// Whether there is no room for the first record to wait any longer.
    fn is_hurried(&mut self) -> bool {
        let hurried = self.records.len() > self.capacity;
        self.hurried_records += u64::from(hurried);
        hurried
    }

    /// Where in the queue the batch of this mark is: nearly always the first one. Capacities repeat after 1024 calls;
    /// then the clock tells them apart, and what was returned. Where no batch fits, it is that of the nearest call with
    /// this capacity, if that has not been lost.
    fn place_of(&self, mark: &Mark) -> Option<usize> {
        let named = |head: &Head| mark.is_of(head.seq, head.capacity);
        let fits = |head: &Head| {
            named(head)
                && mark
                    .returned
                    .is_none_or(|n| i64::from(head.events + head.failed) == i64::from(n))
                && self.clock.latest(head.after).is_none_or(|t| t.plus(SLACK_NS) >= mark.at)
                && self.clock.earliest(head.before).is_none_or(|t| t <= mark.at.plus(SLACK_NS))
        };
        self.batches.iter().position(fits).or_else(|| {
            let nearest = self.nearest(mark);
            self.batches.iter().position(|head| named(head) && head.seq == nearest)
        })
    }

    /// The mark of a batch that did not wait for it: the clocks were not where they were thought to be.
    fn learn_from_late(&mut self, mark: &Mark) {
        let recent = self.placed_seq.saturating_sub(CAPACITIES);
        let named = |head: &Head| mark.is_of(head.seq, head.capacity) && head.seq >= recent;
        let Some(place) = self.unmarked.iter().position(named) else { return };
        let head = self.unmarked[place];
        // Marks come in order.
        self.unmarked.drain(..=place);
        self.learn(&head, mark.at);
    }

    /// The call with this capacity that is nearest to the last one that has its place.
    fn nearest(&self, mark: &Mark) -> u64 {
        if let Some(seq) = mark.seq {
            let ahead = seq.wrapping_sub(self.placed_seq as u32) as i32;
            return self.placed_seq.saturating_add_signed(ahead.into());
        }
        let ahead = mark.capacity.wrapping_sub(Batch::capacity_of(self.placed_seq)) % 1024;
        let next = self.placed_seq.saturating_add(ahead.into());
        if ahead < 512 { next } else { next.saturating_sub(1024) }
    }

    /// Whether this mark names a batch that has not arrived yet, rather than one that is gone.
    fn is_ahead(&self, mark: &Mark) -> bool {
        let ahead = self.next_seq == 0 || self.nearest(mark) >= self.next_seq;
        mark.capacity >= Batch::capacity_of(0) && ahead
    }

    /// Whether there is time and room to wait for the batch of this mark.
    fn may_wait(&mut self, mark: &Mark) -> bool {
        let waited = self.newest().map_or(0, |newest| newest.since(mark.at));
        if self.ended || waited > self.reorder_ns + self.patience_ns {
            return false;
        }
        !self.is_hurried()
    }

    /// A batch that cannot wait for a mark: nothing will come, or there is no room.
    fn overdue_batch(&mut self) -> Option<Placed> {
        let head = self.batches.front()?;
        if self.records.is_empty() {
            let passed = |at: KernelTime| self.newest() >= Some(at.plus(self.reorder_ns));
            if self.ended || self.blind || self.clock.latest(head.after).is_some_and(passed) {
                return self.pop_unmarked();
            }
        }
        if self.is_crowded() {
            self.hurried_batches += 1;
            self.hurried = Some(head.after);
            return self.pop_unmarked();
        }
        None
    }

    fn pop_marked(&mut self, mark: &Mark) -> Option<Placed> {
        let head = self.batches.pop_front()?;
        self.placed_seq = head.seq.saturating_add(1);
        self.learn(&head, mark.at);
        self.marked = mark.at;
        self.records.hand_on();
        self.now = self.now.max(mark.at);
        Some(Placed { head, at: mark.at, entered: Some(mark.entered.min(mark.at)) })
    }

    fn pop_unmarked(&mut self) -> Option<Placed> {
        let head = self.batches.pop_front()?;
        self.placed_seq = head.seq.saturating_add(1);
        let bound = match self.records.first() {
            Some(first) => first.at,
            None if self.ended || self.blind => KernelTime(u64::MAX),
            None => self.newest().unwrap_or(self.now),
        };
        let at = self.clock.latest(head.after).unwrap_or(self.now);
        self.now = at.min(bound).max(self.now);
        let again = |old: &Head| old.seq.saturating_add(CAPACITIES) <= head.seq;
        while self.unmarked.front().is_some_and(again) {
            self.unmarked.pop_front();
        }
        self.unmarked.push_back(head);
        Some(Placed { head, at: self.now, entered: None })
    }
}

#[cfg(test)]
mod tests;
