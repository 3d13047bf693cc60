//! The input side of the timeline: DTrace's records, the news of dtrace(1) and of consumers, sysctl's counts of forks, and what
//! was lost on the way. The reader's calls come in by [`Timeline::call`].

use super::event::Span;
use super::records::{Arrival, Arrivals};
use super::{BlindReason, Timeline};
use crate::model::{KernelTime, MonoTime, Pid, Witness};
use crate::wire::decode::Reason;
use crate::wire::record::Record;

impl Timeline {
    /// Takes a record that was read at `read`.
    pub(crate) fn record(&mut self, record: Record, read: MonoTime) -> Arrivals {
        if read != self.stdout_read {
            self.begin_read(read);
        }
        let (at, newest) = (record.at(), self.records.newest());
        let future = self.horizon.is_some_and(|horizon| at > horizon);
        let arrivals = self.records.take(at, record, self.now, future);
        let mut before = newest;
        if let Some((held, arrival)) = arrivals.held {
            self.arrived(&held, arrival, before);
            if arrival == Arrival::Queued {
                before = before.max(Some(held.at()));
            }
        }
        self.arrived(&record, arrivals.record, before);
        if arrivals.record == Arrival::Queued {
            if future {
                self.jumped_forward(newest.unwrap_or(at), at);
            }
            self.clock.record_read(at, read);
        }
        arrivals
    }

    /// The records that come from here on were read at `read`.
    fn begin_read(&mut self, read: MonoTime) {
        self.notice_step_back(read);
        if let Some(newest) = self.records.newest() {
            self.passes.read_up_to(self.stdout_read, newest);
        }
        self.stdout_read = read;
        self.horizon = self.clock.horizon(read);
    }

    /// This became of a record; the latest before it was of the time `before`.
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
            self.forget_clock_without_marks();
            self.jumped(last.min(at), self.newest().max(last));
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
        self.notice_step_back(read);
        self.dropped = Some(read).filter(|read| read.is_known());
        if !read.is_known() {
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
            Some(newest) if !self.stdout_read.is_known() => newest,
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
        self.gap(Witness::Kqueue, BlindReason::Overflow, Span::Since(self.last_marked()));
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
}
