//! From a kernel that loses processes to a message: Prometheus scrapes, the rules that operators load judge, the
//! Alertmanager tells a webhook. Of the same losses inside a blind window nobody hears.

use std::fs::File;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;

use kqproc_exporter::input::Input;
use kqproc_exporter::recording::Writer;
use kqproc_exporter::source::replay::Replay;
use serde_json::Value;

use crate::project::{path, read};
use crate::stack::{Daemon, wait_for, webhook};

/// The rules that operators load, with half a second in the place of every minute.
fn hurried(file: &str) -> String {
    let text = read(&format!("deploy/prometheus/{file}"));
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].find(|c: char| !c.is_ascii_digit());
        let end = digits.map_or(rest.len(), |i| start + i);
        let (before, number, after) = (&rest[..start], &rest[start..end], &rest[end..]);
        let is_duration = ["[", "for: ", "offset "].iter().any(|word| before.ends_with(word));
        out += before;
        (out, rest) = match after.strip_prefix('m') {
            Some(after) if is_duration => {
                (out + &format!("{}ms", 500 * number.parse::<u64>().unwrap()), after)
            }
            _ => (out + number, after),
        };
    }
    out + rest
}

/// The same run of the same kernel, as a DTrace that reports drops all the time would have seen it.
fn blinded(recording: &Path, out: &Path) {
    let replay = Replay::open(recording).unwrap();
    let mut writer = Writer::new(File::create(out).unwrap(), &replay.meta()).unwrap();
    let played = replay.play(&mut |input: Input<'_>| {
        if let Input::Stdout { at, .. } = input {
            writer.append(&Input::Stderr { at, bytes: b"dtrace: 1 drop on CPU 0\n" }).unwrap();
        }
        writer.append(&input).unwrap();
        ControlFlow::Continue(())
    });
    played.unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_loss_in_sight_reaches_the_webhook_and_one_inside_a_blind_window_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = [path("recordings/merged-orphan.kqr"), dir.path().join("blinded.kqr")];
    blinded(&recordings[0], &recordings[1]);
    let exporters = recordings.each_ref().map(|recording| Daemon::exporter(recording, 20));
    let [seeing, blind] = exporters.each_ref().map(|exporter| exporter.address);
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
    assert_eq!(page["labels"]["tree"], "default");
    assert!(page["annotations"]["runbook_url"].as_str().unwrap().ends_with("#kqproctrackinglost"));

    let seen = |instance: SocketAddr, state: &str| {
        let labels = r#"alertname="KqprocTrackingLost",severity="critical""#;
        let alert = format!(r#"ALERTS{{{labels},instance="{instance}",alertstate="{state}"}}"#);
        !prometheus.query(&format!("count_over_time({alert}[5m])")).is_empty()
    };
    assert!(seen(seeing, "pending"), "it was pending before it fired");
    assert!(!seen(blind, "pending") && !seen(blind, "firing"), "nothing was lost in sight there");
    let births = format!(r#"kqproc_births_total{{instance="{blind}",verdict="undecided"}} > 3"#);
    assert!(!prometheus.query(&births).is_empty(), "the same births are undecided there");
    told.extend(alerts.try_iter());
    let of_loss = |alert: &&Value| alert["labels"]["alertname"] == "KqprocTrackingLost";
    let all_seen =
        told.iter().filter(of_loss).all(|a| a["labels"]["instance"] == seeing.to_string());
    assert!(all_seen, "{told:?}");
}
