//! How good the detection is: the scores of many simulated runs, as a page in Markdown.

use std::fmt::Write;

use super::grid::{self, REGIMES, Visibility};
use super::score::{Class, Miss, Score, play, shortest};
use crate::model::{Fact, Verdict, named_enum};

named_enum! {
    /// Whether the cause probes are traced. Every run is made both ways.
    enum CauseProbes {
        Without = "without causes",
        With = "with causes",
    }
}

/// The scores of a swarm, apart without and with causes, for each [`Visibility`] and each regime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quality {
    scores: [[[Score; REGIMES.len()]; Visibility::COUNT]; CauseProbes::COUNT],
    consumers: [Score; Visibility::COUNT],
}

/// One run of so many has consumers: of all kernels, whose turns come every third run.
const CONSUMERS_EVERY: u64 = 5;

/// A share counts as 1 if it is written as 1.000.
fn is_one(share: Option<f64>) -> bool {
    share.is_none_or(|share| share >= 0.9995)
}

/// Whether nothing is missed or mistaken in this class.
fn is_exact(class: &Class) -> bool {
    is_one(class.precision()) && is_one(class.recall())
}

/// Whether no verdict accuses the kernel without reason.
fn accuses_rightly(classes: &[Class; Verdict::COUNT]) -> bool {
    let verdicts = Verdict::ALL.iter().filter(|verdict| !verdict.is_good());
    verdicts.map(|verdict| classes[verdict.index()].precision()).all(is_one)
}

impl Quality {
    /// Runs case number `n` of the grid, without causes and with them, and counts it.
    pub(crate) fn add(&mut self, n: u64) {
        let mut case = grid::case(n);
        let regime = REGIMES.iter().position(|r| *r == case.options.regime).unwrap_or(0);
        for (scores, causes) in self.scores.iter_mut().zip(CauseProbes::ALL) {
            case.options.causes = *causes == CauseProbes::With;
            scores[case.visibility().index()][regime].merge(Score::of_case(&case));
        }
        if n.is_multiple_of(CONSUMERS_EVERY) {
            let case = grid::case_of_consumers(n);
            let (truth, findings) = play(&case);
            let score = Score::of_consumers(&case, &truth, &findings);
            self.consumers[case.visibility().index()].merge(score);
        }
    }

    /// Adds what another thread counted.
    pub(crate) fn merge(&mut self, other: Quality) {
        let Quality { scores, consumers } = other;
        let scores =
            self.scores.iter_mut().flatten().flatten().zip(scores.into_iter().flatten().flatten());
        let consumers = self.consumers.iter_mut().zip(consumers);
        scores.chain(consumers).for_each(|(mine, theirs)| mine.merge(theirs));
    }

    /// All regimes together.
    fn total(&self, causes: CauseProbes, visibility: Visibility) -> Score {
        let mut sum = Score::default();
        let scores = &self.scores[causes.index()][visibility.index()];
        scores.iter().for_each(|score| sum.merge(score.clone()));
        sum
    }

