//! The page as Markdown: for a bug report or a wiki.

use std::fmt::{Display, Write as _};

use super::Page;
use super::parts::known;
use crate::check::strategies::Strategy;
use crate::model::Verdict;
use crate::report::format::{duration, printable, thousands};
use crate::report::rfc3339;

impl Page {
    /// The page as Markdown, without the plots.
    pub fn markdown(&self) -> String {
        let report = &self.report;
        let mut out = format!(
            "# {}\n\n{}\n\n{}\n",
            cell(&self.origin.source),
            cell(&report.summary.answer),
            cell(&report.advice)
        );
        self.facts(&mut out);
        table(&mut out, "Verdicts", &["verdict", "births", "deaths"]);
        for verdict in Verdict::ALL {
            let (births, deaths) =
                (self.totals.births[verdict.index()], self.totals.deaths[verdict.index()]);
            row(&mut out, [verdict.to_string(), thousands(births), thousands(deaths)]);
        }
        table(
            &mut out,
            "Delivery latency",
            &["note", "half within", "99 % within", "all within", "notes"],
        );
        for (name, l) in [("NOTE_CHILD", report.latency.child), ("NOTE_EXIT", report.latency.exit)]
        {
            let [half, most, all] = [l.p50_ns, l.p99_ns, l.max_ns].map(duration);
            row(&mut out, [name.to_owned(), half, most, all, thousands(l.count)]);
        }
        if self.totals.duplicate_child_notes > 0 {
            table(&mut out, "Repeated NOTE_CHILD", &["generation", "births", "NOTE_CHILD"]);
            for (i, g) in self.generations.iter().enumerate() {
                row(&mut out, [(i + 1).to_string(), thousands(g.births), thousands(g.notes)]);
            }
        }
        table(&mut out, "Tree damage", &["kind", "at the end"]);
        for (name, n) in self.damage.iter() {
            row(&mut out, [name.to_owned(), thousands(*n)]);
        }
        self.helped(&mut out);
        self.happened(&mut out);
        out
    }

    fn facts(&self, out: &mut String) {
        let (report, origin) = (&self.report, &self.origin);
        let blind = report.summary.blind_seconds;
        let begin = match origin.start_real_ns {
            0 => String::new(),
            ns => rfc3339::utc(ns),
        };
        out.push('\n');
        for (name, value) in [
            ("kernel", report.kernel.uname.clone()),
            ("osreldate", known(report.kernel.osreldate)),
            ("regime", format!("{}, by its version {}", self.regime, report.regime_expected)),
            ("note", origin.note.clone()),
            ("load", report.run.load.clone()),
            ("begin", begin),
            ("blind", format!("{blind:.3} s of {:.1} s", report.run.seconds)),
        ] {
            if !value.is_empty() {
                let _ = writeln!(out, "- {name}: {}", cell(&value));
            }
        }
    }

    fn helped(&self, out: &mut String) {
        let names = [
            "strategy",
            "parents",
            "members",
            "births",
            "ends",
            "deaths",
            "counted twice",
            "recovered",
        ];
        table(out, "What would have helped", &names);
        for (strategy, (name, r)) in Strategy::ALL.iter().zip(self.strategies.iter()) {
            let recovered = match strategy {
                Strategy::Naive => String::new(),
                _ => thousands(r.recovered),
            };
            let [parents, members, births, ends, deaths, repeats] =
                [r.parents, r.members, r.births, r.ends, r.deaths, r.repeats].map(thousands);
            row(out, [name.to_owned(), parents, members, births, ends, deaths, repeats, recovered]);
        }
    }

    fn happened(&self, out: &mut String) {
        if self.incidents.is_empty() {
            return;
        }
        let title = format!(
            "Incidents: {} of {}",
            thousands(self.incidents.len() as u64),
            thousands(self.incidents_total)
        );
        table(
            out,
            &title,
            &["pid", "fact", "verdict", "DTrace said", "kqueue said", "why", "sure"],
        );
        for i in &self.incidents {
            row(
                out,
                [
                    i.pid.to_string(),
                    i.fact.to_owned(),
                    i.verdict.to_string(),
                    i.dtrace.clone(),
                    i.kqueue.clone(),
                    i.path.sentence.to_owned(),
                    i.path.sure.to_string(),
                ],
            );
        }
    }
}

/// Text that stays text: nothing that Markdown or HTML would take for its own.
fn cell(text: impl Display) -> String {
    let mut out = String::new();
    for c in printable(&text.to_string()).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '|' | '*' | '`' | '[' | ']' | '\\' | '#' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn table(out: &mut String, title: &str, names: &[&str]) {
    let _ = write!(out, "\n## {title}\n\n| {} |\n|", names.join(" | "));
    let numbers = !names.contains(&"why");
    for i in 0..names.len() {
        out.push_str(if numbers && i > 0 { "---:|" } else { "---|" });
    }
    out.push('\n');
}

fn row<const N: usize>(out: &mut String, cells: [String; N]) {
    let _ = writeln!(out, "| {} |", cells.map(cell).join(" | "));
}
