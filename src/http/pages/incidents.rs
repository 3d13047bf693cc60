//! The list of incidents, with its filters as a form.

use std::fmt::{Display, Write};

use super::{Escaped, banner, page};
use crate::http::filter::{FACTS, Filter, Listed};
use crate::http::incidents::Incident;
use crate::http::query;
use crate::http::routes::TOP;
use crate::report::format::{count_of, thousands};
use crate::report::verdict_filter::VerdictFilter;
use crate::report::{evidence, rfc3339};

/// The page.
pub(in crate::http) fn html(listed: &Listed<'_>) -> String {
    let mut main = banner(listed.about);
    main.push_str("<h1>Incidents</h1>\n");
    main.push_str(&form(listed));
    main.push_str(&summary(listed));
    if !listed.incidents.is_empty() {
        main.push_str(&table(listed));
    }
    let query = match listed.filter.query() {
        query if query.is_empty() => query,
        query => query + "&",
    };
    let query = Escaped(query);
    let _ = writeln!(
        main,
        "<p>For programs: <a href=\"{TOP}incidents?{query}format=json\">JSON</a>.</p>"
    );
    page(TOP, "Incidents", "", &main)
}

fn form(listed: &Listed<'_>) -> String {
    let Filter { tree, verdict, fact, pid, limit, .. } = listed.filter;
    let trees = listed.snapshot.total.trees.iter().map(|tree| tree.name.as_str());
    let asked = tree.as_deref();
    // What was asked for stays to be seen, though there is no such tree.
    let unknown = asked.filter(|name| trees.clone().all(|tree| tree != *name));
    let trees = choice("tree", trees.chain(unknown), asked);
    let verdicts = choice(
        "verdict",
        VerdictFilter::all().map(VerdictFilter::as_str),
        verdict.map(VerdictFilter::as_str),
    );
    let facts = choice("fact", FACTS.map(evidence::fact).into_iter(), fact.map(evidence::fact));
    let pid = pid.map_or(String::new(), |pid| pid.to_string());
    format!(
        "<form class=\"filter\" action=\"{TOP}incidents\">\n{trees}{verdicts}{facts}\
         <label>pid <input name=\"pid\" inputmode=\"numeric\" size=\"6\" value=\"{pid}\"></label>\n\
         <label>limit <input name=\"limit\" inputmode=\"numeric\" size=\"6\" value=\"{limit}\"></label>\n\
         <button>Show</button> <a href=\"{TOP}incidents\">all</a>\n</form>\n"
    )
}

/// A list to choose one of, or none.
fn choice<'a>(name: &str, values: impl Iterator<Item = &'a str>, chosen: Option<&str>) -> String {
    let mut html =
        format!("<label>{name} <select name=\"{name}\">\n<option value=\"\">any</option>\n");
    for value in values {
        let selected = if Some(value) == chosen { " selected" } else { "" };
        let value = Escaped(value);
        let _ = writeln!(html, "<option value=\"{value}\"{selected}>{value}</option>");
    }
    html.push_str("</select></label>\n");
    html
}

fn summary(listed: &Listed<'_>) -> String {
    let shown = match listed.incidents.len() {
        0 => "None that this lets through".to_owned(),
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
    format!("<p>{shown}.{skipped}</p>\n")
}

fn table(listed: &Listed<'_>) -> String {
    let mut html = String::from(
        "<div class=\"scroll\"><table>\n<tr><th class=\"n\">incident</th><th class=\"n\">pid</th><th>fact</th>\
         <th>verdict</th><th>tree</th><th class=\"n\">forker</th><th>time</th></tr>\n",
    );
    for incident in &listed.incidents {
        html.push_str(&row(listed, incident));
    }
    html.push_str("</table></div>\n");
    html
}

fn row(listed: &Listed<'_>, incident: &Incident) -> String {
    let (Incident { id, finding, .. }, stats) = (incident, listed.snapshot.of_incident(incident));
    let time = stats.wall_of(evidence::happened(finding)).map(rfc3339::utc);
    let time = time.unwrap_or_else(|| "unknown".to_owned());
    let (pid, verdict) = (finding.pid, finding.verdict);
    let forker = finding.dtrace.forker.map_or("unknown".to_owned(), |pid| pid.to_string());
    format!(
        "<tr class=\"{verdict}\"><td class=\"n\"><a href=\"{TOP}incidents/{id}\">{id}</a></td><td class=\"n\">{pid}</td>\
         <td>{fact}</td><td class=\"verdict\">{verdict}</td><td>{tree}</td><td class=\"n\">{forker}</td>\
         <td><time>{time}</time></td></tr>\n",
        tree = narrowed("tree", evidence::tree_name(finding, stats)),
        pid = narrowed("pid", pid),
        fact = evidence::fact(finding.fact),
    )
}

/// A value that leads to the incidents that share it.
fn narrowed(name: &str, value: impl Display) -> String {
    let value = value.to_string();
    let query = query::encode(&value);
    format!("<a href=\"{TOP}incidents?{name}={query}\">{}</a>", Escaped(&value))
}
