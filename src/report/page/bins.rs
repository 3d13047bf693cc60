//! A time series in at most so many equal bins: if more would be needed, neighbours are merged.

use crate::model::KernelTime;

/// More than a page is wide.
const MAX_BINS: usize = 240;
/// How wide the first bins are, in nanoseconds.
const WIDTH: u64 = 10_000_000;

/// What a bin can hold.
pub(crate) trait Bin: Copy {
    /// The bin that covers this one and the next.
    fn merge(self, next: Self) -> Self;
}

/// How much happened in the bin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts<const N: usize>(pub [u64; N]);

/// How things stood at the end of the bin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Levels<const N: usize>(pub [u64; N]);

impl<const N: usize> Bin for Counts<N> {
    fn merge(mut self, next: Self) -> Self {
        self.0.iter_mut().zip(next.0).for_each(|(sum, n)| *sum = sum.saturating_add(n));
        self
    }
}

impl<const N: usize> Bin for Levels<N> {
    fn merge(self, next: Self) -> Self {
        next
    }
}

/// The bins. One that nothing was put into is `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bins<T> {
    start: Option<KernelTime>,
    width: u64,
    bins: Vec<Option<T>>,
}

impl<T> Default for Bins<T> {
    fn default() -> Self {
        Bins { start: None, width: WIDTH, bins: vec![] }
    }
}

impl<T: Bin> Bins<T> {
    /// Merges `value` into the bin of this time. What comes from before the first time goes to the first bin.
    pub(crate) fn put(&mut self, at: KernelTime, value: T) {
        let start = *self.start.get_or_insert(at);
        while at.since(start) / self.width >= MAX_BINS as u64 {
            self.width = self.width.saturating_mul(2);
            let merged = self.bins.chunks(2).map(|pair| match pair {
                [Some(one), Some(next)] => Some(one.merge(*next)),
                [one, next] => one.or(*next),
                [one, ..] => *one,
                [] => None,
            });
            self.bins = merged.collect();
        }
        let i = (at.since(start) / self.width) as usize;
        if i >= self.bins.len() {
            self.bins.resize(i + 1, None);
        }
        self.bins[i] = Some(self.bins[i].map_or(value, |old| old.merge(value)));
    }

    /// Has the first bin begin at this time, unless something is in it already.
    pub(crate) fn begin(&mut self, at: KernelTime) {
        self.start.get_or_insert(at);
    }

    pub(crate) fn start(&self) -> Option<KernelTime> {
        self.start
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.width as f64 / 1e9
    }

    /// The bins from the first on.
    pub(crate) fn get(&self) -> &[Option<T>] {
        &self.bins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_of_time_fits_and_nothing_is_lost() {
        let (mut counts, mut levels) = (Bins::default(), Bins::default());
        for i in 0..100_000u64 {
            let at = KernelTime(77 + i * 3_000_000);
            counts.put(at, Counts([1, i % 2]));
            levels.put(at, Levels([i]));
        }
        counts.put(KernelTime(0), Counts([1, 0]));
        assert!(counts.get().len() <= MAX_BINS && counts.get().len() > MAX_BINS / 2);
        let sum = |n: usize| counts.get().iter().flatten().map(|c| c.0[n]).sum::<u64>();
        assert_eq!((sum(0), sum(1)), (100_001, 50_000));
        assert_eq!(levels.get().last(), Some(&Some(Levels([99_999]))));
        let levels: Vec<u64> = levels.get().iter().flatten().map(|l| l.0[0]).collect();
        assert!(levels.is_sorted());
    }

    #[test]
    fn the_end_of_time_has_a_bin() {
        let mut bins = Bins::default();
        bins.put(KernelTime(0), Counts([1]));
        bins.put(KernelTime(u64::MAX), Counts([1]));
        assert!(bins.get().len() <= MAX_BINS);
    }
}
