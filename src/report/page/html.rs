//! The page as one HTML file that needs nothing else: no network, no script.

use std::fmt::Write as _;

use plotters::style::RGBColor;

use super::parts::{capital, figure, head, known, or, row, share, sum, verdict_class, why};
use super::plots::{self, Series};
use super::{Incident, Page, latency_rows};
use crate::check::strategies::Strategy;
use crate::model::Verdict;
use crate::report::escape::Escaped;
use crate::report::format::{duration, thousands};
use crate::report::rfc3339;
use crate::report::stress::Latency;
use crate::report::summary::ByWord;

pub(in crate::report) const CSS: &str = include_str!("report.css");

const GREEN: RGBColor = RGBColor(0x3f, 0xa1, 0x5c);
const RED: RGBColor = RGBColor(0xd6, 0x45, 0x45);
const ORANGE: RGBColor = RGBColor(0xe3, 0x8b, 0x1b);
const PURPLE: RGBColor = RGBColor(0x8d, 0x62, 0xd4);
const BLUE: RGBColor = RGBColor(0x3d, 0x7d, 0xd8);
const PINK: RGBColor = RGBColor(0xd8, 0x5a, 0xa6);
const GREY: RGBColor = RGBColor(0x93, 0x9c, 0xa6);

/// What the plot of verdicts tells apart, from the bottom up.
const LAYERS: [(&str, RGBColor, &[Verdict]); 5] = [
    ("agreed", GREEN, &[Verdict::Agreed]),
    ("overwritten", ORANGE, &[Verdict::Overwritten]),
    ("corrupt", PURPLE, &[Verdict::Corrupt]),
    ("lost", RED, &[Verdict::LostReported, Verdict::LostSilent, Verdict::LostInherited]),
    ("undecided or kqueue only", GREY, &[Verdict::Undecided, Verdict::KqueueOnly]),
];

