//! What `stress` prints at its end: one page that says whether a tracker may trust this kernel.
//!
//! The exit status is that of [`Answer`]: 0 sound, 1 unsound, 2 undecided. One thing makes a sound run undecided: the
//! load forked more processes than the witnesses reported births, by more than 5 %.

use std::fmt::Write as _;

use serde::Serialize;

use super::advice::advice;
use super::answer::{Answer, Tally, totals};
use super::format::{Hue, Paint, count_of, duration, printable, thousands};
use super::interval::Interval;
use super::kernel::{Kernel, regime_by_osreldate};
use super::summary::{ByWord, Summary, hindsight, row_hue, witness};
use crate::check::stats::{Histogram, Stats, TreeStats};
use crate::model::{Fact, Regime, Verdict};

/// What was done to the kernel.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Run {
    /// The load in words: `enoent, 2,000 rounds`.
    pub load: String,
    /// How many processes the load forked; `None` where it cannot tell.
    pub forked: Option<u64>,
    /// The fflags that were asked for; 0 if that is not known.
    #[serde(skip)]
    pub notes: u32,
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
    pub kernel: Kernel,
    /// How it should deliver the notes, by its version.
    pub regime_expected: Regime,
    /// What was done to it.
    pub run: Run,
    /// How often each verdict falls.
    pub rates: Rates,
    /// NOTE_CHILD too many for each birth; `None` without births.
    pub duplicates_per_birth: Option<f64>,
    /// From a fact to the kevent(2) return that delivered it.
    pub latency: Latencies,
}

/// Shares of the decided facts (of all facts for `kqueue_only` and `undecided`), with 95 % intervals.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rates {
    /// Of births, by verdict.
    pub births: ByWord<Interval>,
    /// Of deaths, by verdict.
    pub deaths: ByWord<Interval>,
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
    pub p99_ns: u64,
    /// All notes came at least as soon.
    pub max_ns: u64,
    /// How many notes were measured.
    pub count: u64,
}

