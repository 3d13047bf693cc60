//! The last hour in samples, for rates and sparklines.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::check::stats::{Stats, TreeStats};
use crate::model::Verdict;

/// How far apart samples are.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// How many are kept: an hour and its beginning.
const KEPT: usize = 361;
/// What "now" means for a rate.
const RECENT: Duration = Duration::from_secs(60);
/// Points of a sparkline: one for each half minute.
const POINTS: usize = 120;

/// Totals at one time.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Sample {
    at: Instant,
    verdicts: [u64; Verdict::COUNT],
    trees: Vec<TreeTotals>,
}

/// Facts of one tree.
#[derive(Clone, PartialEq, Debug)]
struct TreeTotals {
    all: u64,
    disagreed: u64,
}

impl Sample {
    pub(super) fn of(stats: &Stats, at: Instant) -> Sample {
        let mut verdicts = [0; Verdict::COUNT];
        for tree in &stats.trees {
            for verdict in Verdict::ALL {
                verdicts[verdict.index()] += count(tree, *verdict);
            }
        }
        let totals = |tree: &TreeStats| TreeTotals {
            all: Verdict::ALL.iter().map(|v| count(tree, *v)).sum(),
            disagreed: Verdict::ALL.iter().filter(|v| !v.is_good()).map(|v| count(tree, *v)).sum(),
        };
        Sample { at, verdicts, trees: stats.trees.iter().map(totals).collect() }
    }
}

/// Births and deaths with this verdict.
pub(super) fn count(tree: &TreeStats, verdict: Verdict) -> u64 {
    tree.births[verdict.index()] + tree.deaths[verdict.index()]
}

/// A series that can be drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Series {
    Verdict(Verdict),
    Tree(usize),
    /// Of this tree, what did not agree.
    Disagreed(usize),
}

impl Series {
    fn total(self, sample: &Sample) -> u64 {
        match self {
            Series::Verdict(verdict) => sample.verdicts[verdict.index()],
            Series::Tree(tree) => sample.trees.get(tree).map_or(0, |t| t.all),
            Series::Disagreed(tree) => sample.trees.get(tree).map_or(0, |t| t.disagreed),
        }
    }
}

/// The samples of the last hour.
#[derive(Default)]
pub(super) struct History(Mutex<VecDeque<Sample>>);

impl History {
    pub(super) fn add(&self, sample: Sample) {
        let mut samples = self.samples();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The hour up to `now`, to be drawn without holding anything.
    pub(super) fn hour(&self, now: Sample) -> Hour {
        let mut samples: Vec<Sample> = self.samples().iter().cloned().collect();
        samples.push(now);
        Hour { samples }
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An hour of samples, the newest one last; never empty.
pub(super) struct Hour {
    samples: Vec<Sample>,
}

impl Hour {
    /// A second's worth of the last minute; `None` before there is anything to compare with.
    pub(super) fn rate(&self, series: Series) -> Option<f64> {
        let newest = self.samples.last()?;
        let age = |sample: &&Sample| newest.at.saturating_duration_since(sample.at);
        let before = self.samples.iter().rev().skip(1);
        let oldest = before.take_while(|s| age(s) <= RECENT + STEP / 2).last()?;
        per_second(series, oldest, newest)
    }

    /// The rate over the hour in equal steps, the newest one last.
    pub(super) fn rates(&self, series: Series) -> Vec<f64> {
        let stride = self.samples.len().div_ceil(POINTS).max(1);
        let mut marks: Vec<&Sample> = self.samples.iter().rev().step_by(stride).collect();
        marks.reverse();
        marks.windows(2).filter_map(|pair| per_second(series, pair[0], pair[1])).collect()
    }
}

/// Counters that went back began anew.
fn per_second(series: Series, from: &Sample, to: &Sample) -> Option<f64> {
    let seconds = to.at.saturating_duration_since(from.at).as_secs_f64();
    let more = series.total(to).saturating_sub(series.total(from));
    (seconds > 0.0).then(|| more as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: Instant, seconds: u64, agreed: u64) -> Sample {
        let mut tree = TreeStats::default();
        tree.births[Verdict::Agreed.index()] = agreed;
        tree.deaths[Verdict::LostSilent.index()] = 1;
        let stats = Stats { trees: vec![tree], ..Stats::default() };
        Sample::of(&stats, start + Duration::from_secs(seconds))
    }

    const AGREED: Series = Series::Verdict(Verdict::Agreed);

    #[test]
    fn a_rate_is_that_of_the_last_minute() {
        let (history, start) = (History::default(), Instant::now());
        assert_eq!(history.hour(sample(start, 0, 0)).rate(AGREED), None);
        for i in 0..20 {
            history.add(sample(start, i * 10, if i < 12 { 0 } else { (i - 11) * 50 }));
        }
        let hour = history.hour(sample(start, 200, 450));
        assert_eq!(hour.rate(AGREED), Some(5.0));
        assert_eq!(hour.rate(Series::Tree(0)), Some(5.0));
        assert_eq!(hour.rate(Series::Disagreed(0)), Some(0.0));
        assert_eq!(hour.rates(AGREED).len(), 20);
    }

    #[test]
    fn it_keeps_an_hour_and_draws_a_bounded_line() {
        let (history, start) = (History::default(), Instant::now());
        for i in 0..10_000 {
            history.add(sample(start, i * 10, i));
        }
        let hour = history.hour(sample(start, 100_000, 10_000));
        assert_eq!(hour.samples.len(), KEPT + 1);
        let rates = hour.rates(AGREED);
        assert!(rates.len() < POINTS, "{}", rates.len());
        assert!(rates.iter().all(|rate| (rate - 0.1).abs() < 1e-9));
    }
}
