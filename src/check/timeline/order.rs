//! The merge of the two streams: which record or call of the reader is next in DTrace's order, and the events that it becomes.

use super::clock::{ClockMap, STEP_NS};
use super::consumers::Returned;
use super::event::{Call, Event, Span};
use super::records::Waiting;
use super::{EVENTS, Timeline};
use crate::check::stats::BlindReason;
use crate::model::{KernelTime, MonoTime, Pid, Witness};
use crate::wire::record::{Mark, Record};

/// DTrace prints a heartbeat every 5 s. A longer silence means that its clock has jumped, or that records are missing.
const SILENCE_NS: u64 = 8_000_000_000;

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
    /// The same: there is no room to wait for its mark.
    Hurried,
}

impl Timeline {
    /// Places the next record or call, if one is due.
    pub(super) fn step(&mut self) {
        if self.calls.take_step_back() {
            // By the readings from before, this call would seem to have returned long ago.
            self.forget_clock(self.marked, self.newest());
        }
        match self.turn() {
            Turn::Wait => {}
            Turn::Record => self.place_record(),
            Turn::Marked(mark) => self.place_marked(&mark),
            Turn::Unmarked => self.place_unmarked(false),
            Turn::Hurried => self.place_unmarked(true),
        }
    }

    fn turn(&mut self) -> Turn {
        let Some(&Waiting { at, record, .. }) = self.records.first() else {
            return self.turn_of_call();
        };
        if !self.is_due(at) && !self.is_full() {
            return self.turn_of_call();
        }
        if let Record::Mark(mark) = record
            && mark.returned.is_none_or(|returned| returned >= 0)
        {
            match self.calls.place_of(&mark, &self.clock) {
                Some(0) => return Turn::Marked(mark),
                // The marks of the calls before it were dropped.
                Some(_) => return Turn::Unmarked,
                None if !self.calls.is_ahead(&mark) => self.learn_from_late(&mark),
                None if self.calls.first().is_some() => return Turn::Unmarked,
                None if self.may_wait(&mark) => return Turn::Wait,
                None => {}
            }
        }
        if self.is_call_passed(at) { Turn::Unmarked } else { Turn::Record }
    }

    /// Whether the first call cannot wait for its mark: nothing will come, or there is no room.
    fn turn_of_call(&self) -> Turn {
        let Some(head) = self.calls.first() else { return Turn::Wait };
        if self.records.is_empty() {
            let passed =
                |at: KernelTime| self.records.newest() >= Some(at.plus(self.config.reorder_ns));
            if self.ended || self.away || self.clock.latest(head.after).is_some_and(passed) {
                return Turn::Unmarked;
            }
        }
        if self.is_crowded() { Turn::Hurried } else { Turn::Wait }
    }

    /// Whether nothing can come before a record of this time any more.
    pub(super) fn is_due(&self, at: KernelTime) -> bool {
        let horizon = at.plus(self.config.reorder_ns);
        self.records.newest().is_some_and(|newest| horizon <= newest) || self.ended || self.away
    }

    /// Whether there is no room for the first record to wait any longer.
    pub(super) fn is_full(&self) -> bool {
        self.records.len() > self.config.capacity
    }

