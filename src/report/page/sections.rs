//! The sections of the report page: their tables, plots and sentences.

use plotters::style::RGBColor;

use super::plots::{self, PlotSeries};
use super::{Incident, ReportPage, latency_buckets};
use crate::check::strategies::Strategy;
use crate::model::{Verdict, VerdictClass};
use crate::report::by_name::ByName;
use crate::report::format::{Hue, duration, thousands};
use crate::report::html::capital;
use crate::report::interval::Interval;
use crate::report::paths::DUPLICATE_CHILD;
use crate::report::rfc3339;
use crate::report::section::{Block, Figure, Section};
use crate::report::summary::row_hue;
use crate::report::table::Table;

const GREEN: RGBColor = RGBColor(0x3f, 0xa1, 0x5c);
const RED: RGBColor = RGBColor(0xd6, 0x45, 0x45);
const ORANGE: RGBColor = RGBColor(0xe3, 0x8b, 0x1b);
const PURPLE: RGBColor = RGBColor(0x8d, 0x62, 0xd4);
const BLUE: RGBColor = RGBColor(0x3d, 0x7d, 0xd8);
const PINK: RGBColor = RGBColor(0xd8, 0x5a, 0xa6);
const GREY: RGBColor = RGBColor(0x93, 0x9c, 0xa6);

/// The layer of the plot of verdicts that stands for a class of them.
const fn layer(class: VerdictClass) -> (&'static str, RGBColor) {
    match class {
        VerdictClass::Good => ("agreed", GREEN),
        VerdictClass::Wrong => ("overwritten or corrupt", ORANGE),
        VerdictClass::Lost => ("lost", RED),
        VerdictClass::Open => ("undecided or kqueue only", GREY),
    }
}

/// Lines or layers of a plot: name, colour, and a value for each bin.
type PlotLines = Vec<(String, RGBColor, Vec<u64>)>;

impl ReportPage {
    /// Everything below the answer.
    pub(in crate::report) fn sections(&self) -> Vec<Section> {
        vec![
            self.verdicts(),
            self.latency(),
            self.generations(),
            self.damage(),
            self.strategies(),
            self.incidents(),
            self.environment(),
        ]
    }

    fn verdicts(&self) -> Section {
        let over_time = &self.over_time;
        let layers = VerdictClass::ALL.iter().map(|class| {
            let verdicts = Verdict::ALL.iter().filter(|verdict| verdict.class() == *class);
            let names: Vec<&str> = verdicts.map(|verdict| verdict.as_str()).collect();
            let (name, colour) = layer(*class);
            (name.to_owned(), colour, sum(&over_time.verdicts, &names))
        });
        let bin = over_time.verdicts_bin_seconds;
        let caption = format!(
            "Births and deaths by verdict, at the time when they happened; a bar is {}.",
            duration((bin * 1e9) as u64)
        );
        let plot = figure(layers.collect(), |series| plots::stacked(bin, series), caption);
        let mut table = Table::new(&[
            "verdict",
            "#births",
            "#rate, 95 % interval",
            "#deaths",
            "#rate, 95 % interval",
        ]);
        let rates = &self.report.rates;
        for verdict in Verdict::ALL {
            let i = verdict.index();
            let (births, deaths) = (self.totals.births[i], self.totals.deaths[i]);
            let rate = |rates: &ByName<Interval>| {
                rates.get(verdict.as_str()).map_or(String::new(), Interval::text)
            };
            table.row(
                row_hue(*verdict, births + deaths),
                [
                    verdict.to_string(),
                    thousands(births),
                    rate(&rates.births),
                    thousands(deaths),
                    rate(&rates.deaths),
                ],
            );
        }
        Section { title: "Verdicts", blocks: vec![plot, Block::Table(table)] }
    }

