//! The status page: the answer, the witnesses, the kernel, rates and the latest incidents at a glance.

use maud::{Markup, html};

use super::spark::{rate, spark};
use super::{banner, incident, page};
use crate::check::stats::{Histogram, NoteKind, Stats, TreeStats};
use crate::http::about::About;
use crate::http::history::{Hour, Series, count};
use crate::http::incidents::NumberedFinding;
use crate::http::paths::TOP;
use crate::http::query;
use crate::http::snapshot::Snapshot;
use crate::metrics::CpuUsage;
use crate::model::{Regime, Verdict, VerdictClass};
use crate::report::advice::consumer_advice;
use crate::report::answer::{self, Soundness};
use crate::report::escape::Clean;
use crate::report::format::{Hue, count_of, duration, thousands};
use crate::report::table::Table;

/// How many incidents of each verdict the page lists.
pub(in crate::http) const LISTED: usize = 5;

/// What the page shows, of one moment.
pub(in crate::http) struct StatusPage<'a> {
    pub(in crate::http) about: &'a About,
    pub(in crate::http) telemetry_path: &'a str,
    pub(in crate::http) snapshot: &'a Snapshot,
    /// Its total.
    pub(in crate::http) stats: &'a Stats,
    pub(in crate::http) hour: Hour,
    /// The sources that do not deliver.
    pub(in crate::http) down: Vec<String>,
    pub(in crate::http) cpu: &'a CpuUsage,
    /// The newest of each verdict, newest first.
    pub(in crate::http) incidents: Vec<NumberedFinding>,
    /// How many incidents of a flood were not kept.
    pub(in crate::http) skipped: u64,
}

