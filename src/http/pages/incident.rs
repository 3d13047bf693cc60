//! One incident with its time line.

use maud::{Markup, html};

use super::page;
use crate::check::stats::Stats;
use crate::http::incidents::NumberedFinding;
use crate::http::paths::{BELOW, TOP};
use crate::report::escape::Clean;
use crate::report::evidence::dto::TimelineRow;
use crate::report::{evidence, format};

/// The page.
pub(in crate::http) fn html(incident: &NumberedFinding, stats: &Stats) -> String {
    let dto = incident.dto_in_full(stats);
    let title = format!("Incident {}: {} {}", dto.id, dto.verdict, dto.fact);
    let main = html! {
        h1 { (title) }
        (article(incident, stats, Place::Own))
        (timeline(&dto.timeline))
        p { a href={ (TOP) (incident.id) "?format=json" } { "This incident as JSON" } }
    };
    page(BELOW, &title, html! {}, main)
}

/// Which page an incident stands on.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The status page, which links to the incident's own.
    Status,
    Own,
}

/// An incident with the evidence of both witnesses.
pub(super) fn article(incident: &NumberedFinding, stats: &Stats, place: Place) -> Markup {
    let finding = &incident.finding;
    let dto = incident.dto(stats);
    let forker = finding.dtrace.forker.map_or("unknown".to_owned(), |pid| pid.to_string());
    let what = evidence::judged(finding);
    let path = &dto.kernel_path;
    let root = match place {
        Place::Status => TOP,
        Place::Own => BELOW,
    };
    html! {
        article class={ "incident " (finding.verdict.class()) } {
            h3 {
                @match place {
                    Place::Status => a href={ (TOP) "incidents/" (incident.id) } { (what) },
                    Place::Own => (what),
                }
            }
            p.who {
                time { (dto.time.as_deref().unwrap_or("time unknown")) }
                " " span { "tree " b { (Clean(&dto.tree)) } }
                " " span { "pid " b { (dto.pid) } }
                " " span { "forker " b { (forker) } }
            }
            dl {
                dt { "kqueue" } dd { (Clean(evidence::kqueue_summary(finding, &dto.tree))) }
                dt { "DTrace" } dd { (Clean(evidence::dtrace_summary(finding))) }
            }
            p.path {
                (path.sentence)
                @if !path.function.is_empty() { " " code { (path.function) } ", " (path.sure) "." }
                " " a href={ (root) (dto.runbook) } { "Runbook" }
            }
        }
    }
}

fn timeline(rows: &[TimelineRow]) -> Markup {
    let Some(first) = rows.first().map(|row| row.at) else { return html! {} };
    html! {
        h2 { "Time line" }
        div.scroll {
            table.timeline {
                tr { th { "after" } th { "witness" } th { "event" } }
                @for row in rows {
                    tr {
                        td.n { (format::duration(row.at.since(first))) }
                        td { (row.witness.as_deref().unwrap_or("verdict")) }
                        td { (Clean(&row.text)) }
                    }
                }
            }
        }
    }
}
