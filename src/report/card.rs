//! The report card of a kernel: a row for each load that was run on it, and on top one sentence that says whether a
//! process tracker can trust the kernel and what it must do.

mod advice;

use std::fmt::Write as _;

use serde::Serialize;

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
        let rows: Vec<Row> = runs.iter().map(|loaded| Row::of(loaded, &kernel)).collect();
        let exit_race = ExitRace::of(&rows);
        let decision = worst(&rows);
        Card {
            decision,
            answer: advice::answer(decision, &runs, &rows, expected, exit_race),
            kernel,
            regime: together(&runs).regime,
            regime_expected: expected,
            exit_race,
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
    fn of(Loaded { shape, run, stats }: &Loaded, kernel: &KernelVersion) -> Row {
        let totals = stats.totals();
        let mut both = totals.child_latency.clone();
        both.add_past(&totals.exit_latency);
        Row {
            shape: *shape,
            notes: extra_notes(&totals),
            wrong: wrongs(&totals),
            delivery: Latency::of(&both),
            report: Report::of(stats, kernel.clone(), run.clone()),
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

/// One is enough to be unsound, and then to be undecided.
fn worst(rows: &[Row]) -> Soundness {
    let any = |decision| rows.iter().any(|row| row.report.summary.decision == decision);
    if any(Soundness::Unsound) {
        Soundness::Unsound
    } else if any(Soundness::Undecided) || rows.is_empty() {
        Soundness::Undecided
    } else {
        Soundness::Sound
    }
}

/// The counters of several runs in one. One run that shows a kernel to merge is enough.
fn together<'a>(runs: impl IntoIterator<Item = &'a Loaded>) -> Stats {
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
mod tests;