    fn latency(&self) -> Section {
        let title = "Delivery latency";
        let buckets = latency_buckets(&self.totals.child_latency, &self.totals.exit_latency);
        if buckets.is_empty() {
            return Section { title, blocks: vec![Block::paragraph("No note could be timed.")] };
        }
        let legend =
            [("NOTE_CHILD, from proc:::create", BLUE), ("NOTE_EXIT, from proc:::exit", PINK)]
                .map(|(name, colour)| (name.to_owned(), colour))
                .to_vec();
        let bars = Figure {
            svg: plots::latency_bars(&buckets, [BLUE, PINK]),
            caption: "Notes by the time until the kevent(2) call that delivered them returned; a bar ends at twice \
                      the time at which it begins."
                .to_owned(),
            legend: legend.clone(),
        };
        let cdf = Figure {
            svg: plots::latency_cdf(&buckets, [BLUE, PINK]),
            caption: "Share of the notes that had been delivered after so long.".to_owned(),
            legend,
        };
        let mut table =
            Table::new(&["note", "#half within", "#99 % within", "#all within", "#notes"]);
        let latency = &self.report.latency;
        for (name, l) in [("NOTE_CHILD", latency.child), ("NOTE_EXIT", latency.exit)] {
            let [half, most, all] = [l.p50_ns, l.p99_ns, l.max_ns].map(duration);
            table.row(Hue::Plain, [name.to_owned(), half, most, all, thousands(l.count)]);
        }
        Section {
            title,
            blocks: vec![Block::Figure(bars), Block::Figure(cdf), Block::Table(table)],
        }
    }

    fn generations(&self) -> Section {
        let title = "Repeated NOTE_CHILD";
        let total = self.totals.duplicate_child_notes;
        if total == 0 {
            let none = Block::paragraph("Every process was announced once at most.");
            return Section { title, blocks: vec![none] };
        }
        let plot = Figure {
            svg: plots::generations(&self.generations, ORANGE),
            caption:
                "NOTE_CHILD kevents for each process, by generation below the root; 1 is right."
                    .to_owned(),
            legend: vec![],
        };
        let mut table = Table::new(&["generation", "#births", "#NOTE_CHILD"]);
        for (i, g) in self.generations.iter().enumerate() {
            table.row(Hue::Plain, [(i + 1).to_string(), thousands(g.births), thousands(g.notes)]);
        }
        let reason = Block::Reason {
            hue: Hue::Doubt,
            title: format!("{} too many", thousands(total)),
            path: DUPLICATE_CHILD.into(),
        };
        Section { title, blocks: vec![Block::Figure(plot), Block::Table(table), reason] }
    }

    fn damage(&self) -> Section {
        let about = Block::paragraph(
            "What is wrong in the process table of a tracker that believes every kevent. A process stays in that \
             table until its pid is used again.",
        );
        let colours = [ORANGE, RED, PURPLE, BLUE, PINK, GREY];
        let lines = self.over_time.damage.iter().zip(colours);
        let lines: PlotLines = lines
            .map(|((name, values), colour)| (name.to_owned(), colour, values.clone()))
            .collect();
        let bin = self.over_time.damage_bin_seconds;
        let caption = "Wrong entries over time.".to_owned();
        let plot = figure(lines, |series| plots::steps(bin, series), caption);
        let mut table = Table::new(&["kind", "#at the end"]);
        for (name, n) in self.damage.iter() {
            let hue = if *n > 0 { Hue::Bad } else { Hue::Dim };
            table.row(hue, [name.to_owned(), thousands(*n)]);
        }
        Section { title: "Tree damage", blocks: vec![about, plot, Block::Table(table)] }
    }

    fn strategies(&self) -> Section {
        let about = Block::paragraph(
            "Each row is one kqueue with NOTE_TRACK and NOTE_EXIT, and something more. Facts without a decision are \
             left out.",
        );
        let mut table = Table::new(&[
            "strategy",
            "#parents right",
            "#members right",
            "#ends right",
            "#counted twice",
            "#recovered",
        ]);
        for (strategy, (name, r)) in Strategy::ALL.iter().zip(self.strategies.iter()) {
            let (hue, recovered) = match (strategy, r.recovered) {
                (Strategy::Naive, _) => (Hue::Plain, "\u{2013}".to_owned()),
                (_, 0) => (Hue::Dim, "0".to_owned()),
                (_, n) => (Hue::Good, thousands(n)),
            };
            table.row(
                hue,
                [
                    name.to_owned(),
                    share(r.parents, r.births),
                    share(r.members, r.births),
                    share(r.ends, r.deaths),
                    thousands(r.repeats),
                    recovered,
                ],
            );
        }
        Section { title: "What would have helped", blocks: vec![about, Block::Table(table)] }
    }

