//! Names of metrics: every metric and label in a document, a dashboard, an alert or a test of one exists, and every metric is
//! documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use kqproc_exporter::check::stats::BlindReason;
use kqproc_exporter::metrics::table::{Def, HOST, TABLE, Type};
use kqproc_exporter::model::Verdict;
use kqproc_exporter::wire::decode::Reason;
use serde_json::Value;

use crate::project::{Rule, path, read, rules};
use crate::promql::{grouping, selectors};

/// The labels that Prometheus adds to every series.
const TARGET: [&str; 2] = ["job", "instance"];

fn find(name: &str) -> Option<&'static Def> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let histogram = |def: &&Def| def.kind == Type::Histogram && Some(def.name) == base;
    TABLE.iter().find(|def| def.name == name).or_else(|| TABLE.iter().find(histogram))
}

/// The recording rules by name.
fn recordings() -> BTreeMap<String, Rule> {
    rules("recording.yml").into_iter().map(|rule| (rule.record.clone().unwrap(), rule)).collect()
}

/// The labels that the series of a query may have. Asserts that the metrics and labels that it selects exist.
fn labels_of(place: &str, query: &str, recorded: &BTreeMap<String, Rule>) -> BTreeSet<String> {
    let mut known: BTreeSet<String> = TARGET.map(String::from).into();
    for selector in selectors(query) {
        let own: BTreeSet<String> = if selector.name.contains(':') {
            let rule = recorded.get(selector.name);
            let rule = rule.unwrap_or_else(|| panic!("{place}: no recording {}", selector.name));
            labels_of(selector.name, &rule.expr, recorded)
        } else if selector.name == "up" {
            BTreeSet::new()
        } else {
            let def = find(selector.name);
            let def = def.unwrap_or_else(|| panic!("{place}: no metric {}", selector.name));
            let le = selector.name.ends_with("_bucket").then_some("le");
            def.labels.iter().copied().chain(le).map(String::from).collect()
        };
        for label in selector.label_names() {
            let exists = own.contains(label) || TARGET.contains(&label);
            assert!(exists, "{place}: {} has no label {label}", selector.name);
        }
        known.extend(own);
    }
    if query.contains("label_replace(") {
        // label_replace(vector, "new", "$1", "old", "(.+)")
        let quoted: Vec<&str> = query.split('"').skip(1).step_by(2).collect();
        known.insert(quoted[quoted.len() - 4].to_string());
    }
    for label in grouping(query) {
        assert!(
            known.contains(label),
            "{place}: groups by {label}, which nothing in it has: {query}"
        );
    }
    known
}

/// The texts between `open` and `close`: the names in a template.
fn placeholders<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).map(str::trim).collect()
}

#[test]
fn rules_select_what_there_is_and_templates_name_its_labels() {
    let recorded = recordings();
    for (name, rule) in &recorded {
        let labels = labels_of(name, &rule.expr, &recorded);
        let level = name.split(':').next().unwrap().split('_').filter(|part| *part != "job");
        level.for_each(|part| {
            assert!(labels.contains(part), "{name}: its level is not in its labels")
        });
    }
    for rule in rules("alerts.yml") {
        let name = rule.alert.unwrap();
        let labels = labels_of(&name, &rule.expr, &recorded);
        for (annotation, text) in &rule.annotations {
            for used in placeholders(text, "{{ $labels.", '}') {
                let used = used.split(' ').next().unwrap();
                assert!(labels.contains(used), "{name}: its {annotation} names {used}");
            }
        }
    }
}

#[test]
fn dashboards_select_what_there_is_and_legends_name_its_labels() {
    for file in ["host", "fleet"] {
        let board: Value = serde_json::from_str(&read(&format!("dashboards/{file}.json"))).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            let place = format!("{file}: {}", panel["title"]);
            for target in panel["targets"].as_array().into_iter().flatten() {
                let labels = labels_of(&place, target["expr"].as_str().unwrap(), &BTreeMap::new());
                for used in placeholders(target["legendFormat"].as_str().unwrap(), "{{", '}') {
                    assert!(labels.contains(used), "{place}: its legend names {used}");
                }
            }
            // A link may use the labels that the legend names, because the query keeps them.
            let legends = panel["targets"].to_string();
            let links = panel["fieldConfig"]["defaults"]["links"].to_string();
            for used in placeholders(&links, "${__field.labels.", '}') {
                let used = used.split(':').next().unwrap(); // `:percentencode`
                let named = legends.contains(&format!("{{{{{used}}}}}"));
                assert!(named, "{place}: a link needs {used}");
            }
        }
        for template in board["templating"]["list"].as_array().unwrap() {
            let query = template["definition"].as_str().unwrap_or("");
            labels_of(file, query, &BTreeMap::new());
        }
    }
}

