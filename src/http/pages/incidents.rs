//! The list of incidents, with its filters as a form.

use std::fmt::Display;

use maud::{Markup, html};

use super::{banner, page};
use crate::http::filter::{Filter, Listed};
use crate::http::incidents::NumberedFinding;
use crate::http::paths::TOP;
use crate::http::query;
use crate::model::Fact;
use crate::report::escape::Clean;
use crate::report::evidence;
use crate::report::format::{count_of, thousands};
use crate::report::verdict_filter::VerdictFilter;

/// The page.
pub(in crate::http) fn html(listed: &Listed<'_>) -> String {
    let query = match listed.filter.query() {
        query if query.is_empty() => query,
        query => query + "&",
    };
    let main = html! {
        (banner(listed.about))
        h1 { "Incidents" }
        (form(listed))
        p { (summary(listed)) }
        @if !listed.incidents.is_empty() { (table(listed)) }
        p { "For programs: " a href={ (TOP) "incidents?" (query) "format=json" } { "JSON" } "." }
    };
    page(TOP, "Incidents", html! {}, main)
}

fn form(listed: &Listed<'_>) -> Markup {
    let Filter { tree, verdict, fact, pid, limit, .. } = listed.filter;
    let trees = listed.snapshot.total.trees.iter().map(|tree| tree.name.as_str());
    let asked = tree.as_deref();
    // A tree that was asked for stays in the list, though there is none of that name.
    let unknown = asked.filter(|name| trees.clone().all(|tree| tree != *name));
    let verdicts = VerdictFilter::all().map(VerdictFilter::as_str);
    let pid = pid.map_or(String::new(), |pid| pid.to_string());
    html! {
        form.filter action={ (TOP) "incidents" } {
            (choice("tree", trees.chain(unknown), asked))
            (choice("verdict", verdicts, verdict.map(VerdictFilter::as_str)))
            (choice("fact", Fact::ALL.iter().map(|fact| fact.as_str()), fact.map(Fact::as_str)))
            label { "pid " input name="pid" inputmode="numeric" size="6" value=(pid); }
            label { "limit " input name="limit" inputmode="numeric" size="6" value=(limit); }
            button { "Show" } " " a href={ (TOP) "incidents" } { "all" }
        }
    }
}

/// A list to choose one of, or none.
fn choice<'a>(name: &str, values: impl Iterator<Item = &'a str>, chosen: Option<&str>) -> Markup {
    html! {
        label {
            (name) " "
            select name=(name) {
                option value="" { "any" }
                @for value in values {
                    option value=(Clean(value)) selected[Some(value) == chosen] { (Clean(value)) }
                }
            }
        }
    }
}

fn summary(listed: &Listed<'_>) -> String {
    let shown = match listed.incidents.len() {
        0 => "No incident matches".to_owned(),
        n if listed.more => format!("The newest {}; there are more", thousands(n as u64)),
        n => format!("{}, newest first", count_of(n as u64, "incident")),
    };
    let skipped = match listed.skipped {
        0 => String::new(),
        n => format!(
            " Of too many of one verdict at once a sample is kept: {} since the start were not.",
            thousands(n)
        ),
    };
    format!("{shown}.{skipped}")
}

fn table(listed: &Listed<'_>) -> Markup {
    html! {
        div.scroll {
            table {
                tr {
                    th.n { "incident" } th.n { "pid" } th { "fact" } th { "verdict" } th { "tree" }
                    th.n { "forker" } th { "time" }
                }
                @for incident in &listed.incidents { (row(listed, incident)) }
            }
        }
    }
}

fn row(listed: &Listed<'_>, incident: &NumberedFinding) -> Markup {
    let (NumberedFinding { id, finding, .. }, stats) =
        (incident, listed.snapshot.of_incident(incident));
    let time = incident.time(stats);
    let forker = finding.dtrace.forker.map_or("unknown".to_owned(), |pid| pid.to_string());
    html! {
        tr class=(finding.verdict.class()) {
            td.n { a href={ (TOP) "incidents/" (id) } { (id) } }
            td.n { (narrowed("pid", finding.pid)) }
            td { (finding.fact) }
            td.verdict { (finding.verdict) }
            td { (narrowed("tree", evidence::tree_name(finding, stats))) }
            td.n { (forker) }
            td { time { (time.as_deref().unwrap_or("unknown")) } }
        }
    }
}

/// A value that leads to the incidents that share it.
fn narrowed(name: &str, value: impl Display) -> Markup {
    let value = value.to_string();
    html! {
        a href={ (TOP) "incidents?" (name) "=" (query::encode(&value)) } { (Clean(&value)) }
    }
}
