//! The third witness: the kernel's own count of forks (vm.stats.vm.v_forks + v_vforks + v_rforks, bumped in do_fork).
//! Where it grows faster than DTrace's creates, DTrace is blind without saying so.

use std::collections::VecDeque;

use super::clock::ClockMap;
use crate::model::{KernelTime, MonoTime};

/// A gap below this, or below 1/64 of the forks, is a matter of when each was read.
const TOLERANCE: i64 = 8;

#[derive(Default)]
pub(crate) struct Reconcile {
    samples: VecDeque<(MonoTime, u64)>,
    last: Option<Baseline>,
    creates: u64,
    /// Forks that sysctl counted and DTrace did not show, since both began.
    pub(crate) delta: i64,
}

struct Baseline {
    at: KernelTime,
    total: u64,
    creates: u64,
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
        self.samples.push_back((at, total));
    }

    /// DTrace's order has come to `now`: the span in which it has missed forks, where there is one.
    pub(crate) fn advance(
        &mut self,
        now: KernelTime,
        clock: &ClockMap,
    ) -> Option<(KernelTime, KernelTime)> {
        let (mono, total) = *self.samples.front()?;
        let at = clock.latest(mono).filter(|at| *at <= now)?;
        self.samples.pop_front();
        let new = Baseline { at, total, creates: self.creates };
        let old = self.last.replace(new)?;
        let forks = i64::try_from(total.saturating_sub(old.total)).unwrap_or(i64::MAX);
        let gap = forks.saturating_sub_unsigned(self.creates - old.creates);
        self.delta = self.delta.saturating_add(gap);
        (gap > TOLERANCE.max(forks / 64)).then_some((old.at, at))
    }

    /// DTrace was away: the counters of that time say nothing about it.
    pub(crate) fn restart(&mut self) {
        self.samples.clear();
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_gap_is_a_blind_window() {
        let (mut r, mut clock) = (Reconcile::default(), ClockMap::default());
        clock.read(KernelTime(0), MonoTime(1));
        let at = |r: &mut Reconcile, n: u64| r.advance(KernelTime(n * 20_000_000_000), &clock);
        r.sample(MonoTime(1), 1000);
        assert_eq!(at(&mut r, 1), None);
        (0..100).for_each(|_| r.create());
        r.sample(MonoTime(10_000_000_000), 1103);
        assert_eq!(at(&mut r, 2), None);
        assert_eq!(r.delta, 3);
        r.sample(MonoTime(20_000_000_000), 1203);
        assert!(at(&mut r, 3).is_some());
        assert_eq!(r.delta, 103);
    }
}