    /// Whether there is no room for calls to wait for their marks.
    pub(super) fn is_crowded(&self) -> bool {
        self.calls.events_waiting(EVENTS) > self.config.capacity.saturating_mul(EVENTS)
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

    fn place_record(&mut self) {
        self.hurried_records += u64::from(self.is_full());
        let Some(Waiting { at, record, printed }) = self.records.hand_on() else { return };
        self.come_to(at);
        if let Some(consumer) = record.consumer() {
            let replaced = self.consumers.succeeded(consumer);
            let ended = |(tracker, consumer)| Event::Ended { tracker, consumer };
            self.out.extend(replaced.map(ended));
        }
        match record {
            Record::Create { at, child, forker, .. } => {
                self.reconcile.create();
                self.out.push_back(Event::Create { at, printed, child, forker });
            }
            Record::Exit { at, pid, status, .. } => {
                self.out.push_back(Event::Exit { at, pid, status });
                let ended = self.consumers.ended(pid);
                self.out.extend(ended.map(|tracker| Event::Ended { tracker, consumer: pid }));
            }
            Record::Register(register) => self.consumers.register(&register),
            Record::RegDone { at, tid, errno, consumer } => {
                self.out.extend(self.consumers.registered(at, consumer, tid, errno));
            }
            Record::Copyout(copyout) => self.consumers.copied(&copyout),
            Record::Call { at, tid, fd, nevents, returned, consumer, .. } => {
                self.place_consumers(consumer, &Returned { at, tid, fd, nevents, returned });
            }
            _ => {}
        }
        if let Some((from, to)) = self.reconcile.advance(at, &self.clock) {
            self.dtrace_gap(BlindReason::Reconcile, Span::Between(from, to));
        }
    }

    /// A call of a consumer returns. If events of it are missing, their notes are missing since the call before.
    fn place_consumers(&mut self, consumer: Pid, returned: &Returned) {
        self.consumer_calls += 1;
        let call = self.consumers.returned(consumer, self.consumer_calls, returned);
        let Some((call, lacks_events)) = call else { return };
        if lacks_events {
            let from = call.entered.unwrap_or(call.at).minus(self.config.settle_ns);
            let from = from.max(self.first.unwrap_or_default());
            self.dtrace_gap(BlindReason::BadLine, Span::Between(from, call.at));
        }
        self.out.push_back(Event::Call(call));
    }

    /// A mark tells what time it is: the call has its place, and everything that waited for that.
    fn place_marked(&mut self, mark: &Mark) {
        let Some(head) = self.calls.take_marked() else { return };
        self.records.hand_on();
        self.learn(head.before, head.after, mark.at);
        // The reader's calls follow each other: the clocks of two CPUs are apart, or DTrace's has stepped back.
        if mark.entered.0 != 0 && mark.entered.plus(STEP_NS) < self.marked {
            self.jumped(mark.entered, self.newest().max(self.marked));
        }
        self.marked = mark.at;
        if self.missing.calls.take_if(|next| head.seq >= *next).is_some() {
            self.gap(Witness::Kqueue, BlindReason::Overflow, Span::Until(mark.at));
        }
        if let Some(to) = self.missing.drops.take().and_then(|read| self.clock.latest(read)) {
            self.dtrace_gap(BlindReason::Drops, Span::Until(to));
        }
        if let Some((since, after)) = self.missing.hurried.take()
            && let Some(lost) = self.clock.latest(after)
        {
            self.dtrace_gap(BlindReason::Overflow, Span::UntilDrained { since, lost });
        }
        self.come_to(mark.at);
        let (seq, drained, entered) = (head.seq, head.drained, Some(mark.entered.min(mark.at)));
        self.out.push_back(Event::Call(Call { seq, at: mark.at, entered, drained, ..Call::OWN }));
    }

    fn place_unmarked(&mut self, hurried: bool) {
        let Some(head) = self.calls.take_unmarked() else { return };
        let bound = match self.records.first() {
            Some(first) => first.at,
            None if self.ended || self.away => KernelTime(u64::MAX),
            None => self.records.newest().unwrap_or(self.now),
        };
        let at = self.clock.latest(head.after).unwrap_or(self.now).min(bound).max(self.now);
        if hurried {
            self.hurried_calls += 1;
            let since = self.missing.hurried.map_or(at, |(since, _)| since);
            self.missing.hurried = Some((since, head.after));
        }
        if self.missing.hurried.is_some() {
            // It comes before the records that it belongs behind.
            self.dtrace_gap(BlindReason::Overflow, Span::Since(at));
        }
        self.come_to(at);
        let (seq, drained) = (head.seq, head.drained);
        self.out.push_back(Event::Call(Call { seq, at, drained, ..Call::OWN }));
    }

    fn come_to(&mut self, at: KernelTime) {
        if self.now > KernelTime(0) && at.since(self.now) > SILENCE_NS {
            self.jumped(self.now, self.newest().max(at));
        }
        self.now = self.now.max(at);
        let complete = match self.read.0 {
            _ if self.away || self.ended => self.now,
            0 => self.now,
            _ => self.passes.complete(self.now, &self.clock),
        };
        let compared = self.compared();
        self.out.push_back(Event::Now { at: self.now, complete, compared });
    }

    /// Up to when it is known whether a clock has jumped. If dtrace is gone, no mark will tell: it counts as gone since the last.
    fn compared(&mut self) -> KernelTime {
        if !self.away || !self.records.is_empty() {
            return self.compared;
        }
        if self.compared > KernelTime(0) && self.compared < self.newest() {
            self.dtrace_gap(BlindReason::Outage, Span::Since(self.compared));
            self.compared = self.newest();
        }
        self.now
    }

    // --- the clocks -------------------------------------------------------------------------------------------------

    /// The mark of a call that did not wait for it: the clocks were not where they were thought to be.
    fn learn_from_late(&mut self, mark: &Mark) {
        if let Some(head) = self.calls.take_late(mark) {
            self.learn(head.before, head.after, mark.at);
        }
    }

    /// A call between these two clock readings returned at `at`.
    fn learn(&mut self, before: MonoTime, after: MonoTime, at: KernelTime) {
        if !self.clock.marked(before, after, at) {
            // Records of before and of after it may stand among each other, up to the newest.
            let to = self.newest().max(at);
            self.jumped(self.marked.min(at), to);
        }
        self.compared = self.compared.max(at);
    }

    /// DTrace's clock has jumped from one of these times to the other. The next marks say where it is now; until then no call
    /// is thought to have been passed.
    pub(super) fn forget_clock(&mut self, from: KernelTime, to: KernelTime) {
        self.clock = ClockMap::default();
        self.horizon = KernelTime(u64::MAX);
        self.jumped(from, to);
    }

    /// Between these times the order of the two streams is not known, nor how long a note was waited for.
    fn jumped(&mut self, from: KernelTime, to: KernelTime) {
        let from = from.minus(self.config.settle_ns);
        self.dtrace_gap(BlindReason::Clock, Span::Between(from, to));
    }
}
