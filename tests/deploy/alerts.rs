//! The alerts: their tests pass in promtool and fail for changed alerts, and the alerts keep the conventions that operators
//! expect (monitoring-mixins' annotations and severities, pint's alerts/* checks).

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use clap::Parser;
use kqproc_exporter::cli::Cli;
use kqproc_exporter::model::{Verdict, VerdictClass};

use crate::project::{headings, path, read, rules, run};

fn promtool_tests(dir: &std::path::Path) -> Result<String, String> {
    let files = ["tracking", "consumer", "witness", "exporter", "recording"];
    run(Command::new("promtool")
        .args(["test", "rules"])
        .args(files.map(|file| dir.join(format!("tests/{file}.yml")))))
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let dir = path("deploy/prometheus");
    let files = ["recording.yml", "alerts.yml"].map(|file| dir.join(file));
    run(Command::new("promtool").args(["check", "rules", "--lint-fatal"]).args(files)).unwrap();
    run(Command::new("promtool").args(["check", "config"]).arg(dir.join("prometheus.yml")))
        .unwrap();
    promtool_tests(&dir).unwrap();
}

/// A copy of the rules and their tests, with `change` made to the text of each file of rules.
fn changed(change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tests")).unwrap();
    for rules in ["recording.yml", "alerts.yml"] {
        let text = change(&read(&format!("deploy/prometheus/{rules}")));
        fs::write(dir.path().join(rules), text).unwrap();
    }
    for test in fs::read_dir(path("deploy/prometheus/tests")).unwrap().map(Result::unwrap) {
        fs::copy(test.path(), dir.path().join("tests").join(test.file_name())).unwrap();
    }
    dir
}

/// In Prometheus 3 a range leaves out its left end. In Prometheus 2 a range that is a millisecond shorter does so.
#[test]
fn fault_13_the_tests_of_the_rules_hold_for_prometheus_2_and_3() {
    let left_open = |text: &str| {
        let mut parts = text.split('[');
        let mut changed = parts.next().unwrap().to_owned();
        for part in parts {
            changed += "[";
            match part.split_once("m]").map(|(minutes, rest)| (minutes.parse::<u64>(), rest)) {
                Some((Ok(minutes), rest)) => {
                    changed += &format!("{}ms]{rest}", minutes * 60_000 - 1);
                }
                _ => changed += part,
            }
        }
        assert!(changed.contains("[299999ms]") || !text.contains("[5m]"));
        changed
    };
    promtool_tests(changed(left_open).path()).unwrap();
}

