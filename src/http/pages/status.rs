//! The status page: the answer, the witnesses, the kernel, rates and the latest incidents at a glance.

use std::fmt::Write;

use super::spark::{rate, spark};
use super::{Escaped, banner, incident, page};
use crate::check::stats::{Histogram, Note, Stats, TreeStats};
use crate::http::about::About;
use crate::http::history::{Hour, Series, count};
use crate::http::incidents::Incident;
use crate::http::query;
use crate::http::routes::TOP;
use crate::http::snapshot::Snapshot;
use crate::metrics::Source;
use crate::model::{Regime, Verdict};
use crate::report::answer::{self, Answer};
use crate::report::format::{duration, thousands};

/// How many incidents of each verdict the page lists.
pub(in crate::http) const LISTED: usize = 5;

/// What the page shows, of one moment.
pub(in crate::http) struct Status<'a> {
    pub(in crate::http) about: &'a About,
    pub(in crate::http) telemetry_path: &'a str,
    pub(in crate::http) snapshot: &'a Snapshot,
    /// Its total.
    pub(in crate::http) stats: &'a Stats,
    pub(in crate::http) hour: Hour,
    /// Each configured source, and whether it is up.
    pub(in crate::http) sources: Vec<(Source, bool)>,
    /// The newest of each verdict, newest first.
    pub(in crate::http) incidents: Vec<Incident>,
    /// How many incidents of a flood were not kept.
    pub(in crate::http) skipped: u64,
}

