//! The report card of a kernel: a row for each load that was run on it, and on top one sentence that says whether a
//! process tracker can trust the kernel and what it must do.

use std::fmt::Write as _;

use serde::Serialize;

use super::advice::{advice, conditions, sound};
use super::answer::{Soundness, Tally, wrongs};
use super::exit_race::ExitRace;
use super::format::{Hue, Paint, count_of, duration, printable, thousands};
use super::html::{Header, capital, page};
use super::kernel::{KernelVersion, regime_by_osreldate};
use super::section::{Block, Section};
use super::stress::{Latency, Report, Run};
use super::table::Table;
use crate::check::stats::{Stats, TreeStats};
use crate::model::{Fact, Regime, Shape, note};

/// A load and what the witnesses counted while it ran.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// What the processes did.
    pub shape: Shape,
    /// How it was run.
    pub run: Run,
    /// The counters at its end.
    pub stats: Stats,
}

/// The whole card, as an object for programs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Card {
    /// Sound, unsound or undecided: the worst of all runs.
    pub decision: Soundness,
    /// Whether a tracker can trust this kernel, and what it must do.
    pub answer: String,
    /// The kernel.
    pub kernel: KernelVersion,
    /// What the kevents of all runs have shown of it.
    pub regime: Regime,
    /// How it should deliver the notes, by its version.
    pub(crate) regime_expected: Regime,
    /// Whether NOTE_FORK costs exits; `None` unless one shape was run with and without it.
    pub exit_race: Option<ExitRace>,
    /// One for each load, in the order in which they ran.
    pub runs: Vec<Row>,
}

/// One load.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// What the processes did.
    pub shape: Shape,
    /// What was asked for beside NOTE_TRACK and NOTE_EXIT: NOTE_FORK, NOTE_EXEC, both or nothing.
    pub notes: Vec<&'static str>,
    /// What kqueue got wrong, in words; empty for nothing.
    pub wrong: String,
    /// How long NOTE_CHILD and NOTE_EXIT took to be delivered.
    pub(crate) delivery: Latency,
    /// Counts, rates and advice of this load alone.
    #[serde(flatten)]
    pub report: Report,
    #[serde(skip)]
    pub(super) totals: TreeStats,
}

impl Card {
    /// The card for these runs on one kernel.
    pub fn of(kernel: KernelVersion, runs: Vec<Loaded>) -> Card {
        let expected = regime_by_osreldate(kernel.osreldate);
        let (plain, costly): (Vec<&Loaded>, Vec<&Loaded>) =
            runs.iter().partition(|loaded| extra_notes(&loaded.stats.totals()).is_empty());
        let [plain, costly] = [plain, costly].map(|runs| together(&runs));
        let all = together(&runs.iter().collect::<Vec<_>>());
        let regime = all.regime;
        let rows: Vec<Row> = runs.into_iter().map(|loaded| Row::of(loaded, &kernel)).collect();
        let race = ExitRace::of(&rows);
        let decision = worst(rows.iter().map(|row| row.report.summary.decision));
        let answer = match decision {
            Soundness::Unsound if Soundness::of(&plain) == Soundness::Sound => {
                only_without_costly_notes(&all, &costly, expected, race)
            }
            Soundness::Unsound => advice(&all, decision, expected),
            Soundness::Sound => {
                sound(&all, expected, if rows.len() == 1 { "this load" } else { "these loads" })
            }
            Soundness::Undecided => undecided(&rows),
        };
        Card {
            decision,
            answer,
            kernel,
            regime,
            regime_expected: expected,
            exit_race: race,
            runs: rows,
        }
    }

    /// The card for a person.
    pub fn text(&self, paint: Paint) -> String {
        let answer = format!("{}: {}", capital(self.decision.as_str()), self.answer);
        let mut out = paint.dye(self.decision.hue(), &answer);
        let Card { kernel, regime, regime_expected, .. } = self;
        let _ = write!(out, "\n\nkernel    {}", printable(&kernel.uname));
        if kernel.osreldate > 0 {
            let _ = write!(out, ", osreldate {}", kernel.osreldate);
        }
        let _ = writeln!(out, "\nregime    {regime}, by its version {regime_expected}\n");
        out += &self.table().text(paint);
        if let Some(race) = self.exit_race {
            let _ = writeln!(out, "\n{}", race.sentence());
        }
        out
    }