#[test]
fn the_tests_of_the_rules_feed_series_as_the_exporter_has_them() {
    for file in ["tracking", "consumer", "witness", "exporter", "recording"] {
        let text = read(&format!("deploy/prometheus/tests/{file}.yml"));
        for series in placeholders(&text, "series: '", '\'') {
            let [selector] = &selectors(series)[..] else { panic!("{file}: {series}") };
            let expected = find(selector.name).map(|def| def.labels).unwrap_or_default();
            let labels: BTreeSet<&str> = selector.label_names().into_iter().collect();
            // Series of the exporter's own host have no label `host`.
            let is_there = |label: &&str| *label != HOST || labels.contains(HOST);
            let expected: BTreeSet<&str> =
                expected.iter().copied().filter(is_there).chain(TARGET).collect();
            assert!(find(selector.name).is_some() || selector.name == "up", "{file}: {series}");
            assert_eq!(labels, expected, "{file}: {series}");
        }
    }
}

/// Every text that may name a metric. Code is not among them: it has the names from the table.
fn documents() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|e| e == "py") {
                // build.py puts names together; the JSON that it writes is read instead.
            } else if let Ok(text) = fs::read_to_string(&entry) {
                found.push((entry.display().to_string(), text));
            }
        }
    }
    let mut found = Vec::new();
    ["docs", "deploy", "dashboards"].iter().for_each(|dir| walk(&path(dir), &mut found));
    found.extend(fs::read_to_string(path("README.md")).ok().map(|text| ("README.md".into(), text)));
    found
}

#[test]
fn every_name_in_a_document_is_a_metric() {
    for (place, text) in documents() {
        let in_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
        let mut before = ' ';
        for (at, name) in
            text.split(|c| !in_name(c)).map(|w| (w.as_ptr() as usize - text.as_ptr() as usize, w))
        {
            before = text[..at].chars().next_back().unwrap_or(before);
            let name = name.trim_end_matches(':');
            if !name.starts_with("kqproc_")
                || name.contains(':')
                || name.starts_with("kqproc_exporter")
            {
                continue;
            }
            // `grep ^kqproc_dtrace` and `kqproc_.+` stand for every name that begins like this.
            let rest = &text[at + name.len()..];
            let prefix = before == '^' || rest.starts_with(".+") || rest.starts_with(".*");
            let known =
                find(name).is_some() || prefix && TABLE.iter().any(|d| d.name.starts_with(name));
            assert!(known, "{place}: there is no metric {name}");
        }
    }
}

/// The names in docs/reliability.md are those of a metric, the value of a label, an alert, a command or a path.
#[test]
fn what_a_fault_is_reported_by_exists() {
    let page = read("docs/reliability.md");
    let alerts: BTreeSet<String> =
        rules("alerts.yml").into_iter().filter_map(|r| r.alert).collect();
    let values: BTreeSet<&str> = (BlindReason::ALL.iter().map(|r| r.as_str()))
        .chain(Reason::ALL.iter().map(|r| r.as_str()))
        .chain(Verdict::ALL.iter().map(|v| v.as_str()))
        .collect();
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault")) {
        let (cells, _tests) = row.rsplit_once(" | ").unwrap();
        for name in placeholders(cells, "`", '`').into_iter().step_by(2) {
            let known = find(name).is_some()
                || values.contains(name)
                || ["up", "check", "consumers", "record"].contains(&name)
                || name.starts_with("/-/");
            assert!(known, "docs/reliability.md: there is no {name}");
        }
        for name in cells.split(|c: char| !c.is_alphanumeric()).filter(|w| w.starts_with("Kqproc"))
        {
            assert!(alerts.contains(name), "docs/reliability.md: there is no alert {name}");
        }
    }
}
