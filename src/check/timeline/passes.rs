//! Knows up to which time dtrace(1) has reported what it dropped. It prints in passes, and reports the drops of a pass after
//! the records of that pass, so only what an earlier pass printed is known to be complete. To tell passes apart, this file
//! remembers up to which record stdout had been read at which time.
//!
//! In a pass dtrace(1) takes the buffers of all CPUs, prints their records, then reports what they dropped, and sleeps
//! until the next (`dt_consume.c`, 12.3:3034,3066: temporal=yes). A long pass prints for seconds, so its drops are
//! reported long after the records around them.

use std::collections::VecDeque;

use super::clock::ClockMap;
use crate::check::latest::keep_latest;
use crate::model::{KernelTime, MonoTime};

/// At which intervals the times of reading are remembered.
const SAMPLING_NS: u64 = 10_000_000;
/// How many times of reading are remembered: those of 40 s, after which the kernel ends a dtrace that is still printing
/// (`dtrace_deadman_user`).
const KEPT: usize = 4096;

#[derive(Debug)]
pub(crate) struct Passes {
    /// Times of reading, each with the newest record that had been read by then. Those that the timeline has passed are
    /// forgotten.
    past: VecDeque<(MonoTime, KernelTime)>,
    last: (MonoTime, KernelTime),
    /// The newest record that had been read when DTrace's clock stood at the timeline's present time.
    complete: KernelTime,
}

impl Default for Passes {
    /// With all the room that it will ever need: nothing is allocated for a record.
    fn default() -> Passes {
        let past = VecDeque::with_capacity(KEPT);
        Passes { past, last: (MonoTime::UNKNOWN, KernelTime(0)), complete: KernelTime(0) }
    }
}

impl Passes {
    /// At `read`, DTrace had been read up to `newest`.
    pub(crate) fn read_up_to(&mut self, read: MonoTime, newest: KernelTime) {
        let since = |then: MonoTime| self.last.0.0.saturating_sub(then.0);
        if self.past.back().is_none_or(|(then, _)| since(*then) >= SAMPLING_NS) {
            keep_latest(&mut self.past, KEPT, self.last);
        }
        self.last = (read, newest);
    }

    /// The reading host's clock has stepped back: the times of reading are of its old setting.
    pub(crate) fn forget(&mut self) {
        self.past.clear();
        self.last = (MonoTime::UNKNOWN, KernelTime(0));
    }

    /// The timeline has come to `now`. Returns up to which time dtrace(1) has reported what it dropped: what it had printed
    /// when its clock stood at `now` is of passes that had begun by then.
    pub(crate) fn advance_to(&mut self, now: KernelTime, clock: &ClockMap) -> KernelTime {
        let by_now = |read: MonoTime| clock.latest(read).is_some_and(|at| at <= now);
        while let Some((_, newest)) = self.past.pop_front_if(|(read, _)| by_now(*read)) {
            self.complete = self.complete.max(newest);
        }
        if by_now(self.last.0) {
            self.complete = self.complete.max(self.last.1);
        }
        self.complete
    }

    /// How far DTrace had been read when its clock was at `at`, not before the timeline: up to there everything belongs to
    /// passes that had begun by then.
    pub(crate) fn read_by(&self, at: KernelTime, clock: &ClockMap) -> KernelTime {
        let by_then =
            |(read, _): &(MonoTime, KernelTime)| clock.latest(*read).is_some_and(|t| t <= at);
        if by_then(&self.last) {
            return self.last.1;
        }
        let count = self.past.partition_point(by_then);
        let newest = count.checked_sub(1).and_then(|i| self.past.get(i));
        newest.map_or(self.complete, |(_, newest)| *newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn what_was_read_by_a_time_is_what_a_pass_before_it_printed() {
        let mut clock = ClockMap::default();
        // The reader's clock is one second ahead.
        let read = MonoTime(1_000_000_000);
        clock.learn_from_mark(read, read, KernelTime(0));
        let mut passes = Passes::default();
        assert_eq!(passes.read_by(KernelTime(7), &clock), KernelTime(0), "nothing was read");
        let mono = |ms: u64| MonoTime((1000 + ms) * MS);
        for (read, newest) in [(100, 95), (102, 97), (300, 200), (301, 280), (600, 290)] {
            passes.read_up_to(mono(read), KernelTime(newest * MS));
        }
        let by = |ms: u64| passes.read_by(KernelTime(ms * MS), &clock).0 / MS;
        let times = [99, 100, 299, 599, 600];
        assert_eq!(times.map(by), [0, 95, 95, 200, 290]);
        let complete = |ms: u64| passes.advance_to(KernelTime(ms * MS), &clock).0 / MS;
        assert_eq!(times.map(complete), [0, 95, 95, 200, 290]);
    }
}