impl StatusPage<'_> {
    pub(in crate::http) fn html(&self) -> String {
        let main = html! {
            (banner(self.about))
            h1 class=(Soundness::of(self.stats)) { (Clean(answer::sentence(self.stats))) }
            section.cards aria-label="At a glance" {
                @for card in [self.lost_now(), self.witnesses(), self.kernel(), self.recent(), self.cost()] {
                    div class={ "card " (card.class) } {
                        h2 { (card.title) }
                        p.value { (Clean(card.value)) }
                        p { (Clean(card.detail)) }
                    }
                }
            }
            (self.verdicts())
            (self.trees())
            (self.consumers())
            (self.latencies())
            (self.incidents())
            p {
                "For programs: "
                a href={ (TOP) (self.telemetry_path.trim_start_matches('/')) } { "metrics" } ", "
                a href={ (TOP) "incidents?format=json" } { "incidents" } "."
            }
        };
        let head = html! {
            script src={ (TOP) "status.js" } defer {}
            noscript { meta http-equiv="refresh" content="10"; }
        };
        page(TOP, "kqproc_exporter", head, main)
    }

    fn lost_now(&self) -> StatCard {
        let totals = self.stats.totals();
        let (lost, ghosts) = (totals.lost_alive, totals.ghosts());
        StatCard {
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

    fn witnesses(&self) -> StatCard {
        let blind = format!("Blind for {:.1} s so far.", self.stats.blind_seconds());
        let (value, class) = match () {
            () if !self.down.is_empty() => (format!("Down: {}", self.down.join(", ")), "bad"),
            () if self.stats.dtrace_blind_now => ("DTrace is blind".into(), "doubt"),
            () => ("Both see".into(), "good"),
        };
        StatCard { title: "Witnesses", value, detail: blind, class }
    }

    fn kernel(&self) -> StatCard {
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
        StatCard { title: "Kernel", value: release.into(), detail, class }
    }

    fn recent(&self) -> StatCard {
        let of = |verdict: &Verdict| Some((*verdict, self.hour.rate(Series::Verdict(*verdict))?));
        let rates: Option<Vec<(Verdict, f64)>> = Verdict::ALL.iter().map(of).collect();
        let Some(rates) = rates else {
            let detail = "The first rates come in 10 seconds.".into();
            return StatCard { title: "Last minute", value: "–".into(), detail, class: "plain" };
        };
        let of = |class: &[VerdictClass]| -> f64 {
            rates.iter().filter(|(v, _)| class.contains(&v.class())).map(|(_, rate)| rate).sum()
        };
        let (all, agreed) = (of(VerdictClass::ALL), of(&[VerdictClass::Good]));
        let open = of(&[VerdictClass::Open]);
        let (detail, class) = match () {
            () if all == 0.0 => ("No process was born or died.".into(), "plain"),
            () if agreed == all => ("Both witnesses agreed on all of them.".into(), "good"),
            () => {
                let class = if agreed + open < all { "bad" } else { "doubt" };
                (format!("{} of them agreed.", percent(agreed / all)), class)
            }
        };
        StatCard { title: "Last minute", value: format!("{} facts/s", rate(all)), detail, class }
    }

    fn cost(&self) -> StatCard {
        let title = "What watching costs";
        let (value, when, each) = match self.cpu.recent() {
            Some((time, shares)) => {
                let all: f64 = shares.iter().map(|(_, share)| share).sum();
                let value = format!("{:.2} % of a CPU", all * 100.0);
                let each = |(process, share)| format!("{process} {:.2} %", share * 100.0);
                let each: Vec<String> = shares.into_iter().map(each).collect();
                (value, format!("In the last {:.0} s", time.as_secs_f64()), each)
            }
            None => {
                let each = |(process, seconds)| format!("{process} {seconds:.2} s");
                let each = self.cpu.seconds().into_iter().map(each).collect();
                ("–".to_owned(), "Since the start".to_owned(), each)
            }
        };
        StatCard { title, value, detail: format!("{when}: {}.", each.join(", ")), class: "plain" }
    }

    fn verdicts(&self) -> Markup {
        let totals = self.stats.totals();
        let class = |verdict: Verdict| match count(&totals, verdict) {
            0 => "zero",
            _ => verdict.class().as_str(),
        };
        let pending = match self.stats.trees.iter().map(TreeStats::pending).sum() {
            1 => "1 fact waits".to_owned(),
            n => format!("{} facts wait", thousands(n)),
        };
        html! {
            section {
                h2 { "Verdicts" }
                div.scroll {
                    table {
                        tr {
                            th { "verdict" } th.n { "births" } th.n { "deaths" } th.n { "/s" }
                            th { "last hour" }
                        }
                        @for &verdict in Verdict::ALL {
                            tr class=(class(verdict)) {
                                th scope="row" { (verdict.as_str().replace('_', " ")) }
                                td.n { (thousands(totals.births[verdict.index()])) }
                                td.n { (thousands(totals.deaths[verdict.index()])) }
                                (self.trend(Series::Verdict(verdict), verdict.as_str()))
                            }
                        }
                    }
                }
                p {
                    (pending) " for a verdict. Collisions: " (thousands(totals.collisions.iter().sum()))
                    ". NOTE_TRACKERR: " (thousands(totals.trackerr_reports))
                    ". Duplicate NOTE_CHILD: " (thousands(totals.duplicate_child_notes)) "."
                }
            }
        }
    }

    fn trees(&self) -> Markup {
        let facts = |tree: &TreeStats| Verdict::ALL.iter().map(|v| count(tree, *v)).sum();
        html! {
            section {
                h2 { "Trees" }
                div.scroll {
                    table {
                        tr {
                            th { "tree" } th { "watched as" } th.n { "tracked" } th.n { "lost now" } th.n { "ghosts" }
                            th.n { "facts" } th.n { "/s" } th { "last hour" }
                            th.n { "disagreed/s" } th { "last hour" }
                        }
                        @for (i, tree) in self.stats.trees.iter().enumerate() {
                            tr {
                                th scope="row" {
                                    a href={ (TOP) "incidents?tree=" (query::encode(&tree.name)) } {
                                        (Clean(&tree.name))
                                    }
                                    @if !tree.attached { " " em { "(no process)" } }
                                }
                                td { (watched_as(tree)) }
                                td.n { (thousands(tree.tracked)) }
                                td.n { (thousands(tree.lost_alive)) }
                                td.n { (thousands(tree.ghosts())) }
                                td.n { (thousands(facts(tree))) }
                                (self.trend(Series::Tree(i), "facts"))
                                (self.trend(Series::Disagreed(i), "disagreed"))
                            }
                        }
                    }
                }
            }
        }
    }

    /// What is to be known of those consumers that are late, or ask for what may cost them events.
    fn consumers(&self) -> Markup {
        let consumers = || {
            let trees = self.stats.trees.iter();
            trees.filter_map(|tree| Some((Clean(&tree.name), tree.consumer.as_ref()?)))
        };
        html! {
            @for (name, consumer) in consumers().filter(|(_, consumer)| consumer.undelivered > 0) {
                p {
                    "Not given to " b { (name) } " yet: " (count_of(consumer.undelivered, "fact"))
                    ". The oldest has waited for " (duration(consumer.lag_ns)) "."
                }
            }
            @for (name, consumer) in consumers() {
                @if let Some(advice) = consumer_advice(consumer) {
                    p {
                        b { (name) } ": " (advice) ". "
                        a href={ (TOP) "runbook#note_exit-on-a-kqueue-of-its-own" } { "Runbook" }
                    }
                }
            }
        }
    }

    /// Two cells: the rate now, and its hour.
    fn trend(&self, series: Series, what: &str) -> Markup {
        let now = self.hour.rate(series).map_or("–".to_owned(), rate);
        html! {
            td.n { (now) }
            td { (spark(&self.hour.rates(series), what)) }
        }
    }

    fn latencies(&self) -> Markup {
        let quantile = |latency: &Histogram, q| match latency.count() {
            0 => "–".to_owned(),
            _ => duration(latency.quantile(q)),
        };
        let mut table = Table::new(&["tree", "note", "#delivered", "#p50", "#p90", "#p99"]);
        for tree in &self.stats.trees {
            for (note, latency) in
                [(NoteKind::Child, &tree.child_latency), (NoteKind::Exit, &tree.exit_latency)]
            {
                let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| quantile(latency, q));
                let delivered = thousands(latency.count());
                let row = [tree.name.clone(), note.to_string(), delivered, p50, p90, p99];
                table.row(Hue::Plain, row);
            }
        }
        html! {
            section {
                h2 { "Delivery latency" }
                p {
                    "From DTrace's probe to the kevent(2) call that delivered the note; upper bounds since the start."
                }
                (table.html())
            }
        }
    }

    fn incidents(&self) -> Markup {
        let skipped = match self.skipped {
            0 => String::new(),
            n => format!(" Of too many at once a sample is kept: {} were not.", thousands(n)),
        };
        html! {
            section {
                h2 { "Latest incidents" }
                @if self.incidents.is_empty() {
                    p { "None: both witnesses agreed on every fact." }
                } @else {
                    p {
                        "The newest " (LISTED) " of each verdict; "
                        a href={ (TOP) "incidents" } { "more" } "." (skipped)
                    }
                }
                @for one in &self.incidents {
                    (incident::article(one, self.snapshot.of_incident(one), incident::Place::Status))
                }
            }
        }
    }
}

/// `mirror`, or `consumer, pid 812`.
fn watched_as(tree: &TreeStats) -> String {
    match tree.consumer.as_ref().and_then(|consumer| consumer.pid) {
        Some(pid) => format!("{}, pid {pid}", tree.mode()),
        None => tree.mode().to_owned(),
    }
}

struct StatCard {
    title: &'static str,
    value: String,
    detail: String,
    class: &'static str,
}

/// Never 100 % unless it is all of them.
fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}