impl Report {
    /// The page for these counters.
    pub fn of(stats: &Stats, kernel: Kernel, run: Run) -> Report {
        let all = totals(stats);
        let births = Tally::of(&all, Fact::Birth).total();
        let regime_expected = regime_by_osreldate(kernel.osreldate);
        let mut summary = Summary::of(stats);
        let mut advice = advice(stats, summary.decision, regime_expected, run.notes);
        let unseen = run.forked.filter(|n| births.saturating_mul(20) < n.saturating_mul(19));
        if let (Some(forked), Answer::Sound) = (unseen, summary.decision) {
            summary.decision = Answer::Undecided;
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

    /// The page for a person.
    pub fn text(&self, stats: &Stats, paint: Paint) -> String {
        let mut out = paint.dye(self.summary.decision.hue(), &self.summary.answer);
        let _ = writeln!(out, "\n{}\n", self.advice);
        self.circumstances(&mut out);
        out + &self.details(stats, paint)
    }

    /// The page without its answer: every verdict with its rate, and what is counted by event.
    pub fn details(&self, stats: &Stats, paint: Paint) -> String {
        let (all, mut out) = (totals(stats), String::new());
        facts(&mut out, &all, paint);
        self.events(&mut out, &all);
        witness(&mut out, stats);
        out
    }

    fn circumstances(&self, out: &mut String) {
        let Report { kernel, run, .. } = self;
        let _ = write!(out, "kernel    {}", printable(&kernel.uname));
        if kernel.osreldate > 0 {
            let _ =
                write!(out, ", osreldate {}, should be {}", kernel.osreldate, self.regime_expected);
        }
        let _ = write!(out, "\nload      {}, {:.1} s", run.load, run.seconds);
        if run.stall_ms > 0 {
            let _ = write!(out, ", reader stalled {} ms a call", run.stall_ms);
        }
        out.push_str("\n\n");
    }

    fn events(&self, out: &mut String, all: &TreeStats) {
        let _ = write!(
            out,
            "\nnotes     {}",
            count_of(all.duplicate_child_notes, "duplicate NOTE_CHILD note")
        );
        if let Some(each) = self.duplicates_per_birth.filter(|each| *each > 0.0) {
            let _ = write!(out, " ({each:.2} a birth)");
        }
        let _ = writeln!(
            out,
            ", {}, {}, {}",
            count_of(all.collisions.iter().sum(), "collision"),
            count_of(all.trackerr_reports, "NOTE_TRACKERR report"),
            count_of(all.order_violations.iter().sum(), "order violation")
        );
        for (note, latency) in
            [("NOTE_CHILD", self.latency.child), ("NOTE_EXIT", self.latency.exit)]
        {
            let _ = writeln!(out, "latency   {note:<10} {}", latency.told());
        }
        let [damage, recovered] = hindsight(all);
        for (name, what) in [("damage", damage), ("recovered", recovered)] {
            if !what.is_empty() {
                let _ = writeln!(out, "{name:<10}{what}");
            }
        }
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

    fn told(&self) -> String {
        if self.count == 0 {
            return "not measured".to_owned();
        }
        let Latency { p50_ns, p99_ns, max_ns, .. } = *self;
        format!(
            "at most {} (p50), {} (p99), {} (all)",
            duration(p50_ns),
            duration(p99_ns),
            duration(max_ns)
        )
    }
}

fn rates(all: &TreeStats, fact: Fact) -> ByWord<Interval> {
    ByWord::new(Verdict::ALL.iter().map(|v| (v.as_str(), rate(all, fact, *v))))
}

fn rate(all: &TreeStats, fact: Fact, verdict: Verdict) -> Interval {
    let tally = Tally::of(all, fact);
    let trials = match verdict {
        Verdict::KqueueOnly | Verdict::Undecided => tally.total(),
        _ => tally.decided(),
    };
    Interval::wilson(all.of(fact)[verdict.index()], trials)
}

/// Births and deaths by verdict side by side, each with its rate.
fn facts(out: &mut String, all: &TreeStats, paint: Paint) {
    let title = format!(
        "{:<15}{:>10}  {:<28}{:>10}  {}",
        "", "births", "rate, 95 % interval", "deaths", "rate, 95 % interval"
    );
    let _ = writeln!(out, "{}", paint.dye(Hue::Title, &title));
    for verdict in Verdict::ALL {
        let (births, deaths) = (all.births[verdict.index()], all.deaths[verdict.index()]);
        let line = format!(
            "{verdict:<15}{:>10}  {:<28}{:>10}  {}",
            thousands(births),
            rate(all, Fact::Birth, *verdict).told(),
            thousands(deaths),
            rate(all, Fact::Death, *verdict).told()
        );
        let _ = writeln!(out, "{}", paint.dye(row_hue(*verdict, births + deaths), &line));
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::stats;
    use super::*;
    use crate::wire::drops::DropKind;

    fn kernel(osreldate: u32) -> Kernel {
        Kernel { uname: "FreeBSD 13.2-RELEASE amd64".to_owned(), osreldate }
    }

    fn run(forked: u64) -> Run {
        Run {
            load: "chain, 60 rounds".to_owned(),
            forked: Some(forked),
            notes: 0,
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
    fn the_page_reads_well() {
        let stats = chain();
        let report = Report::of(&stats, kernel(1_302_001), run(420));
        assert_eq!(
            report.text(&stats, Paint::Plain),
            "\
Sound: kqueue told the truth about all of 420 births and 421 deaths.
A tracker can trust this kernel under this load, if it ignores repeated NOTE_CHILD notes.

kernel    FreeBSD 13.2-RELEASE amd64, osreldate 1302001, should be split
load      chain, 60 rounds, 1.2 s, reader stalled 40 ms a call

                   births  rate, 95 % interval             deaths  rate, 95 % interval
agreed                420  100 %, above 99.09                 421  100 %, above 99.10
overwritten             0  0, below 0.91 %                      0  0, below 0.90 %
corrupt                 0  0, below 0.91 %                      0  0, below 0.90 %
lost_reported           0  0, below 0.91 %                      0  0, below 0.90 %
lost_silent             0  0, below 0.91 %                      0  0, below 0.90 %
lost_inherited          0  0, below 0.91 %                      0  0, below 0.90 %
kqueue_only             0  0, below 0.91 %                      0  0, below 0.90 %
undecided               0  0, below 0.91 %                      0  0, below 0.90 %

notes     5,691 duplicate NOTE_CHILD notes (13.55 a birth), 0 collisions, 0 NOTE_TRACKERR reports, 0 order violations
latency   NOTE_CHILD not measured
latency   NOTE_EXIT  at most 67.1 ms (p50), 67.1 ms (p99), 67.1 ms (all)
recovered dedupe 5,691
regime    split
dtrace    919 records, 0 undecodable lines, 0 drops
blind     0.000 s
"
        );
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
        assert_eq!(decision(442), Answer::Sound);
        assert_eq!(decision(443), Answer::Undecided);
        let report = Report::of(&chain(), kernel(1_302_001), run(1000));
        assert_eq!(
            report.summary.answer,
            "Undecided: the load forked 1,000 times, and the witnesses reported 420 births."
        );
        assert!(report.advice.contains("both witnesses missed processes"));
        let unsound = stats(&[(Verdict::LostSilent, 1)], &[]);
        let report = Report::of(&unsound, kernel(1_302_001), run(1000));
        assert_eq!(report.summary.decision, Answer::Unsound, "a loss stays a loss");
    }

    #[test]
    fn errors_are_rated_among_what_was_decided() {
        let mut stats = stats(
            &[(Verdict::Agreed, 30), (Verdict::Overwritten, 10), (Verdict::Undecided, 60)],
            &[],
        );
        stats.drops[DropKind::Principal.index()] = 7;
        let all = totals(&stats);
        assert_eq!(rate(&all, Fact::Birth, Verdict::Overwritten).rate, Some(0.25));
        assert_eq!(rate(&all, Fact::Birth, Verdict::Undecided).rate, Some(0.6));
        assert_eq!(rate(&all, Fact::Death, Verdict::Agreed).rate, None);
    }
}