    /// The card as one HTML file that needs nothing else.
    pub fn html(&self) -> String {
        let regime = format!("Regime {}, by its version {}.", self.regime, self.regime_expected);
        let header = Header {
            decision: self.decision,
            answer: &self.answer,
            advice: &regime,
            more: maud::html! {},
        };
        let race = self.exit_race.map(|race| Block::Paragraph(race.sentence()));
        let blocks = std::iter::once(Block::Table(self.table())).chain(race).collect();
        page(&self.kernel.uname, "stress", &header, &[Section { title: "Loads", blocks }])
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "shape",
            "also asks for",
            "#stall",
            "#births",
            "#deaths",
            "#repeats",
            "#p50",
            "#p99",
            "#took",
            "what was wrong",
        ]);
        for row in &self.runs {
            row.add_to(&mut table);
        }
        table
    }
}

impl Row {
    fn of(Loaded { shape, run, stats }: Loaded, kernel: &KernelVersion) -> Row {
        let totals = stats.totals();
        let mut both = totals.child_latency.clone();
        both.add_past(&totals.exit_latency);
        Row {
            shape,
            notes: extra_notes(&totals),
            wrong: wrongs(&totals),
            delivery: Latency::of(&both),
            report: Report::of(&stats, kernel.clone(), run),
            totals,
        }
    }

    fn add_to(&self, table: &mut Table) {
        let Row { report, totals, delivery, .. } = self;
        let (births, deaths) = (Tally::of(totals, Fact::Birth), Tally::of(totals, Fact::Death));
        let decision = report.summary.decision;
        let wrong = match decision {
            Soundness::Sound => "nothing".to_owned(),
            Soundness::Unsound if self.wrong.is_empty() => {
                "nothing in this run; it merges NOTE_CHILD and NOTE_EXIT for a late reader"
                    .to_owned()
            }
            Soundness::Unsound => self.wrong.clone(),
            Soundness::Undecided if births.open + deaths.open > 0 => {
                format!("not known: {} undecided", count_of(births.open + deaths.open, "fact"))
            }
            Soundness::Undecided => "not known: the witnesses missed processes".to_owned(),
        };
        let hue = if decision == Soundness::Sound { Hue::Plain } else { decision.hue() };
        let latency = |ns| if delivery.count == 0 { String::new() } else { duration(ns) };
        table.row(
            hue,
            [
                self.shape.to_string(),
                self.notes.join(" "),
                stall(report.run.stall_ms),
                thousands(births.total()),
                thousands(deaths.total()),
                thousands(totals.duplicate_child_notes),
                latency(delivery.p50_ns),
                latency(delivery.p99_ns),
                format!("{:.1} s", report.run.seconds),
                wrong,
            ],
        );
    }
}

fn stall(ms: u64) -> String {
    if ms == 0 { "none".to_owned() } else { format!("{ms} ms") }
}

/// A kernel that kept everything for a tracker that asks for NOTE_TRACK and NOTE_EXIT alone, and not for one that asks for
/// more.
fn only_without_costly_notes(
    all: &Stats,
    costly: &Stats,
    expected: Regime,
    race: Option<ExitRace>,
) -> String {
    let lost = Tally::of(&costly.totals(), Fact::Death);
    let Some(race) = race.filter(|race| race.with.lost > 0) else {
        return advice(costly, Soundness::of(costly), expected);
    };
    format!(
        "A tracker can trust this kernel only if it {}: beside NOTE_FORK it lost {} of {}, without NOTE_FORK {} of {}.",
        conditions(&all.totals()),
        thousands(lost.lost),
        count_of(lost.decided(), "exit"),
        if race.without.lost == 0 { "none".to_owned() } else { thousands(race.without.lost) },
        thousands(race.without.deaths),
    )
}