impl Page {
    /// The page as one HTML file.
    pub fn html(&self) -> String {
        let decision = self.report.summary.decision;
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{}: {decision}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n",
            Escaped(&self.origin.source)
        );
        self.answer(&mut out);
        self.verdicts(&mut out);
        self.latency(&mut out);
        self.generations(&mut out);
        self.damage(&mut out);
        self.strategies(&mut out);
        self.incidents(&mut out);
        self.environment(&mut out);
        let _ = write!(
            out,
            "</main>\n<footer>Made by kqproc_exporter {} from {}.</footer>\n</body>\n</html>\n",
            self.version,
            Escaped(&self.origin.source)
        );
        out
    }

    fn answer(&self, out: &mut String) {
        let report = &self.report;
        let (decision, kernel) = (report.summary.decision, &report.kernel);
        let words = &report.summary.answer;
        let rest = words.split_once(": ").map_or(words.as_str(), |(_, rest)| rest);
        let _ = write!(
            out,
            "<header class=\"{decision}\">\n<p class=\"kicker\">Does kqueue lose processes on {}?</p>\n\
             <h1><span class=\"badge\">{}</span> {}</h1>\n<p class=\"advice\">{}</p>\n</header>\n",
            Escaped(or(&kernel.uname, "this kernel")),
            capital(decision.as_str()),
            Escaped(capital(rest)),
            Escaped(&report.advice)
        );
        self.cards(out);
    }

    /// What is wrong, each in one number.
    fn cards(&self, out: &mut String) {
        let totals = &self.totals;
        let wrong = |by: &[u64; Verdict::COUNT]| {
            let bad = |v: &&Verdict| {
                !matches!(v, Verdict::Agreed | Verdict::KqueueOnly | Verdict::Undecided)
            };
            Verdict::ALL.iter().filter(bad).map(|v| by[v.index()]).sum::<u64>()
        };
        let cards = [
            ("births wrong", wrong(&totals.births), totals.births_reported, true),
            ("deaths wrong", wrong(&totals.deaths), totals.deaths_reported, true),
            ("collisions", totals.collisions.iter().sum(), 0, true),
            ("repeated NOTE_CHILD", totals.duplicate_child_notes, 0, false),
            ("NOTE_TRACKERR", totals.trackerr_reports, 0, true),
        ];
        out.push_str("<dl class=\"cards\">\n");
        for (name, value, of, bad) in cards {
            let class = match (value, bad) {
                (0, _) => "",
                (_, true) => " class=\"bad\"",
                (_, false) => " class=\"doubt\"",
            };
            let of = if of > 0 {
                format!(" <small>of {}</small>", thousands(of))
            } else {
                String::new()
            };
            let _ =
                writeln!(out, "<div{class}><dt>{name}</dt><dd>{}{of}</dd></div>", thousands(value));
        }
        let blind = self.report.summary.blind_seconds;
        let class = if blind > 0.0 { " class=\"doubt\"" } else { "" };
        let _ = writeln!(
            out,
            "<div{class}><dt>blind</dt><dd>{blind:.3} s <small>of {:.1} s</small></dd></div>\n</dl>",
            self.report.run.seconds
        );
    }

    fn verdicts(&self, out: &mut String) {
        out.push_str("<section>\n<h2>Verdicts</h2>\n");
        let over_time = &self.over_time;
        let sums: Vec<(&str, RGBColor, Vec<u64>)> = LAYERS
            .iter()
            .map(|(name, colour, verdicts)| {
                let words: Vec<&str> = verdicts.iter().map(|v| v.as_str()).collect();
                (*name, *colour, sum(&over_time.verdicts, &words))
            })
            .filter(|(_, _, values)| values.iter().any(|n| *n > 0))
            .collect();
        let series: Vec<Series<'_>> =
            sums.iter().map(|(_, colour, values)| Series { colour: *colour, values }).collect();
        figure(
            out,
            &plots::stacked(over_time.verdicts_bin_seconds, &series),
            &format!(
                "Births and deaths by verdict, at the time when they happened; a bar is {}.",
                duration((over_time.verdicts_bin_seconds * 1e9) as u64)
            ),
            &sums.iter().map(|(name, colour, _)| (*name, *colour)).collect::<Vec<_>>(),
        );
        head(out, &["verdict", "births", "rate, 95 % interval", "deaths", "rate, 95 % interval"]);
        let rates = &self.report.rates;
        for (i, verdict) in Verdict::ALL.iter().enumerate() {
            let (births, deaths) = (self.totals.births[i], self.totals.deaths[i]);
            let rate = |rates: &ByWord<crate::report::interval::Interval>, n: u64| match n {
                0 => String::new(),
                _ => rates.get(verdict.as_str()).map_or(String::new(), |rate| rate.told()),
            };
            let cells = [
                thousands(births),
                rate(&rates.births, births),
                thousands(deaths),
                rate(&rates.deaths, deaths),
            ];
            row(out, *verdict, verdict_class(*verdict, births + deaths), cells);
        }
        out.push_str("</table></div>\n</section>\n");
    }

    fn latency(&self, out: &mut String) {
        out.push_str("<section>\n<h2>Delivery latency</h2>\n");
        let rows = latency_rows(&self.totals.child_latency, &self.totals.exit_latency);
        let legend =
            [("NOTE_CHILD, from proc:::create", BLUE), ("NOTE_EXIT, from proc:::exit", PINK)];
        if rows.is_empty() {
            out.push_str("<p>No note could be timed.</p>\n</section>\n");
            return;
        }
        figure(
            out,
            &plots::latency_bars(&rows, [BLUE, PINK]),
            "Notes by the time until the kevent(2) call that delivered them returned; a bar ends at twice the time at \
             which it begins.",
            &legend,
        );
        figure(
            out,
            &plots::latency_cdf(&rows, [BLUE, PINK]),
            "Share of the notes that had been delivered after so long.",
            &legend,
        );
        head(out, &["note", "half within", "99 % within", "all within", "notes"]);
        let latency = &self.report.latency;
        for (name, l) in [("NOTE_CHILD", latency.child), ("NOTE_EXIT", latency.exit)] {
            let Latency { p50_ns, p99_ns, max_ns, count } = l;
            let cells = [duration(p50_ns), duration(p99_ns), duration(max_ns), thousands(count)];
            row(out, name, "", cells);
        }
        out.push_str("</table></div>\n</section>\n");
    }

    fn generations(&self, out: &mut String) {
        let total = self.totals.duplicate_child_notes;
        out.push_str("<section>\n<h2>Repeated NOTE_CHILD</h2>\n");
        if total == 0 {
            out.push_str("<p>Every process was announced once at most.</p>\n</section>\n");
            return;
        }
        figure(
            out,
            &plots::generations(&self.generations, ORANGE),
            "NOTE_CHILD kevents for each process, by generation below the root; 1 is right.",
            &[],
        );
        let path = crate::report::paths::DUPLICATE_CHILD;
        let _ = writeln!(
            out,
            "<p>{} too many. {} <code>{}</code></p>\n</section>",
            thousands(total),
            Escaped(path.sentence),
            Escaped(path.function)
        );
    }

    fn damage(&self, out: &mut String) {
        out.push_str(
            "<section>\n<h2>Tree damage</h2>\n<p>What is wrong in the process table of a tracker that believes every \
             kevent. A process stays in that table until its pid is used again.</p>\n",
        );
        let colours = [ORANGE, RED, PURPLE, BLUE, PINK, GREY];
        let over_time = &self.over_time;
        let lines: Vec<(&str, RGBColor, &Vec<u64>)> = over_time
            .damage
            .iter()
            .zip(colours)
            .map(|((name, values), colour)| (name, colour, values))
            .filter(|(_, _, values)| values.iter().any(|n| *n > 0))
            .collect();
        if lines.is_empty() {
            out.push_str("<p>Nothing was.</p>\n</section>\n");
            return;
        }
        let series: Vec<Series<'_>> =
            lines.iter().map(|(_, colour, values)| Series { colour: *colour, values }).collect();
        figure(
            out,
            &plots::steps(over_time.damage_bin_seconds, &series),
            "Wrong entries over time.",
            &lines.iter().map(|(name, colour, _)| (*name, *colour)).collect::<Vec<_>>(),
        );
        head(out, &["kind", "at the end"]);
        for (name, n) in self.damage.iter() {
            row(out, name, if *n > 0 { "bad" } else { "zero" }, [thousands(*n)]);
        }
        out.push_str("</table></div>\n</section>\n");
    }

    fn strategies(&self, out: &mut String) {
        out.push_str(
            "<section>\n<h2>What would have helped</h2>\n<p>Each row is one kqueue with NOTE_TRACK and NOTE_EXIT, and \
             something more. Facts without a decision are left out.</p>\n",
        );
        head(
            out,
            &[
                "strategy",
                "parents right",
                "members right",
                "ends right",
                "counted twice",
                "recovered",
            ],
        );
        for (strategy, (name, r)) in Strategy::ALL.iter().zip(self.strategies.iter()) {
            let class = match (strategy, r.recovered) {
                (Strategy::Naive, _) => "naive",
                (_, 0) => "zero",
                _ => "good",
            };
            let cells = [
                share(r.parents, r.births),
                share(r.members, r.births),
                share(r.ends, r.deaths),
                thousands(r.repeats),
                if *strategy == Strategy::Naive {
                    "\u{2013}".to_owned()
                } else {
                    thousands(r.recovered)
                },
            ];
            row(out, name, class, cells);
        }
        out.push_str("</table></div>\n</section>\n");
    }

    fn incidents(&self, out: &mut String) {
        out.push_str("<section>\n<h2>Incidents</h2>\n");
        if self.incidents.is_empty() {
            out.push_str("<p>None.</p>\n</section>\n");
            return;
        }
        let _ = writeln!(
            out,
            "<p>{} of {} facts that are not agreed: the first of each verdict.</p>",
            thousands(self.incidents.len() as u64),
            thousands(self.incidents_total)
        );
        let alike = |a: &&Incident, b: &&Incident| {
            (a.fact, a.verdict, a.path) == (b.fact, b.verdict, b.path)
        };
        for group in self.by_path().chunk_by(alike) {
            why(out, group[0]);
            head(out, &["pid", "tree", "time", "DTrace said", "kqueue said"]);
            for Incident { pid, tree, time, dtrace, kqueue, .. } in group {
                let _ = writeln!(
                    out,
                    "<tr><th scope=\"row\">{pid}</th><td>{}</td><td class=\"time\">{}</td><td>{}</td><td>{}</td></tr>",
                    Escaped(tree),
                    time.as_deref().unwrap_or("unknown"),
                    Escaped(dtrace),
                    Escaped(kqueue)
                );
            }
            out.push_str("</table></div>\n");
        }
        out.push_str("</section>\n");
    }

    /// The incidents, those with the same reason beside each other.
    fn by_path(&self) -> Vec<&Incident> {
        let mut all: Vec<&Incident> = self.incidents.iter().collect();
        all.sort_by_key(|i| (i.verdict.index(), i.fact, i.path.sentence));
        all
    }

    fn environment(&self, out: &mut String) {
        let (report, origin) = (&self.report, &self.origin);
        let dtrace = &report.summary.dtrace;
        let start = match origin.start_real_ns {
            0 => "unknown".to_owned(),
            ns => rfc3339::utc(ns),
        };
        let drops: u64 = dtrace.drops.iter().map(|(_, n)| n).sum();
        out.push_str(
            "<section>\n<h2>Environment</h2>\n<div class=\"scroll\"><table class=\"facts\">\n",
        );
        for (name, value) in [
            ("source", origin.source.clone()),
            ("note", origin.note.clone()),
            ("kernel", report.kernel.uname.clone()),
            ("osreldate", known(report.kernel.osreldate)),
            ("regime", format!("{}, by its version {}", self.regime, report.regime_expected)),
            ("load", report.run.load.clone()),
            ("begin", start),
            ("length", format!("{:.1} s", report.run.seconds)),
            (
                "DTrace",
                format!(
                    "{} records, {} undecodable lines, {} dropped",
                    thousands(dtrace.records),
                    thousands(dtrace.decode_errors),
                    thousands(drops)
                ),
            ),
        ] {
            if !value.is_empty() {
                let _ = writeln!(
                    out,
                    "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>",
                    Escaped(value)
                );
            }
        }
        out.push_str("</table></div>\n");
        if !origin.program.is_empty() {
            out.push_str("<details><summary>The D program</summary>\n<pre>");
            for line in origin.program.lines() {
                let _ = writeln!(out, "{}", Escaped(line));
            }
            out.push_str("</pre></details>\n");
        }
        out.push_str("</section>\n");
    }
}