/// The tests must fail for alerts that fire a minute sooner or later: otherwise they do not test the edge.
#[test]
fn every_for_is_tested_to_the_minute() {
    for change in [-1, 1] {
        let shift = |line: &str| match line.trim_start().strip_prefix("for: ") {
            Some(hold) => {
                let minutes: i32 = hold.trim_end_matches('m').parse().unwrap();
                format!("        for: {}m\n", minutes + change)
            }
            None => format!("{line}\n"),
        };
        let dir = changed(|text| text.lines().map(shift).collect());
        let failures = promtool_tests(dir.path()).unwrap_err();
        for name in rules("alerts.yml").into_iter().filter_map(|rule| rule.alert) {
            let noticed = failures.contains(&format!("alertname: {name},"))
                || failures.contains(&format!(r#"alertname=\"{name}\""#));
            assert!(noticed, "{name}: no test minds a `for` that is {change} minute off");
        }
    }
}

#[test]
fn every_alert_meets_the_look_alikes() {
    let tests = ["tracking", "consumer", "witness", "exporter"]
        .map(|file| read(&format!("deploy/prometheus/tests/{file}.yml")))
        .concat();
    let groups: Vec<&str> = tests.split("\n  - name: ").skip(1).collect();
    for name in rules("alerts.yml").into_iter().filter_map(|rule| rule.alert) {
        if name == "KqprocExporterMissing" {
            continue; // it is about the absence of every instance
        }
        let group = groups.iter().find(|g| g.lines().next().unwrap().contains(&name));
        let group = group.unwrap_or_else(|| panic!("{name} has no test"));
        for case in ["blind window", "counter reset", "stale"] {
            assert!(group.contains(&format!(r#"instance="{case}"#)), "{name}: no case \"{case}\"");
        }
    }
}

#[test]
fn alerts_have_severity_summary_values_and_runbook() {
    let runbook = headings(&read("docs/runbook.md"));
    for rule in rules("alerts.yml") {
        let name = rule.alert.expect("alerts.yml holds alerts only");
        assert!(name.starts_with("Kqproc"), "{name}: common first component");
        assert!(rule.hold.is_some(), "{name}: `for` outlasts a single bad scrape");
        let severity = rule.labels["severity"].as_str();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        assert!(
            rule.labels.values().all(|l| !l.contains("$value")),
            "{name}: a label must not change"
        );
        let (summary, description) =
            (&rule.annotations["summary"], &rule.annotations["description"]);
        assert!(
            !summary.contains("{{") && summary.ends_with('.'),
            "{name}: summary is a static sentence"
        );
        assert!(
            description.contains("{{") && description.ends_with('.'),
            "{name}: description has values"
        );
        assert!(!description.contains("{{ $value }}"), "{name}: humanize the value");
        let (_, anchor) = rule.annotations["runbook_url"].split_once("runbook.md#").expect(&name);
        assert_eq!(anchor, name.to_lowercase(), "{name}: runbook_url");
        assert!(runbook.iter().any(|a| a == anchor), "{name}: docs/runbook.md has no such section");
    }
}

/// An alert about facts links to the evidence of each.
#[test]
fn alerts_about_facts_lead_to_their_incidents() {
    let mut leading = BTreeSet::new();
    for rule in rules("alerts.yml") {
        let name = rule.alert.unwrap();
        let Some(url) = rule.annotations.get("incidents_url") else { continue };
        let base = "{{ with printf `kqproc_external_url_info{instance=%q,url!=\"\"}` $labels.instance | query }}\
                    {{ . | first | label \"url\" }}{{ else }}http://{{ $labels.instance }}{{ end }}/incidents?";
        let query = url.strip_prefix(base).expect(&name);
        for pair in query.split('&') {
            match pair.split_once('=').expect(&name) {
                ("tree", value) => assert_eq!(value, "{{ $labels.tree | urlquery }}", "{name}"),
                // `lost` stands for every verdict that begins so.
                ("verdict", "lost") => {}
                ("verdict", word) => assert!(Verdict::from_name(word).is_some(), "{name}: {word}"),
                _ => panic!("{name}: {pair}"),
            }
        }
        leading.insert(name);
    }
    let expected = [
        "KqprocCollisionKnown",
        "KqprocCollisionRegression",
        "KqprocConsumerLost",
        "KqprocDataCorrupt",
        "KqprocLateNotes",
        "KqprocPoorSight",
        "KqprocTrackErr",
        "KqprocTrackingLost",
        "KqprocUndecided",
        "KqprocUntrackedProcesses",
    ];
    assert_eq!(leading, BTreeSet::from(expected.map(String::from)));
}

#[test]
fn every_alert_and_recording_has_a_comment_and_a_level_in_its_name() {
    let text = read("deploy/prometheus/alerts.yml");
    for (at, _) in text.match_indices("      - alert: ") {
        let before = text[..at].trim_end().lines().last().unwrap().trim_start();
        assert!(
            before.starts_with('#'),
            "no comment before {}",
            text[at..].lines().next().unwrap()
        );
    }
    for rule in rules("recording.yml") {
        let name = rule.record.expect("recording.yml holds recordings only");
        assert_eq!(name.matches(':').count(), 2, "{name}: level:metric:operation");
    }
}

#[test]
fn the_runbook_has_every_verdict_and_its_links_lead_somewhere() {
    let text = read("docs/runbook.md");
    let anchors = headings(&text);
    for verdict in Verdict::ALL.iter().filter(|v| !v.is_good()) {
        let anchor = format!("verdict-{}", verdict.as_str().replace('_', "-"));
        assert!(anchors.contains(&anchor), "no section {anchor}: the status page links to it");
    }
    for link in text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(anchors.iter().any(|a| a == link), "#{link} leads nowhere");
    }
}

/// A process that kqueue lost, or of which it reported what is not true, counts among the losses of its tree. An overwritten
/// parent is how merged kernels are.
#[test]
fn every_verdict_that_accuses_the_kernel_is_recorded() {
    let rules = read("deploy/prometheus/recording.yml");
    for verdict in Verdict::ALL.iter().filter(|v| **v != Verdict::Overwritten) {
        let selector = match verdict.class() {
            VerdictClass::Lost => r#"verdict=~"lost_.+""#.to_owned(),
            VerdictClass::Wrong => format!("verdict=\"{verdict}\""),
            VerdictClass::Good | VerdictClass::Open => continue,
        };
        assert!(rules.contains(&selector), "recording.yml counts no {verdict}");
    }
}

#[test]
fn the_readme_explains_every_verdict() {
    let page = read("README.md");
    for verdict in Verdict::ALL {
        assert!(page.contains(&format!("\n| {verdict} | ")), "no row for {verdict}");
    }
}

#[test]
fn the_configurations_in_the_guide_are_valid() {
    let guide = read("deploy/README.md");
    let dir = tempfile::tempdir().unwrap();
    for rules in ["recording.yml", "alerts.yml"] {
        fs::copy(path("deploy/prometheus").join(rules), dir.path().join(rules)).unwrap();
    }
    let blocks: Vec<_> =
        guide.split("```yaml\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, block).unwrap();
        run(Command::new("promtool").args(["check", "config"]).arg(file)).unwrap();
    }
}

/// The commands of an alert's section, one a line.
fn commands<'a>(runbook: &'a str, alert: &str) -> Vec<&'a str> {
    let (_, section) = runbook.split_once(&format!("\n## {alert}\n")).expect("a section");
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter_map(|line| line.strip_prefix("    ")).collect()
}

#[test]
fn alerts_about_processes_lead_to_the_pid_with_their_first_command() {
    let runbook = read("docs/runbook.md");
    for (alert, verdict) in [
        ("KqprocTrackingLost", "lost"),
        ("KqprocConsumerLost", "lost"),
        ("KqprocUntrackedProcesses", "lost"),
        ("KqprocTrackErr", "lost_reported"),
        ("KqprocDataCorrupt", "corrupt"),
    ] {
        let rule = rules("alerts.yml").into_iter().find(|r| r.alert.as_deref() == Some(alert));
        let description = &rule.expect(alert).annotations["description"];
        assert!(description.contains("$labels.tree"), "{alert} does not say which tree");
        let first = format!("kqproc_exporter explain --tree TREE --verdict {verdict}");
        assert_eq!(commands(&runbook, alert)[0], first, "{alert}");
    }
}

#[test]
fn what_the_runbook_asks_can_be_asked() {
    let runbook = read("docs/runbook.md");
    let lines: Vec<&str> =
        runbook.lines().map(str::trim).filter(|l| l.starts_with("kqproc_exporter ")).collect();
    assert!(lines.iter().filter(|line| line.contains(" explain ")).count() > 8);
    for line in lines {
        let words = line.replace("PID", "812");
        let parsed = Cli::try_parse_from(words.split(' '));
        assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
    }
}
