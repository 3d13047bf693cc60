//! The input side of the timeline. Takes in DTrace's records, the news of dtrace(1) and of consumers, sysctl's counts of forks,
//! and what was lost on the way. The reader's calls come in by [`Timeline::call`].

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
        let future = self.latest_plausible.is_some_and(|latest| at > latest);
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
                self.notice_jump_forward(newest.unwrap_or(at), at);
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
        self.latest_plausible = self.clock.latest_plausible(read);
    }

    /// Handles what became of a record. `before` is the newest time stamp among the records read before it.
    fn arrived(&mut self, record: &Record, arrival: Arrival, before: Option<KernelTime>) {
        match arrival {
            Arrival::Queued => self.after_queued(record, before),
            Arrival::Held | Arrival::Refused(Reason::Duplicate, _) => {}
            Arrival::Refused(_, from) => {
                // After it others may come that are as late, but not too late: they take places among records that were read
                // earlier.
                let to = self.records.newest().unwrap_or(from).max(self.now).max(from);
                self.dtrace_gap(BlindReason::Late, Span::Between(from, to));
            }
        }
    }

    /// A record was queued: DTrace is there and has come to its time, which ends some of the gaps. `before` as for
    /// [`Timeline::arrived`].
    fn after_queued(&mut self, record: &Record, before: Option<KernelTime>) {
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
        self.notice_stamp_before_first(at);
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
            self.report_clock_gap(last.min(at), self.newest().max(last));
        }
    }

    /// A line of dtrace's stdout is no record: one may be missing between the records around it.
    pub(crate) fn bad_line(&mut self) {
        let since = self.newest();
        self.missing.line.get_or_insert(since);
        self.dtrace_gap(BlindReason::BadLine, Span::Since(since));
    }

    /// dtrace(1) reported, in a message read at `read`, that something was dropped. It reports that at the end of a pass, after
    /// the records of the pass (`passes.rs`), so it was dropped after the pass before had taken the buffers. Two bounds tell
    /// when that was, and the earlier one counts:
    ///
    /// - The newest record is of the reporting pass or of an earlier one, which took the buffers after that record's time. What
    ///   had been read by that time is of a pass before.
    /// - If stdout was read ahead of stderr, the newest record may be of a later pass. Two intervals between passes before the
    ///   message was read, the pass before had begun.
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
        let two_passes_ago = earliest.minus(2 * self.config.switch_ns);
        let read_by = match self.records.newest() {
            Some(newest) if !self.stdout_read.is_known() => newest,
            Some(newest) => self.passes.read_by(newest, &self.clock),
            None => earliest,
        };
        self.dtrace_gap(reason, Span::Between(two_passes_ago.min(read_by), latest));
    }

    /// dtrace was started. From now on calls wait for their marks, though no record has come yet. A call that did not wait
    /// would move the timeline past the records of its time, which arrive a switch of buffers later and would be refused as
    /// late; so would all that follow.
    pub(crate) fn dtrace_up(&mut self) {
        self.reconcile.restart();
        self.away = false;
    }

    /// dtrace is gone: calls do not wait for marks.
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
