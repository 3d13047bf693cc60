//! One incident with its time line.

use std::fmt::Write;

use super::{Escaped, page};
use crate::check::finding::Finding;
use crate::check::stats::Stats;
use crate::http::incidents::{Incident, Told, runbook};
use crate::model::Witness;
use crate::report::{evidence, paint, paths};

/// The page.
pub(in crate::http) fn html(incident: &Incident, stats: &Stats) -> String {
    let finding = &incident.finding;
    let title =
        format!("Incident {}: {} {}", incident.id, finding.verdict, evidence::fact(finding.fact));
    let mut main = format!("<h1>{}</h1>\n", Escaped(&title));
    main.push_str(&article(incident, stats, false));
    main.push_str(&timeline(finding));
    let id = incident.id;
    let _ =
        writeln!(main, "<p><a href=\"/incidents/{id}?format=json\">This incident as JSON</a></p>");
    page(&title, "", &main)
}

/// An incident as the status page lists it, linked to its own page there.
pub(super) fn article(incident: &Incident, stats: &Stats, linked: bool) -> String {
    let (finding, told) = (&incident.finding, Told::new(incident, stats));
    let verdict = finding.verdict;
    let time = told.time.unwrap_or_else(|| "time unknown".into());
    let forker = finding.dtrace.forker.map_or("unknown".into(), |pid| pid.to_string());
    let mut html = format!("<article class=\"incident {verdict}\">\n<h3>");
    let what = format!("{} {verdict}", evidence::fact(finding.fact));
    let _ = match linked {
        true => write!(html, "<a href=\"/incidents/{}\">{what}</a>", incident.id),
        false => write!(html, "{what}"),
    };
    let _ = writeln!(
        html,
        "</h3>\n<p class=\"who\"><time>{time}</time> <span>tree <b>{tree}</b></span> <span>pid <b>{pid}</b></span> \
         <span>parent <b>{forker}</b></span></p>\n<dl><dt>kqueue said</dt><dd>{kqueue}</dd>\n\
         <dt>DTrace said</dt><dd>{dtrace}</dd></dl>\n\
         <p class=\"path\">{path} <a href=\"{runbook}\">Runbook</a></p>\n</article>",
        tree = Escaped(told.tree),
        pid = finding.pid,
        kqueue = Escaped(kqueue_said(finding)),
        dtrace = Escaped(dtrace_said(finding)),
        path = kernel_path(finding, stats),
        runbook = runbook(verdict),
    );
    html
}

/// What happened in the kernel, where, and how sure that is.
fn kernel_path(finding: &Finding, stats: &Stats) -> String {
    let path = paths::path(finding, stats.regime);
    let place = match path.function {
        "" => String::new(),
        function => format!(" <code>{}</code>, {}.", Escaped(function), path.sure),
    };
    format!("{}{place}", Escaped(path.sentence))
}

fn kqueue_said(finding: &Finding) -> String {
    let kqueue = &finding.kqueue;
    let exit = kqueue.exit.filter(|exit| kqueue.child != Some(*exit));
    let mut words: Vec<String> = kqueue.child.iter().chain(&exit).map(evidence::told).collect();
    if kqueue.trackerr {
        words.push("NOTE_TRACKERR on the parent".into());
    }
    if words.is_empty() { "nothing".into() } else { words.join("; ") }
}

fn dtrace_said(finding: &Finding) -> String {
    let dtrace = &finding.dtrace;
    let created = dtrace.created.map(|_| match dtrace.forker {
        Some(forker) => format!("created by {forker}"),
        None => "created".into(),
    });
    let exited = dtrace.exited.map(|_| match dtrace.status {
        Some(status) => format!("ended with {status}"),
        None => "ended".into(),
    });
    let words: Vec<String> = created.into_iter().chain(exited).collect();
    if words.is_empty() { "nothing".into() } else { words.join("; ") }
}

fn timeline(finding: &Finding) -> String {
    let moments = evidence::timeline(finding);
    let Some(first) = moments.first().map(|moment| moment.at) else { return String::new() };
    let mut html = String::from(
        "<h2>Time line</h2>\n<div class=\"scroll\"><table class=\"timeline\">\n\
         <tr><th>after</th><th>witness</th><th>said</th></tr>\n",
    );
    for moment in &moments {
        let witness = match moment.witness {
            Some(Witness::Kqueue) => "kqueue",
            Some(Witness::Dtrace) => "DTrace",
            None => "exporter",
        };
        let after = paint::duration(moment.at.since(first));
        let said = Escaped(&moment.said);
        let _ = writeln!(
            html,
            "<tr><td class=\"n\">{after}</td><td>{witness}</td><td>{said}</td></tr>"
        );
    }
    html.push_str("</table></div>\n");
    html
}
