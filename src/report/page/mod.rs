//! The report of a recording or a run: one page for a person (HTML, Markdown) and the same for a program (JSON).

mod bins;
pub(crate) mod chronicle;
mod formats;
mod plots;
mod sections;

use serde::Serialize;

use super::by_name::ByName;
use super::evidence;
use super::kernel::KernelVersion;
use super::paths::{KernelPath, path};
use super::rfc3339;
use super::stress::{Report, Run};
use crate::check::damage::Damage;
use crate::check::finding::Finding;
use crate::check::stats::{Histogram, Stats, TreeStats};
use crate::check::strategies::Strategy;
use crate::model::{Fact, KernelTime, Pid, Verdict, VerdictClass};
use chronicle::{Chronicle, Generation};

/// Where a run comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RunOrigin {
    /// The recording's name, or the load.
    pub source: String,
    /// The note of its recorder.
    pub note: String,
    /// When it began, in nanoseconds since 1970; 0 if that is not known.
    pub start_real_ns: u64,
    /// The D program.
    pub program: String,
}

/// Everything that the page says.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct ReportPage {
    /// The one page of `stress`: the answer, counts, rates, latencies.
    #[serde(flatten)]
    pub report: Report,
    pub origin: RunOrigin,
    /// The release that made the page.
    pub version: &'static str,
    /// How wrong the table of a tracker is at the end that believes every kevent.
    pub damage: ByName<u64>,
    /// What each way to use NOTE_TRACK would have got right.
    pub strategies: ByName<StrategyRow>,
    pub(crate) generations: Vec<Generation>,
    /// The first incidents of each verdict.
    pub incidents: Vec<Incident>,
    /// How many facts are not agreed, of which those are the first.
    pub(crate) incidents_total: u64,
    /// Facts and damage over time.
    pub(crate) over_time: OverTime,
    #[serde(skip)]
    totals: TreeStats,
    #[serde(skip)]
    regime: crate::model::Regime,
}

/// A strategy's figures: of the facts with a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct StrategyRow {
    /// Births of which it knows the parent.
    pub parents: u64,
    /// Births that it counts to the right tree.
    pub members: u64,
    /// Births with a decision.
    pub births: u64,
    /// Deaths that it knows with their status.
    pub ends: u64,
    /// Deaths with a decision.
    pub deaths: u64,
    /// Births that it counts more than once.
    pub repeats: u64,
    /// What it knows and one kqueue alone does not.
    pub recovered: u64,
}

/// A fact that is not agreed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Incident {
    /// On DTrace's clock, in nanoseconds.
    pub at: KernelTime,
    /// The same as a person writes it; `None` if that is not known.
    pub time: Option<String>,
    pub tree: String,
    pub pid: Pid,
    pub fact: Fact,
    pub verdict: Verdict,
    pub dtrace: String,
    pub kqueue: String,
    pub path: KernelPath,
}

/// Equal bins from the beginning of the run on.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct OverTime {
    /// The width of a bin of `verdicts`, in seconds.
    pub(crate) verdicts_bin_seconds: f64,
    /// Facts by verdict, at the time when they happened.
    pub verdicts: ByName<Vec<u64>>,
    /// The width of a bin of `damage`, in seconds.
    pub(crate) damage_bin_seconds: f64,
    /// Tree damage at the end of each bin.
    pub damage: ByName<Vec<u64>>,
}