    fn incidents(&self) -> Section {
        let title = "Incidents";
        if self.incidents.is_empty() {
            return Section { title, blocks: vec![Block::paragraph("None.")] };
        }
        let mut blocks = vec![Block::Paragraph(format!(
            "{} of {} facts that are not agreed: the first of each verdict.",
            thousands(self.incidents.len() as u64),
            thousands(self.incidents_total)
        ))];
        let mut all: Vec<&Incident> = self.incidents.iter().collect();
        all.sort_by_key(|i| (i.verdict.index(), i.fact, i.path.sentence));
        let alike = |a: &&Incident, b: &&Incident| {
            (a.fact, a.verdict, a.path) == (b.fact, b.verdict, b.path)
        };
        for group in all.chunk_by(alike) {
            let Some(Incident { fact, verdict, path, .. }) = group.first() else { continue };
            blocks.push(Block::Reason {
                hue: row_hue(*verdict, 1),
                title: format!("{} {verdict}", capital(fact.as_str())),
                path: (*path).into(),
            });
            let mut table =
                Table::new(&["pid", "tree", "time", "DTrace reported", "kqueue reported"]);
            for Incident { pid, tree, time, dtrace, kqueue, .. } in group {
                let time = time.as_deref().unwrap_or("unknown");
                let [time, tree, dtrace, kqueue] =
                    [time, tree, dtrace, kqueue].map(ToOwned::to_owned);
                table.row(Hue::Plain, [pid.to_string(), tree, time, dtrace, kqueue]);
            }
            blocks.push(Block::Table(table));
        }
        Section { title, blocks }
    }

    fn environment(&self) -> Section {
        let (report, origin) = (&self.report, &self.origin);
        let dtrace = &report.summary.dtrace;
        let drops: u64 = dtrace.drops.iter().map(|(_, n)| n).sum();
        let known = |n: u64, text: String| if n == 0 { String::new() } else { text };
        let osreldate = report.kernel.osreldate;
        let mut facts = vec![
            ("source", origin.source.clone()),
            ("note", origin.note.clone()),
            ("kernel", report.kernel.uname.clone()),
            ("osreldate", known(osreldate.into(), osreldate.to_string())),
            ("regime", format!("{}, by its version {}", self.regime, report.regime_expected)),
            ("load", report.run.load.clone()),
            ("stall", known(report.run.stall_ms, format!("{} ms a call", report.run.stall_ms))),
            ("begin", known(origin.start_real_ns, rfc3339::utc(origin.start_real_ns))),
            ("length", format!("{:.1} s", report.run.seconds)),
            ("blind", format!("{:.3} s", report.summary.blind_seconds)),
            (
                "DTrace",
                format!(
                    "{} records, {} undecodable lines, {} dropped",
                    thousands(dtrace.records),
                    thousands(dtrace.decode_errors),
                    thousands(drops)
                ),
            ),
        ];
        facts.retain(|(_, value)| !value.is_empty());
        let mut blocks = vec![Block::Facts(facts)];
        if !origin.program.is_empty() {
            let text = origin.program.clone();
            blocks.push(Block::Details { title: "The D program", text });
        }
        Section { title: "Environment", blocks }
    }
}

/// The plot of those lines that are not always 0.
fn figure(
    mut lines: PlotLines,
    plot: impl FnOnce(&[PlotSeries<'_>]) -> String,
    caption: String,
) -> Block {
    lines.retain(|(_, _, values)| values.iter().any(|n| *n > 0));
    let series: Vec<PlotSeries<'_>> =
        lines.iter().map(|(_, colour, values)| PlotSeries { colour: *colour, values }).collect();
    let svg = if series.is_empty() { String::new() } else { plot(&series) };
    let legend = lines.into_iter().map(|(name, colour, _)| (name, colour)).collect();
    Block::Figure(Figure { svg, caption, legend })
}

/// `598 of 600`, or a dash for nothing.
fn share(right: u64, all: u64) -> String {
    match all {
        0 => "\u{2013}".to_owned(),
        _ => format!("{} of {}", thousands(right), thousands(all)),
    }
}

/// The sum of these values, bin by bin.
fn sum(by: &ByName<Vec<u64>>, wanted: &[&str]) -> Vec<u64> {
    let mut sums = vec![];
    for (_, values) in by.iter().filter(|(name, _)| wanted.contains(name)) {
        sums.resize(sums.len().max(values.len()), 0);
        sums.iter_mut().zip(values).for_each(|(sum, n)| *sum += n);
    }
    sums
}