    /// What the runs are asked to show, and whether they do.
    fn goals(&self, causes: CauseProbes) -> [(&'static str, bool); 4] {
        let [clear, blind, unsure] = [Visibility::Clear, Visibility::Blind, Visibility::Unsure]
            .map(|visibility| self.total(causes, visibility));
        let consumers = self.consumers.iter().flat_map(|score| &score.classes);
        [
            (
                "DTrace saw everything: precision and recall are 1.000 in every class",
                clear.classes.iter().flatten().all(is_exact),
            ),
            (
                "DTrace was blind at times, or had a wrong clock: precision is 1.000 in every class that accuses the kernel",
                blind.classes.iter().chain(&unsure.classes).all(accuses_rightly),
            ),
            (
                "DTrace was blind at times: undecided is less than twice what really overlaps a drop",
                blind.undecided() < 2 * blind.overlapping,
            ),
            (
                "Consumers: precision is 1.000 in every class that accuses the kernel",
                { consumers }.all(accuses_rightly),
            ),
        ]
    }

    pub(crate) fn markdown(&self) -> String {
        let mut page = String::from(INTRODUCTION);
        let [without, with] = [CauseProbes::Without, CauseProbes::With];
        let _ = writeln!(page, "\n## Goals\n\n| goal | {without} | {with} |\n|---|---|---|");
        let yes_or_no = |is_met: bool| if is_met { "yes" } else { "**no**" };
        for ((goal, without), (_, with)) in self.goals(without).into_iter().zip(self.goals(with)) {
            let _ = writeln!(page, "| {goal} | {} | {} |", yes_or_no(without), yes_or_no(with));
        }
        for &visibility in Visibility::ALL {
            for &causes in CauseProbes::ALL {
                let _ = write!(page, "\n## DTrace {visibility}, {causes}");
                classes(&mut page, &self.total(causes, visibility));
            }
        }
        self.regimes(&mut page);
        page.push_str(CONSUMERS);
        for (visibility, score) in Visibility::ALL.iter().zip(&self.consumers) {
            let _ = write!(page, "\n### DTrace {visibility}");
            classes(&mut page, score);
        }
        self.misses(&mut page);
        page
    }

    fn regimes(&self, page: &mut String) {
        let _ = writeln!(
            page,
            "\n## By kernel\n\n| kernel | DTrace | runs | facts | wrong | undecided | really blind | ratio |\n\
             |---|---|---:|---:|---:|---:|---:|---:|"
        );
        for (causes, scores) in CauseProbes::ALL.iter().zip(&self.scores) {
            for (visibility, scores) in Visibility::ALL.iter().zip(scores) {
                for (regime, score) in REGIMES.iter().zip(scores) {
                    let _ = writeln!(
                        page,
                        "| {regime} | {visibility}, {causes} | {}",
                        share_of_facts(score)
                    );
                }
            }
        }
    }

    fn misses(&self, page: &mut String) {
        let _ = writeln!(page, "\n## What goes wrong, and the shortest run that shows it\n");
        let mirrors = CauseProbes::ALL.iter().flat_map(|causes| {
            let scores = Visibility::ALL.iter().map(|visibility| self.total(*causes, *visibility));
            Visibility::ALL.iter().zip(scores).map(|part| (causes.as_str(), part))
        });
        let consumers = Visibility::ALL.iter().zip(self.consumers.clone());
        let mut is_faultless = true;
        for (name, (visibility, score)) in mirrors.chain(consumers.map(|part| ("consumers", part)))
        {
            let Score { misses, facts, .. } = score;
            let mut misses: Vec<_> = misses.iter().collect();
            misses.sort_by_key(|(miss, found)| (std::cmp::Reverse(found.times), **miss));
            for (miss, found) in misses {
                is_faultless = false;
                let (times, why) = (found.times, why(miss, *visibility));
                let _ = writeln!(
                    page,
                    "- {miss}: {times} of {facts} facts (DTrace {visibility}, {name}). {why}"
                );
                let _ = writeln!(page, "  `simulate {}`", shortest(miss, &found.case));
            }
        }
        if is_faultless {
            page.push_str("Nothing.\n");
        }
    }
}

/// The last cells of a row about a kernel.
fn share_of_facts(score: &Score) -> String {
    let wrong: u64 = score.misses.values().map(|found| found.times).sum();
    let share = |n: u64| 100.0 * n as f64 / score.facts.max(1) as f64;
    let ratio = match score.overlapping {
        0 => "-".to_string(),
        overlapping => format!("{:.2}", score.undecided() as f64 / overlapping as f64),
    };
    format!(
        "{} | {} | {wrong} | {:.1} % | {:.1} % | {ratio} |",
        score.runs,
        score.facts,
        share(score.undecided()),
        share(score.overlapping),
    )
}

/// How many facts there were, and one row for each class that a fact really had, or that a verdict named.
fn classes(page: &mut String, score: &Score) {
    let _ = writeln!(
        page,
        "\n\n{} runs, {} facts.\n\n| fact | class | facts | decided | verdicts | precision | recall | undecided | unreported |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|",
        score.runs, score.facts
    );
    let number = |n: Option<f64>| n.map_or("-".to_string(), |n| format!("{n:.5}"));
    for fact in Fact::ALL.iter().copied() {
        for verdict in Verdict::ALL {
            let class: &Class = &score.classes[fact.index()][verdict.index()];
            let facts = class.decided + class.undecided + class.unreported;
            if facts + class.given == 0 {
                continue;
            }
            let undecided = 100.0 * class.undecided as f64 / facts.max(1) as f64;
            let _ = writeln!(
                page,
                "| {fact} | {verdict} | {facts} | {} | {} | {} | {} | {undecided:.1} % | {} |",
                class.decided,
                class.given,
                number(class.precision()),
                number(class.recall()),
                class.unreported,
            );
        }
    }
}

/// Why it can go wrong, if that is known.
fn why(miss: &Miss, visibility: Visibility) -> &'static str {
    use Verdict::{Corrupt, LostReported, LostSilent, Overwritten};
    match (miss.truth, miss.verdict) {
        (_, None) => match visibility {
            Visibility::Clear => {
                "Its forker was not known when it was settled: the create of that came last (kernels up to 10.4 only)."
            }
            Visibility::Blind => {
                "DTrace did not show that its pid had begun a new life, and its notes were taken for further ones of the life \
                 before; or it did not show that its forker belongs to the tree."
            }
            Visibility::Unsure => {
                "A clock had stepped back, and it seemed to have been forked before the tree was watched; or DTrace did not show \
                 that its pid had begun a new life, and its notes were taken for further ones of the life before."
            }
        },
        (Some(LostReported), Some(LostSilent)) | (Some(LostSilent), Some(LostReported)) => {
            "NOTE_TRACKERR is one bit of the forker's knote: which process it is about is known by when it came, or by the \
             cause probes."
        }
        (Some(Corrupt), Some(Overwritten)) => {
            "The create came last or not at all, so it was not known that the data is not the forker's pid."
        }
        _ => "",
    }
}

