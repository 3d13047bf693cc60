//! Reconciles DTrace's creates with the kernel's own count of forks (vm.stats.vm.v_forks + v_vforks + v_rforks,
//! bumped in do_fork). If it grows faster than DTrace's creates, DTrace is blind without a report of drops.

use std::collections::VecDeque;

use super::clock::ClockMap;
use crate::model::{KernelTime, MonoTime};

/// A gap below this, or below 1/64 of the forks, is a matter of when each was read.
const TOLERANCE: i64 = 8;

#[derive(Default)]
pub(crate) struct Reconcile {
    samples: VecDeque<ForkSample>,
    last: Option<Baseline>,
    creates: u64,
    /// DTrace saw nothing before this.
    since: KernelTime,
    /// Forks that sysctl counted while DTrace traced, and that it did not show. A new run of dtrace(1) does not set it back: an
    /// alert looks at how it grows.
    pub(crate) delta: i64,
}

struct ForkSample {
    at: MonoTime,
    total: u64,
    /// The creates before the earliest time at which it can have been taken.
    least: Option<u64>,
}

struct Baseline {
    /// The earliest time of the sample.
    from: KernelTime,
    total: u64,
    /// The creates before the earliest and before the latest time of the sample.
    least: u64,
    most: u64,
}

impl Reconcile {
    /// proc:::create fired.
    pub(crate) fn create(&mut self) {
        self.creates += 1;
    }

    /// The counters stood at `total`.
    pub(crate) fn sample(&mut self, at: MonoTime, total: u64) {
        const MAX_SAMPLES: usize = 64;
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(ForkSample { at, total, least: None });
    }

    /// DTrace's order has come to `now`: the span in which it has missed forks, if there is one.
    pub(crate) fn advance(
        &mut self,
        now: KernelTime,
        clock: &ClockMap,
    ) -> Option<(KernelTime, KernelTime)> {
        let first = self.samples.front()?.at;
        let creates = self.creates;
        for sample in self.samples.iter_mut().filter(|sample| sample.least.is_none()) {
            if clock.earliest(sample.at).is_none_or(|at| at > now) {
                break;
            }
            sample.least = Some(creates);
        }
        let to = clock.latest(first).filter(|at| *at <= now)?;
        let ForkSample { at, total, least } = self.samples.pop_front()?;
        let from = clock.earliest(at).filter(|at| *at >= self.since)?;
        let new = Baseline { from, total, least: least.unwrap_or(creates), most: creates };
        let old = self.last.replace(new)?;
        // The counters come from outside: no value of theirs may overflow.
        let forks = i64::try_from(total.saturating_sub(old.total)).unwrap_or(i64::MAX);
        self.delta = self.delta.saturating_add(forks.saturating_sub_unsigned(creates - old.most));
        // It is not known when exactly the counters were read: only what no time explains is missing.
        let gap = forks.saturating_sub_unsigned(creates - old.least);
        (gap > TOLERANCE.max(forks / 64)).then_some((old.from, to))
    }

    /// DTrace was away: the counters of that time say nothing about it.
    pub(crate) fn restart(&mut self) {
        self.samples.clear();
        self.last = None;
    }

    /// DTrace traces since `at`.
    pub(crate) fn begins(&mut self, at: KernelTime) {
        self.since = at;
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// The reader's clock is 100 s ahead of DTrace's, and known to lie within 200 ms: the reader was idle.
    fn idle_clock() -> ClockMap {
        let mut clock = ClockMap::default();
        let (before, after) = (MonoTime(100_000 * MS), MonoTime(100_200 * MS));
        clock.learn_from_mark(before, after, KernelTime(200 * MS));
        clock
    }

    /// A load of a fork each millisecond from `from` to `to` milliseconds, of which DTrace shows those that `shown`
    /// says, and samples at these times: the first window.
    fn window(
        samples: &[u64],
        load: std::ops::Range<u64>,
        shown: fn(u64) -> bool,
    ) -> Option<(KernelTime, KernelTime)> {
        let (mut reconcile, clock) = (Reconcile::default(), idle_clock());
        reconcile.begins(KernelTime(300 * MS));
        for ms in samples {
            let total = (*ms).clamp(load.start, load.end) - load.start;
            reconcile.sample(MonoTime((100_000 + ms) * MS), total);
        }
        (300..10_000).find_map(|ms| {
            if load.contains(&ms) && shown(ms) {
                reconcile.create();
            }
            reconcile.advance(KernelTime(ms * MS), &clock)
        })
    }

    #[test]
    fn forks_that_dtrace_does_not_show_are_a_blind_window() {
        let (from, to) = (KernelTime(3100 * MS), KernelTime(3600 * MS));
        let missed = window(&[1000, 3000, 5000], 2000..4000, |ms| !(3100..3600).contains(&ms));
        assert!(missed.is_some_and(|window| window.0 < from && window.1 > to), "{missed:?}");
    }

    #[test]
    fn a_load_that_begins_or_ends_about_a_sample_is_no_gap() {
        for sample in [1700, 1900, 1990, 2000, 2010, 2100, 3900, 4000, 4100] {
            assert_eq!(window(&[500, sample, 6000], 2000..4000, |_| true), None, "{sample}");
        }
    }

    #[test]
    fn what_was_forked_before_dtrace_traced_is_no_gap() {
        for sample in [100, 250, 300, 310, 500] {
            assert_eq!(window(&[sample, 2000, 4000], 0..9000, |_| true), None, "{sample}");
        }
    }
}
