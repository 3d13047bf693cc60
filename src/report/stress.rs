//! The report of one run: verdicts, rates, latencies, and whether a tracker can trust this kernel.
//!
//! The exit status is that of [`Soundness`]: 0 sound, 1 unsound, 2 undecided. One thing makes a sound run undecided: the
//! load forked more processes than the witnesses reported births, by more than 5 %.

use serde::Serialize;

use super::advice::advice;
use super::answer::{Soundness, Tally};
use super::by_name::ByName;
use super::format::count_of;
use super::interval::Interval;
use super::kernel::{KernelVersion, regime_by_osreldate};
use super::summary::Summary;
use crate::check::stats::{Histogram, Stats, TreeStats};
use crate::model::{Fact, Regime, Verdict, VerdictClass};

/// What was done to the kernel.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Run {
    /// The load: `enoent, 2,000 rounds`.
    pub load: String,
    /// How many processes the load forked; `None` if that is not known.
    pub forked: Option<u64>,
    /// How long the reader slept between two kevent(2) calls, in milliseconds.
    pub stall_ms: u64,
    /// How long the run took, in seconds.
    pub seconds: f64,
}

/// The whole page, as an object for programs: the keys of [`Summary`] and those below.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Verdicts and counts.
    #[serde(flatten)]
    pub summary: Summary,
    /// Whether a tracker can trust this kernel, and what to do if not.
    pub advice: String,
    /// The kernel.
    pub kernel: KernelVersion,
    /// How it should deliver the notes, by its version.
    pub(crate) regime_expected: Regime,
    /// What was done to it.
    pub run: Run,
    /// How often each verdict falls.
    pub(crate) rates: Rates,
    /// NOTE_CHILD too many for each birth; `None` without births.
    pub duplicates_per_birth: Option<f64>,
    /// From a fact to the kevent(2) return that delivered it.
    pub latency: Latencies,
}

/// Shares of the decided facts (of all facts for `kqueue_only` and `undecided`), with 95 % intervals.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Rates {
    /// Of births, by verdict.
    pub births: ByName<Interval>,
    /// Of deaths, by verdict.
    pub deaths: ByName<Interval>,
}

/// Delivery latencies by note.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Latencies {
    /// NOTE_CHILD, from proc:::create.
    pub child: Latency,
    /// NOTE_EXIT, from proc:::exit.
    pub exit: Latency,
}

/// Upper bounds of quantiles, in nanoseconds: ends of power-of-two buckets. All 0 without values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Latency {
    /// Half of the notes came at least as soon.
    pub p50_ns: u64,
    /// 99 % of the notes came at least as soon.
    pub(crate) p99_ns: u64,
    /// All notes came at least as soon.
    pub(crate) max_ns: u64,
    /// How many notes were measured.
    pub count: u64,
}

impl Report {
    /// The page for these counters.
    pub fn of(stats: &Stats, kernel: KernelVersion, run: Run) -> Report {
        let all = stats.totals();
        let births = Tally::of(&all, Fact::Birth).total();
        let regime_expected = regime_by_osreldate(kernel.osreldate);
        let mut summary = Summary::of(stats);
        let mut advice = advice(stats, summary.decision, regime_expected);
        let unseen = run.forked.filter(|n| births.saturating_mul(20) < n.saturating_mul(19));
        if let (Some(forked), Soundness::Sound) = (unseen, summary.decision) {
            summary.decision = Soundness::Undecided;
            summary.answer = format!(
                "Undecided: the load forked {}, and the witnesses reported {}.",
                count_of(forked, "time"),
                count_of(births, "birth")
            );
            advice = "Whether a tracker can trust this kernel is not known: both witnesses missed processes; run \
                      `kqproc_exporter check`, and report this if it finds nothing."
                .to_owned();
        }
        Report {
            advice,
            regime_expected,
            kernel,
            run,
            rates: Rates { births: rates(&all, Fact::Birth), deaths: rates(&all, Fact::Death) },
            duplicates_per_birth: (births > 0)
                .then(|| all.duplicate_child_notes as f64 / births as f64),
            latency: Latencies {
                child: Latency::of(&all.child_latency),
                exit: Latency::of(&all.exit_latency),
            },
            summary,
        }
    }