const CONSUMERS: &str = "
## Consumers

Processes that use kqueue themselves, one to four a run, with or without the mirror beside them; DTrace alone watches them. Each has habits
of its own, which depend on the seed: what it asks for (NOTE_TRACK and NOTE_EXIT, with NOTE_FORK or NOTE_EXEC, NOTE_TRACK
alone, NOTE_EXIT alone or NOTE_EXEC alone on given processes), one kqueue or two, one thread or two for each, how many events a
call has room for, how long it waits and how rarely it reads; EV_ONESHOT, EV_DISPATCH, EV_RECEIPT; registrations that are deleted,
disabled, enabled, changed, or refused; events of other filters between; a kqueue that is closed and opened again; an end in the
middle, and another process that takes its place.

A fact is what a consumer had asked for when it happened. **unreported**: DTrace has not shown that it had.
";

const INTRODUCTION: &str = "\
# Detection quality

How often the cross-checker is right, measured on a simulated kernel that knows the truth. This page is written by
`kqproc_exporter simulate --quality --output docs/quality.md`; a seed and its options repeat a run byte for byte.

Every combination of kernel (split, merged-status, merged-ppid), load shape, reader stall (0, 40, 400 ms), DTrace
buffer (4 MiB, 8 KiB, 2 KiB for each CPU) and failure of knote allocation (0, 0.2 %, 5 %) is run several times. Number of
CPUs, pace, preemption, in-flux and scan windows, children that run before their knote exists, exits that
are lost because their knote is being scanned, scribbled data and an abort of dtrace vary with the seed. In half of the runs
something is wrong with a clock or with the order of the output: the CPUs' clocks are up to 20 ms apart, DTrace's clock or the
reader's jumps by 20 ms to 9 s, forward or back, dtrace prints records twice, or one CPU's buffer after the other. Every run is
made twice, without the cause probes and with them.

A **fact** is the birth or the death of a process of the tree; its **class** is what really became of it.
**precision**: of the verdicts that name this class, the share that is right. **recall**: of the decided facts of this
class, the share that was recognised. **undecided**: the checker says that it cannot know. **unreported**: neither witness
reported the fact (DTrace dropped it and kqueue lost it, or neither showed that its forker belongs to the tree). **really blind**: the share of facts whose probe fired while
DTrace was dropping records of some CPU, or was not running.

**What lost_reported means.** NOTE_TRACKERR is one bit of the forker's knote. It does not name the child, and one delivery may
stand for several failures. Without the cause probes a loss is called reported if a NOTE_TRACKERR of the forker covers it: on
DTrace's clock it came at most 50 ms before the create, and with the first call at the latest that began after a drain 50 ms
behind the create. A tracker that lists the forker's children at each NOTE_TRACKERR finds every such child, also one that was
passed over silently while another one failed. What no NOTE_TRACKERR covers is lost_silent. Both are certain losses: what
NOTE_TRACKERR leaves open is their cause, which the cause probes show. A child of a forker that was lost itself is called
lost_inherited, unless a NOTE_TRACKERR covers it.

With the cause probes (R and S records, in the same stream and announced by its c record) it is known whose registration failed:
lost_reported is a process that an R record names and a NOTE_TRACKERR covers, and nothing else. If nothing of DTrace's records
is missing there, the want of an R record is evidence too. So the two halves of this page score the same runs by these two
meanings.

**Where a certain loss stays undecided.** A process that was forked within 50 ms of the registration of its forker may have
been forked before it. These runs fork from their first millisecond on, so that is most of what is undecided while DTrace saw
everything.

**Pids that come back.** In a quarter of the runs of most shapes the pids run from 100 to 300, so that each comes back after about
a second; with shape pidreuse after a tenth of that. A pid that is used again before both facts of its last life are decided makes
both lives undecided, and so does a time in which DTrace was blind and pids began anew.
";
