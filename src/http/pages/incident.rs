//! One incident with its time line.

use std::fmt::Write;

use super::{Escaped, page};
use crate::check::stats::Stats;
use crate::http::incidents::Incident;
use crate::http::routes::{BELOW, TOP};
use crate::report::evidence::dto::{IncidentDto, PathDto, TimelineRow};
use crate::report::{evidence, format};

/// The page.
pub(in crate::http) fn html(incident: &Incident, stats: &Stats) -> String {
    let dto = IncidentDto::in_full(incident.id, &incident.finding, stats);
    let title = format!("Incident {}: {} {}", dto.id, dto.verdict, dto.fact);
    let mut main = format!("<h1>{}</h1>\n", Escaped(&title));
    main.push_str(&article(incident, stats, Place::Own));
    main.push_str(&timeline(&dto.timeline));
    let id = incident.id;
    let _ = writeln!(main, "<p><a href=\"{TOP}{id}?format=json\">This incident as JSON</a></p>");
    page(BELOW, &title, "", &main)
}

/// Which page an incident stands on.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// The status page, which links to the incident's own.
    Status,
    Own,
}

/// An incident with the evidence of both witnesses.
pub(super) fn article(incident: &Incident, stats: &Stats, place: Place) -> String {
    let finding = &incident.finding;
    let dto = IncidentDto::of(incident.id, finding, stats);
    let verdict = &dto.verdict;
    let time = dto.time.as_deref().unwrap_or("time unknown");
    let forker = finding.dtrace.forker.map_or("unknown".into(), |pid| pid.to_string());
    let mut html = format!("<article class=\"incident {verdict}\">\n<h3>");
    let what = evidence::judged(finding);
    let (root, _) = match place {
        Place::Status => {
            (TOP, write!(html, "<a href=\"{TOP}incidents/{}\">{what}</a>", incident.id))
        }
        Place::Own => (BELOW, write!(html, "{what}")),
    };
    let _ = writeln!(
        html,
        "</h3>\n<p class=\"who\"><time>{time}</time> <span>tree <b>{tree}</b></span> <span>pid <b>{pid}</b></span> \
         <span>forker <b>{forker}</b></span></p>\n<dl><dt>kqueue</dt><dd>{kqueue}</dd>\n\
         <dt>DTrace</dt><dd>{dtrace}</dd></dl>\n\
         <p class=\"path\">{path} <a href=\"{root}{runbook}\">Runbook</a></p>\n</article>",
        tree = Escaped(&dto.tree),
        pid = dto.pid,
        kqueue = Escaped(evidence::kqueue_said(finding)),
        dtrace = Escaped(evidence::dtrace_said(finding)),
        path = kernel_path(&dto.kernel_path),
        runbook = dto.runbook,
    );
    html
}

/// What happened in the kernel, where, and how sure that is.
fn kernel_path(path: &PathDto) -> String {
    let place = match path.function.as_ref() {
        "" => String::new(),
        function => format!(" <code>{}</code>, {}.", Escaped(function), path.sure),
    };
    format!("{}{place}", Escaped(&path.sentence))
}

fn timeline(moments: &[TimelineRow]) -> String {
    let Some(first) = moments.first().map(|moment| moment.at) else { return String::new() };
    let mut html = String::from(
        "<h2>Time line</h2>\n<div class=\"scroll\"><table class=\"timeline\">\n\
         <tr><th>after</th><th>witness</th><th>event</th></tr>\n",
    );
    for moment in moments {
        let witness = Escaped(moment.witness.as_deref().unwrap_or("verdict"));
        let after = format::duration(moment.at.since(first));
        let said = Escaped(&moment.said);
        let _ = writeln!(
            html,
            "<tr><td class=\"n\">{after}</td><td>{witness}</td><td>{said}</td></tr>"
        );
    }
    html.push_str("</table></div>\n");
    html
}
