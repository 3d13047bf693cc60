//! The input side of the timeline for DTrace: takes its records and the news of dtrace(1), and makes a `Gap` of each
//! time in which a witness may have missed something, or in which a jump of a clock makes the order unknown.

use super::calls::CallHead;
use super::records::{Arrival, Arrivals};
use super::{BlindReason, ClockMap, Event, Gap, STEP_NS, Span, Timeline};
use crate::check::judge::UNORDERED_NS;
use crate::model::{KernelTime, MonoTime, Pid, Witness};
use crate::wire::decode::Reason;
use crate::wire::record::{Mark, Record};

impl Timeline {
    pub(super) fn gap(&mut self, witness: Witness, reason: BlindReason, span: Span) {
        self.out.push_back(Event::Gap(Gap { witness, reason, span }));
    }

    pub(super) fn dtrace_gap(&mut self, reason: BlindReason, span: Span) {
        self.gap(Witness::Dtrace, reason, span);
    }

    // --- DTrace's stream --------------------------------------------------------------------------------------------

    /// Takes a record that was read at `read`.
    pub(crate) fn record(&mut self, record: Record, read: MonoTime) -> Arrivals {
        if read != self.read {
            self.begin_read(read);
        }
        let (at, newest) = (record.at(), self.records.newest());
        let future = self.horizon.is_some_and(|horizon| at > horizon);
        let arrivals = self.records.take(at, record, self.now, future);
        let mut before = newest;
        if let Some((held, arrival)) = arrivals.held {
            self.arrived(&held, arrival, before);
            before = before.max(Some(held.at()).filter(|_| arrival == Arrival::Queued));
        }
        self.arrived(&record, arrivals.record, before);
        if arrivals.record == Arrival::Queued {
            if future {
                self.jumped_forward(newest.unwrap_or(at), at);
            }
            self.clock.read(at, read);
        }
        arrivals
    }

    /// What comes from here on was read at `read`.
    fn begin_read(&mut self, read: MonoTime) {
        self.reading(read);
        if let Some(newest) = self.records.newest() {
            self.passes.read(self.read, newest);
        }
        self.read = read;
        self.horizon = self.clock.horizon(read);
    }

    /// Something of dtrace(1) was read at `read`. If the clock of the host that reads it has stepped back, the calls that wait may
    /// be of before or of after that.
    fn reading(&mut self, read: MonoTime) {
        if read.0 != 0 && read.0.saturating_add(STEP_NS) < self.reading.0 {
            self.forget_clock(self.marked, self.newest());
            self.clock.stepped_back();
            self.passes.forget();
        }
        self.reading = read;
    }

    /// This became of a record, when the latest before it was of the time `before`.
    fn arrived(&mut self, record: &Record, arrival: Arrival, before: Option<KernelTime>) {
        match arrival {
            Arrival::Queued => self.queued(record, before),
            Arrival::Held | Arrival::Refused(Reason::Duplicate, _) => {}
            Arrival::Refused(_, from) => {
                // Behind it others may come that are as late, and take places among those that came before it.
                let to = self.records.newest().unwrap_or(from).max(self.now).max(from);
                self.dtrace_gap(BlindReason::Late, Span::Between(from, to));
            }
        }
    }

    /// DTrace is there and has come to the time of this record.
    fn queued(&mut self, record: &Record, before: Option<KernelTime>) {
        let at = record.at();
        self.away = false;
        if self.first.is_none() {
            let first = self.records.first().map_or(at, |first| first.at);
            self.first = Some(first);
            self.dtrace_gap(BlindReason::Outage, Span::Before(first));
            self.reconcile.begins(first);
        }
        if self.missing.outage.take_if(|since| *since <= at).is_some() {
            self.dtrace_gap(BlindReason::Outage, Span::Until(at));
        }
        self.stepped_before_first(at);
        if let (Record::Begin { .. }, Some(before)) = (record, before) {
            self.dtrace_gap(BlindReason::Outage, Span::Between(before, at));
            self.reconcile.begins(at);
            self.consumers.restart();
        }
        if self.missing.line.take_if(|since| *since <= at).is_some() {
            self.dtrace_gap(BlindReason::BadLine, Span::Until(at));
        }
        if let Record::Begin { wall, .. } | Record::Tick { wall, .. } = *record
            && let Some(last) = self.wall.compare(at, wall)
        {
            self.forget_reads();
            self.jumped(last.min(at), self.newest().max(last));
        }
    }

