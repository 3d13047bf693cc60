//! From a kernel that loses processes to a message: Prometheus scrapes, the rules that operators load judge, the
//! Alertmanager tells a webhook. Of the same losses inside a blind window nobody hears.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::project::read;
use crate::stack::{Daemon, serve, wait_for, webhook};
use serde_json::Value;

/// The rules that operators load, with half a second in the place of every minute.
fn hurried(file: &str) -> String {
    let text = read(&format!("deploy/prometheus/{file}"));
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let end =
            rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |i| start + i);
        let duration =
            ["[", "for: ", "offset "].iter().any(|before| rest[..start].ends_with(before));
        out += &rest[..start];
        match rest[start..end].parse::<u64>() {
            Ok(minutes) if duration && rest[end..].starts_with('m') => {
                out += &format!("{}ms", minutes * 500);
                rest = &rest[end + 1..];
            }
            _ => {
                out += &rest[start..end];
                rest = &rest[end..];
            }
        }
    }
    out + rest
}

/// An exporter whose kernel loses a process between any two scrapes, with a witness that sees it or looks away.
fn losing_exporter(blind: bool) -> SocketAddr {
    let scrapes = AtomicU64::new(0);
    serve(move |_, _| {
        let n = scrapes.fetch_add(1, Ordering::Relaxed);
        let blind_seconds = if blind { n } else { 0 };
        format!(
            "kqproc_births_total{{tree=\"postgres\",verdict=\"agreed\"}} {}\n\
             kqproc_births_total{{tree=\"postgres\",verdict=\"lost_silent\"}} {n}\n\
             kqproc_deaths_total{{tree=\"postgres\",verdict=\"lost_silent\"}} {n}\n\
             kqproc_blind_seconds_total{{witness=\"dtrace\",reason=\"drops\"}} {blind_seconds}\n\
             kqproc_source_up{{source=\"dtrace\"}} 1\n\
             kqproc_source_up{{source=\"kqueue\"}} 1\n",
            n * 100
        )
    })
}

#[test]
fn a_loss_in_sight_reaches_the_webhook_and_one_inside_a_blind_window_does_not() {
    let (seeing, blind) = (losing_exporter(false), losing_exporter(true));
    let (hook, alerts) = webhook();
    let alertmanager = Daemon::alertmanager(hook);
    let config = format!(
        "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}\n\
         rule_files: [recording.yml, alerts.yml]\n\
         scrape_configs: [{{job_name: kqproc, static_configs: [{{targets: ['{seeing}', '{blind}']}}]}}]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        alertmanager.address
    );
    let rules = ["recording.yml", "alerts.yml"].map(|file| (file, hurried(file)));
    let files = rules.each_ref().map(|(name, text)| (*name, text.as_str()));
    let prometheus = Daemon::prometheus(&config, &files);

    let mut told: Vec<Value> = Vec::new();
    let page = wait_for("the page", || {
        told.extend(alerts.try_iter());
        told.iter().find(|a| a["labels"]["severity"] == "critical").cloned()
    });
    assert_eq!(page["status"], "firing");
    assert_eq!(page["labels"]["alertname"], "KqprocTrackingLost");
    assert_eq!(page["labels"]["instance"], seeing.to_string());
    assert_eq!(page["labels"]["tree"], "postgres");
    assert!(page["annotations"]["runbook_url"].as_str().unwrap().ends_with("#kqproctrackinglost"));

    let history = |instance: SocketAddr, state: &str| {
        let alert =
            format!(r#"alertname="KqprocTrackingLost",severity="critical",instance="{instance}""#);
        prometheus.query(&format!(r#"count_over_time(ALERTS{{{alert},alertstate="{state}"}}[5m])"#))
    };
    assert!(!history(seeing, "pending").is_empty(), "it was pending before it fired");
    assert!(history(blind, "pending").is_empty() && history(blind, "firing").is_empty());
    let lost = format!(r#"kqproc_births_total{{instance="{blind}",verdict="lost_silent"}} > 10"#);
    assert!(!prometheus.query(&lost).is_empty(), "as many were lost where the witness was blind");
    told.extend(alerts.try_iter());
    let of_loss = |a: &&Value| a["labels"]["alertname"] == "KqprocTrackingLost";
    assert!(
        told.iter().filter(of_loss).all(|a| a["labels"]["instance"] == seeing.to_string()),
        "{told:?}"
    );
}