impl ReportPage {
    /// The page for these counters.
    pub(crate) fn of(
        stats: &Stats,
        chronicle: &Chronicle,
        kernel: KernelVersion,
        run: Run,
        origin: RunOrigin,
    ) -> ReportPage {
        let totals = stats.totals();
        let not_agreed = |by: &[u64; Verdict::COUNT]| {
            let verdicts = Verdict::ALL.iter().filter(|verdict| !verdict.is_good());
            verdicts.map(|verdict| by[verdict.index()]).sum::<u64>()
        };
        ReportPage {
            report: Report::of(stats, kernel, run),
            origin,
            version: env!("CARGO_PKG_VERSION"),
            damage: ByName::each(|damage: Damage| totals.damage[damage.index()]),
            strategies: ByName::each(|strategy| StrategyRow::of(strategy, &totals)),
            generations: chronicle.generations().to_vec(),
            incidents: chronicle.incidents().iter().map(|i| Incident::of(i, stats)).collect(),
            incidents_total: not_agreed(&totals.births) + not_agreed(&totals.deaths),
            over_time: OverTime::of(chronicle),
            totals,
            regime: stats.regime,
        }
    }
}

impl StrategyRow {
    /// The row of this strategy.
    pub fn of(strategy: Strategy, totals: &TreeStats) -> StrategyRow {
        let right = totals.strategies[strategy.index()];
        let decided = |by: &[u64; Verdict::COUNT]| {
            let decided = Verdict::ALL.iter().filter(|v| v.class() != VerdictClass::Open);
            decided.map(|v| by[v.index()]).sum()
        };
        StrategyRow {
            parents: right.parents,
            members: right.members,
            births: decided(&totals.births),
            ends: right.ends,
            deaths: decided(&totals.deaths),
            repeats: match strategy {
                Strategy::Dedupe => 0,
                _ => totals.duplicate_child_notes,
            },
            recovered: totals.recovered(strategy),
        }
    }
}

impl Incident {
    fn of(finding: &Finding, stats: &Stats) -> Incident {
        let at = evidence::happened(finding);
        Incident {
            at,
            time: stats.wall_of(at).map(rfc3339::utc),
            tree: evidence::tree_name(finding, stats).to_owned(),
            pid: finding.pid,
            fact: finding.fact,
            verdict: finding.verdict,
            dtrace: evidence::dtrace_summary(finding),
            kqueue: evidence::kqueue_summary(finding, evidence::tree_name(finding, stats)),
            path: path(finding, stats.regime),
        }
    }
}

impl OverTime {
    fn of(chronicle: &Chronicle) -> OverTime {
        let verdicts = chronicle.verdicts.get();
        let of_verdict = |v: Verdict| {
            verdicts.iter().map(|bin| bin.map_or(0, |counts| counts.0[v.index()])).collect()
        };
        let of_damage = |d: Damage| {
            let mut last = 0;
            let levels = chronicle.damage.get().iter().map(|bin| {
                last = bin.map_or(last, |levels| levels.0[d.index()]);
                last
            });
            levels.collect()
        };
        OverTime {
            verdicts_bin_seconds: chronicle.verdicts.seconds(),
            verdicts: ByName::each(of_verdict),
            damage_bin_seconds: chronicle.damage.seconds(),
            damage: ByName::each(of_damage),
        }
    }
}

/// How many notes took so long.
struct LatencyBucket {
    /// The upper end, in nanoseconds.
    end_ns: u64,
    child: u64,
    exit: u64,
}

/// The buckets of both latencies from the first to the last that holds anything. What took less than a microsecond is in the
/// first.
fn latency_buckets(child: &Histogram, exit: &Histogram) -> Vec<LatencyBucket> {
    const MICROSECOND: usize = 10;
    let both = || child.buckets.iter().zip(&exit.buckets).enumerate();
    let used = |(i, (child, exit)): (usize, (&u64, &u64))| (child + exit > 0).then_some(i);
    let (Some(first), Some(last)) = (both().find_map(used), both().filter_map(used).next_back())
    else {
        return vec![];
    };
    let first = first.max(MICROSECOND);
    let upto = |counts: &Histogram, i: usize| match i == first {
        true => counts.buckets[..=i].iter().sum(),
        false => counts.buckets[i],
    };
    let bucket =
        |i| LatencyBucket { end_ns: 1u64 << i, child: upto(child, i), exit: upto(exit, i) };
    (first..=last.max(first)).map(bucket).collect()
}

#[cfg(test)]
mod tests;