fn undecided(rows: &[Row]) -> String {
    let open = rows.iter().filter(|row| row.report.summary.decision == Soundness::Undecided);
    let names: Vec<&str> = open.map(|row| row.shape.as_str()).collect();
    match (&names[..], rows) {
        ([], _) => {
            "Whether a tracker can trust this kernel is not known: nothing was run.".to_owned()
        }
        (_, [row]) => row.report.advice.clone(),
        ([first, ..], _) => format!(
            "Whether a tracker can trust this kernel is not known: {} could not be decided; run it alone (--shape \
             {first}) to see why.",
            names.join(", ")
        ),
    }
}

/// One is enough to be unsound, and then to be undecided.
fn worst(decisions: impl Iterator<Item = Soundness>) -> Soundness {
    let decisions: Vec<Soundness> = decisions.collect();
    let any = |answer| decisions.contains(&answer);
    match () {
        () if any(Soundness::Unsound) => Soundness::Unsound,
        () if any(Soundness::Undecided) || decisions.is_empty() => Soundness::Undecided,
        () => Soundness::Sound,
    }
}

/// The counters of several runs in one. One run that shows a kernel to merge is enough.
fn together(runs: &[&Loaded]) -> Stats {
    let mut all = Stats::default();
    for Loaded { stats, .. } in runs {
        all.add_past(&Stats { trees: vec![], ..stats.clone() });
        all.trees.extend_from_slice(&stats.trees);
        if stats.regime.is_merged() {
            all.regime = stats.regime;
        }
    }
    all
}