    /// The answer without the word that begins it.
    pub(super) fn finding(&self) -> &str {
        let answer = &self.summary.answer;
        answer.split_once(": ").map_or(answer, |(_, finding)| finding)
    }
}

impl Latency {
    pub(super) fn of(histogram: &Histogram) -> Latency {
        Latency {
            p50_ns: histogram.quantile(0.5),
            p99_ns: histogram.quantile(0.99),
            max_ns: histogram.quantile(1.0),
            count: histogram.count(),
        }
    }
}

fn rates(all: &TreeStats, fact: Fact) -> ByName<Interval> {
    ByName::each(|verdict| rate(all, fact, verdict))
}

fn rate(all: &TreeStats, fact: Fact, verdict: Verdict) -> Interval {
    let tally = Tally::of(all, fact);
    let trials = match verdict.class() {
        VerdictClass::Open => tally.total(),
        VerdictClass::Good | VerdictClass::Wrong | VerdictClass::Lost => tally.decided(),
    };
    Interval::wilson(all.of(fact)[verdict.index()], trials)
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::stats;
    use super::*;
    use crate::wire::drops::DropKind;

    fn kernel(osreldate: u32) -> KernelVersion {
        KernelVersion { uname: "FreeBSD 13.2-RELEASE amd64".to_owned(), osreldate }
    }

    fn run(forked: u64) -> Run {
        Run {
            load: "chain, 60 rounds".to_owned(),
            forked: Some(forked),
            stall_ms: 40,
            seconds: 1.25,
        }
    }

    fn chain() -> Stats {
        let mut stats = stats(&[(Verdict::Agreed, 420)], &[(Verdict::Agreed, 421)]);
        stats.regime = Regime::Split;
        stats.trees[0].duplicate_child_notes = 5691;
        stats.records[0] = 919;
        for _ in 0..421 {
            stats.trees[0].exit_latency.add(40_000_000);
        }
        stats
    }

    #[test]
    fn the_object_has_the_keys_of_replay_and_more() {
        let json =
            serde_json::to_value(Report::of(&chain(), kernel(1_302_001), run(420))).expect("json");
        assert_eq!(json["decision"], "sound");
        assert_eq!(json["totals"]["births"]["agreed"], 420);
        assert_eq!(json["regime"], "split");
        assert_eq!(json["regime_expected"], "split");
        assert_eq!(json["rates"]["births"]["lost_silent"]["rate"], 0.0);
        assert_eq!(json["rates"]["deaths"].as_object().expect("object").len(), Verdict::COUNT);
        assert_eq!(json["latency"]["child"]["count"], 0);
        assert_eq!(json["kernel"]["osreldate"], 1_302_001);
        assert_eq!(json["run"]["stall_ms"], 40);
    }

    #[test]
    fn what_both_witnesses_missed_is_not_sound() {
        let decision =
            |forked| Report::of(&chain(), kernel(1_302_001), run(forked)).summary.decision;
        assert_eq!(decision(442), Soundness::Sound);
        assert_eq!(decision(443), Soundness::Undecided);
        let report = Report::of(&chain(), kernel(1_302_001), run(1000));
        assert_eq!(
            report.summary.answer,
            "Undecided: the load forked 1,000 times, and the witnesses reported 420 births."
        );
        assert!(report.advice.contains("both witnesses missed processes"));
        let unsound = stats(&[(Verdict::LostSilent, 1)], &[]);
        let report = Report::of(&unsound, kernel(1_302_001), run(1000));
        assert_eq!(report.summary.decision, Soundness::Unsound, "a loss stays a loss");
    }

    #[test]
    fn errors_are_rated_among_what_was_decided() {
        let mut stats = stats(
            &[(Verdict::Agreed, 30), (Verdict::Overwritten, 10), (Verdict::Undecided, 60)],
            &[],
        );
        stats.drops[DropKind::Principal.index()] = 7;
        let all = stats.totals();
        assert_eq!(rate(&all, Fact::Birth, Verdict::Overwritten).rate, Some(0.25));
        assert_eq!(rate(&all, Fact::Birth, Verdict::Undecided).rate, Some(0.6));
        assert_eq!(rate(&all, Fact::Death, Verdict::Agreed).rate, None);
    }
}