impl Status<'_> {
    pub(in crate::http) fn html(&self) -> String {
        let mut main = banner(self.about);
        main.push_str(&self.headline());
        main.push_str(&self.cards());
        main.push_str(&self.verdicts());
        main.push_str(&self.trees());
        main.push_str(&self.latencies());
        main.push_str(&self.incidents());
        let metrics = Escaped(format!("{TOP}{}", self.telemetry_path.trim_start_matches('/')));
        let _ = writeln!(
            main,
            "<p>For programs: <a href=\"{metrics}\">metrics</a>, <a href=\"{TOP}incidents?format=json\">incidents</a>.</p>"
        );
        let head = "<script src=\"./status.js\" defer></script>\n\
                    <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n";
        page(TOP, "kqproc_exporter", head, &main)
    }

    fn headline(&self) -> String {
        let (answer, sentence) = (Answer::of(self.stats), answer::sentence(self.stats));
        format!("<h1 class=\"{answer}\">{}</h1>\n", Escaped(sentence))
    }

    fn cards(&self) -> String {
        let mut html = String::from("<section class=\"cards\" aria-label=\"At a glance\">\n");
        for Card { title, value, detail, class } in
            [self.lost_now(), self.witnesses(), self.kernel(), self.recent()]
        {
            let (value, detail) = (Escaped(value), Escaped(detail));
            let _ = writeln!(
                html,
                "<div class=\"card {class}\"><h2>{title}</h2><p class=\"value\">{value}</p><p>{detail}</p></div>"
            );
        }
        html.push_str("</section>\n");
        html
    }

    fn lost_now(&self) -> Card {
        let totals = answer::totals(self.stats);
        let (lost, ghosts) = (totals.lost_alive, totals.ghosts);
        Card {
            title: "Lost now",
            value: thousands(lost + ghosts),
            detail: match lost + ghosts {
                0 => "kqueue knows every living process.".into(),
                _ => format!(
                    "{} alive that kqueue does not know, {} dead that it believes alive.",
                    thousands(lost),
                    thousands(ghosts)
                ),
            },
            class: if lost + ghosts == 0 { "good" } else { "bad" },
        }
    }

    fn witnesses(&self) -> Card {
        let down: Vec<&str> =
            self.sources.iter().filter(|(_, up)| !up).map(|(source, _)| source.as_str()).collect();
        let blind = format!("Blind for {:.1} s so far.", self.stats.blind_seconds());
        let (value, class) = match () {
            () if !down.is_empty() => (format!("Down: {}", down.join(", ")), "bad"),
            () if self.stats.dtrace_blind_now => ("DTrace is blind".into(), "doubt"),
            () => ("Both see".into(), "good"),
        };
        Card { title: "Witnesses", value, detail: blind, class }
    }

    fn kernel(&self) -> Card {
        let (detail, class) = match self.stats.regime {
            Regime::Unknown => ("Nothing has shown yet how it delivers its notes.", "plain"),
            Regime::Split => {
                let detail = "Two knotes a child: NOTE_CHILD and NOTE_EXIT cannot collide. A tracker should not ask for \
                              NOTE_FORK or NOTE_EXEC on the kqueue whose NOTE_EXIT it needs.";
                (detail, "good")
            }
            Regime::MergedStatus => {
                ("One knote a child: the exit status overwrites the parent.", "bad")
            }
            Regime::MergedPpid => {
                ("One knote a child: the parent overwrites the exit status.", "bad")
            }
        };
        let release = match self.about.osrelease.as_str() {
            "" => "unknown",
            release => release,
        };
        let kernels: Vec<String> =
            self.snapshot.kernels().map(|(name, regime)| format!("{name}: {regime}")).collect();
        let (detail, class) = match kernels.is_empty() {
            true => (format!("Regime {}. {detail}", self.stats.regime), class),
            false => (format!("A tree each. {}.", kernels.join(", ")), "plain"),
        };
        Card { title: "Kernel", value: release.into(), detail, class }
    }

    fn recent(&self) -> Card {
        let of = |verdict: Verdict| self.hour.rate(Series::Verdict(verdict));
        let rates: Option<Vec<f64>> = Verdict::ALL.iter().map(|v| of(*v)).collect();
        let Some(rates) = rates else {
            let detail = "The first rates come in 10 seconds.".into();
            return Card { title: "Last minute", value: "–".into(), detail, class: "plain" };
        };
        let all: f64 = rates.iter().sum();
        let agreed = rates[Verdict::Agreed.index()];
        let open = rates[Verdict::Undecided.index()];
        let (detail, class) = match () {
            () if all == 0.0 => ("No process was born or died.".into(), "plain"),
            () if agreed == all => ("Both witnesses agreed on all of them.".into(), "good"),
            () => {
                let class = if agreed + open < all { "bad" } else { "doubt" };
                (format!("{} of them agreed.", percent(agreed / all)), class)
            }
        };
        Card { title: "Last minute", value: format!("{} facts/s", rate(all)), detail, class }
    }

    fn verdicts(&self) -> String {
        let totals = answer::totals(self.stats);
        let mut html = String::from(
            "<section><h2>Verdicts</h2>\n<div class=\"scroll\"><table>\n<tr><th>verdict</th>\
             <th class=\"n\">births</th><th class=\"n\">deaths</th><th class=\"n\">/s</th><th>last hour</th></tr>\n",
        );
        for &verdict in Verdict::ALL {
            let class = match count(&totals, verdict) {
                0 => "zero".into(),
                _ => verdict.to_string(),
            };
            let _ = writeln!(
                html,
                "<tr class=\"{class}\"><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td>{}</tr>",
                verdict.as_str().replace('_', " "),
                thousands(totals.births[verdict.index()]),
                thousands(totals.deaths[verdict.index()]),
                self.trend(Series::Verdict(verdict), verdict.as_str()),
            );
        }
        let pending: u64 = self.stats.trees.iter().map(TreeStats::pending).sum();
        let _ = writeln!(
            html,
            "</table></div>\n<p>{} for a verdict. Collisions: {}. NOTE_TRACKERR: {}. Duplicate NOTE_CHILD: {}.</p></section>",
            match pending {
                1 => "1 fact waits".into(),
                n => format!("{} facts wait", thousands(n)),
            },
            thousands(totals.collisions.iter().sum()),
            thousands(totals.trackerr_reports),
            thousands(totals.duplicate_child_notes),
        );
        html
    }

    fn trees(&self) -> String {
        let mut html = String::from(
            "<section><h2>Trees</h2>\n<div class=\"scroll\"><table>\n<tr><th>tree</th><th class=\"n\">tracked</th>\
             <th class=\"n\">lost now</th><th class=\"n\">ghosts</th><th class=\"n\">facts</th>\
             <th class=\"n\">/s</th><th>last hour</th><th class=\"n\">disagreed/s</th><th>last hour</th></tr>\n",
        );
        for (i, tree) in self.stats.trees.iter().enumerate() {
            let facts: u64 = Verdict::ALL.iter().map(|v| count(tree, *v)).sum();
            let gone = if tree.attached { "" } else { " <em>(no process)</em>" };
            let _ = writeln!(
                html,
                "<tr><th scope=\"row\"><a href=\"{TOP}incidents?tree={}\">{}</a>{gone}</th><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>{}{}</tr>",
                query::encode(&tree.name),
                Escaped(&tree.name),
                thousands(tree.tracked),
                thousands(tree.lost_alive),
                thousands(tree.ghosts),
                thousands(facts),
                self.trend(Series::Tree(i), "facts"),
                self.trend(Series::Disagreed(i), "disagreed"),
            );
        }
        html.push_str("</table></div></section>\n");
        html
    }

    /// Two cells: the rate now, and its hour.
    fn trend(&self, series: Series, what: &str) -> String {
        let now = self.hour.rate(series).map_or("–".into(), rate);
        let line = spark(&self.hour.rates(series), what);
        format!("<td class=\"n\">{}</td><td>{line}</td>", Escaped(now))
    }

    fn latencies(&self) -> String {
        let mut html = String::from(
            "<section><h2>Delivery latency</h2>\n<p>From DTrace's probe to the kevent(2) call that delivered the note; \
             upper bounds since the start.</p>\n<div class=\"scroll\"><table>\n<tr><th>tree</th><th>note</th>\
             <th class=\"n\">delivered</th><th class=\"n\">p50</th><th class=\"n\">p90</th><th class=\"n\">p99</th></tr>\n",
        );
        let notes = |tree: &TreeStats, note: Note, latency: &Histogram| {
            let quantile = |q| match latency.count() {
                0 => "–".into(),
                _ => duration(latency.quantile(q)),
            };
            format!(
                "<tr><th scope=\"row\">{}</th><td>{note}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                Escaped(&tree.name),
                thousands(latency.count()),
                quantile(0.5),
                quantile(0.9),
                quantile(0.99),
            )
        };
        for tree in &self.stats.trees {
            html.push_str(&notes(tree, Note::Child, &tree.child_latency));
            html.push_str(&notes(tree, Note::Exit, &tree.exit_latency));
        }
        html.push_str("</table></div></section>\n");
        html
    }

    fn incidents(&self) -> String {
        let mut html = String::from("<section><h2>Latest incidents</h2>\n");
        if self.incidents.is_empty() {
            html.push_str("<p>None: both witnesses agreed on every fact.</p>\n");
        } else {
            let skipped = match self.skipped {
                0 => String::new(),
                n => format!(" Of too many at once a sample is kept: {} were not.", thousands(n)),
            };
            let _ = writeln!(
                html,
                "<p>The newest {LISTED} of each verdict; <a href=\"{TOP}incidents\">more</a>.{skipped}</p>"
            );
        }
        for one in &self.incidents {
            html.push_str(&incident::article(
                one,
                self.snapshot.of_incident(one),
                incident::Place::Status,
            ));
        }
        html.push_str("</section>\n");
        html
    }
}

struct Card {
    title: &'static str,
    value: String,
    detail: String,
    class: &'static str,
}

/// Never 100 % unless it is all of them.
fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}