/// What was asked for beside NOTE_TRACK and NOTE_EXIT.
fn extra_notes(tree: &TreeStats) -> Vec<&'static str> {
    let names = [(note::FORK, "NOTE_FORK"), (note::EXEC, "NOTE_EXEC")];
    names.into_iter().filter(|(bit, _)| tree.notes & bit != 0).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::stats;
    use super::*;
    use crate::model::{Verdict, Winner};

    const TRACK: u32 = note::TRACK | note::EXIT;

    fn kernel(osreldate: u32) -> KernelVersion {
        KernelVersion { uname: "FreeBSD 13.2-RELEASE amd64".to_owned(), osreldate }
    }

    fn agreed(n: u64, regime: Regime) -> Stats {
        let mut stats = stats(&[(Verdict::Agreed, n)], &[(Verdict::Agreed, n + 1)]);
        stats.regime = regime;
        stats
    }

    fn loaded(shape: Shape, notes: u32, mut stats: Stats) -> Loaded {
        stats.trees[0].notes = TRACK | notes;
        let run = Run { seconds: 2.0, ..Run::default() };
        Loaded { shape, run, stats }
    }

    /// A stock 13.2: repeats in chains, and exits of `forkexit` that were lost beside NOTE_FORK.
    fn stock(lost: u64) -> Card {
        let mut chain = agreed(420, Regime::Split);
        chain.trees[0].duplicate_child_notes = 5691;
        let mut fork = agreed(12_000, Regime::Split);
        fork.trees[0].deaths[Verdict::LostSilent.index()] = lost;
        fork.trees[0].deaths[Verdict::Agreed.index()] -= lost;
        fork.trees[0].exit_latency.add(40_000_000);
        let mut runs = vec![
            loaded(Shape::Chain, 0, chain),
            loaded(Shape::Exit, 0, agreed(12_000, Regime::Split)),
            loaded(Shape::Exit, note::FORK, fork),
        ];
        runs[0].run.stall_ms = 40;
        Card::of(kernel(1_302_001), runs)
    }

    #[test]
    fn the_card_reads_well() {
        let card = stock(3);
        assert_eq!(card.decision, Soundness::Unsound);
        assert_eq!(
            card.text(Paint::Plain),
            "\
Unsound: A tracker can trust this kernel only if it ignores repeated NOTE_CHILD notes and asks for NOTE_FORK and \
NOTE_EXEC, if at all, on another kqueue than the one whose NOTE_EXIT it needs: beside NOTE_FORK it lost 3 of 12,001 \
exits, without NOTE_FORK none of 12,001.

kernel    FreeBSD 13.2-RELEASE amd64, osreldate 1302001
regime    split, by its version split

shape  also asks for  stall  births  deaths  repeats      p50      p99   took  what was wrong
chain                 40 ms     420     421    5,691                    2.0 s  nothing
exit                   none  12,000  12,001        0                    2.0 s  nothing
exit   NOTE_FORK       none  12,000  12,001        0  67.1 ms  67.1 ms  2.0 s  lost 3 deaths

Shape exit: the tracker that also asks for NOTE_FORK lost 3 of 12,001 exits, the one that does not lost none of 12,001 exits.
"
        );
    }

    #[test]
    fn a_run_that_lost_no_exit_beside_note_fork_still_warns_of_it() {
        let card = stock(0);
        assert_eq!(card.decision, Soundness::Sound);
        assert_eq!(
            card.answer,
            "A tracker can trust this kernel under these loads, if it ignores repeated NOTE_CHILD notes and asks for \
             NOTE_FORK and NOTE_EXEC, if at all, on another kqueue than the one whose NOTE_EXIT it needs."
        );
        assert!(card.text(Paint::Plain).contains("up to 4 of 16,000"));
    }

    #[test]
    fn one_load_that_shows_a_kernel_to_merge_is_enough_never_to_trust_it() {
        let mut stalled = agreed(100, Regime::MergedStatus);
        stalled.trees[0].births[Verdict::Agreed.index()] = 60;
        stalled.trees[0].births[Verdict::Overwritten.index()] = 40;
        stalled.trees[0].collisions[Winner::Status.index()] = 40;
        for (stats, word) in [
            (agreed(100, Regime::MergedStatus), "this run had no such kevent"),
            (stalled, "two kqueues"),
        ] {
            let quiet = loaded(Shape::Exit, 0, agreed(100, Regime::Unknown));
            let card = Card::of(kernel(1_001_000), vec![quiet, loaded(Shape::Enoent, 0, stats)]);
            assert!(card.answer.contains("as soon as the reader is late"), "{}", card.answer);
            assert_eq!((card.decision, card.regime), (Soundness::Unsound, Regime::MergedStatus));
            assert!(
                card.answer.starts_with("A tracker cannot trust this kernel"),
                "{}",
                card.answer
            );
            assert!(card.answer.contains(word), "{}", card.answer);
        }
    }

    #[test]
    fn what_could_not_be_decided_is_named() {
        let blind = stats(&[(Verdict::Undecided, 9)], &[]);
        let runs = vec![
            loaded(Shape::Exit, 0, agreed(100, Regime::Split)),
            loaded(Shape::Vfork, 0, blind.clone()),
        ];
        let card = Card::of(kernel(1_302_001), runs);
        assert_eq!(card.decision, Soundness::Undecided);
        assert!(card.answer.contains("vfork could not be decided"), "{}", card.answer);
        assert!(card.text(Paint::Plain).contains("not known: 9 facts undecided"));
        let alone = Card::of(kernel(1_302_001), vec![loaded(Shape::Vfork, 0, blind)]);
        assert!(alone.answer.contains("too little was seen"), "{}", alone.answer);
        assert_eq!(Card::of(kernel(0), vec![]).decision, Soundness::Undecided);
    }

    #[test]
    fn programs_and_browsers_get_the_same() {
        let mut card = stock(3);
        let json = serde_json::to_value(&card).expect("json");
        assert_eq!(json["decision"], "unsound");
        assert_eq!(json["exit_race"]["with"]["lost"], 3);
        assert_eq!(json["runs"][2]["notes"][0], "NOTE_FORK");
        assert_eq!(json["runs"][2]["shape"], "exit");
        assert_eq!(json["runs"][2]["wrong"], "lost 3 deaths");
        assert_eq!(json["runs"][0]["totals"]["duplicate_child_notes"], 5691);
        assert_eq!(json["runs"][0]["run"]["stall_ms"], 40);
        card.kernel.uname = "<script>".to_owned();
        let html = card.html();
        assert!(html.contains("<td>lost 3 deaths</td>"), "{html}");
        assert!(html.contains("beside NOTE_FORK it lost 3 of 12,001 exits"), "{html}");
        assert!(!html.contains("<script"), "{html}");
    }
}