    /// A record that comes after the first one is stamped long before it: DTrace's clock has stepped back. What came before that
    /// stands among what comes now.
    fn stepped_before_first(&mut self, at: KernelTime) {
        let newest = self.newest();
        if self.first.is_some_and(|first| at.plus(UNORDERED_NS) < first) && self.mixed < newest {
            self.mixed = newest;
            self.forget_clock(at, newest);
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
        self.reading(read);
        self.dropped = Some(read).filter(|read| read.0 != 0);
        if read.0 == 0 {
            return self.dtrace_gap(reason, Span::Anywhere);
        }
        let (Some(earliest), Some(latest)) = (self.clock.earliest(read), self.clock.latest(read))
        else {
            // Nothing was read yet: from the beginning until a mark tells what time it is.
            self.missing.drops = Some((read, KernelTime(0)));
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

    /// The call of this mark is at hand: what was missing until a mark was missing until then.
    pub(super) fn close_gaps(&mut self, head: &CallHead, marked: KernelTime) {
        if self.missing.calls.take_if(|next| head.seq >= *next).is_some() {
            self.gap(Witness::Kqueue, BlindReason::Overflow, Span::Until(marked));
        }
        if self.clock.is_of_before(head.before, marked) {
            return;
        }
        let drops = self.missing.drops.take_if(|(_, since)| *since <= marked);
        if let Some(to) = drops.and_then(|(read, _)| self.clock.latest(read)) {
            self.dtrace_gap(BlindReason::Drops, Span::Until(to));
        }
        if let Some((since, after)) = self.missing.hurried.take()
            && let lost @ Some(_) = self.clock.latest(after)
        {
            self.dtrace_gap(BlindReason::Overflow, Span::UntilDrained { since, lost });
        }
    }

    // --- the clocks -------------------------------------------------------------------------------------------------

    /// The mark of a call that did not wait for it: the clocks were not where they were thought to be.
    pub(super) fn learn_from_late(&mut self, mark: &Mark) {
        if let Some(head) = self.calls.take_late(mark) {
            self.learn(head.before, head.after, mark.at);
        }
    }

    /// A call between these two clock readings returned at `at`.
    pub(super) fn learn(&mut self, before: MonoTime, after: MonoTime, at: KernelTime) {
        if self.clock.is_of_before(before, at) {
            return;
        }
        if !self.clock.marked(before, after, at) {
            // Records from before the jump and from after it may be mixed, up to the newest.
            let to = self.newest().max(at);
            self.jumped(self.marked.min(at), to);
        }
        self.compared = self.compared.max(at);
    }

    /// DTrace's clock has jumped from one of these times to the other. The next marks say where it is now; until then no call
    /// is thought to have been passed.
    pub(super) fn forget_clock(&mut self, from: KernelTime, to: KernelTime) {
        self.clock = ClockMap::default();
        self.horizon = None;
        self.jumped(from, to);
    }

    /// The clocks are not where they seemed to be by when records were read. Marks tell that better.
    fn forget_reads(&mut self) {
        if self.compared == KernelTime(0) {
            self.clock = ClockMap::default();
        }
    }

    /// DTrace's clock has jumped to `to`. What dtrace(1) reported last as dropped may have been dropped since then: it comes before
    /// the records of its pass.
    fn jumped_forward(&mut self, from: KernelTime, to: KernelTime) {
        self.forget_clock(from, to);
        if let Some(read) = self.dropped {
            self.missing.drops = Some((read, to));
            self.dtrace_gap(BlindReason::Drops, Span::Since(to));
        }
    }

    /// Between these times the order of the two streams is not known, nor how long a note was waited for.
    pub(super) fn jumped(&mut self, from: KernelTime, to: KernelTime) {
        let from = from.minus(self.config.settle_ns);
        self.dtrace_gap(BlindReason::Clock, Span::Between(from, to));
    }
}
