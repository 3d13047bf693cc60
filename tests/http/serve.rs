//! `serve` from start to end: the real binary serves the bundled recording.

use std::collections::BTreeMap;

use crate::common::exporter::{self, Exporter};
use crate::common::recording;
use nix::sys::signal::Signal;

fn births(samples: &BTreeMap<String, f64>) -> f64 {
    sum(samples, "kqproc_births_total")
}

fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    samples.iter().filter(|(k, _)| k.starts_with(name)).map(|(_, v)| v).sum()
}

/// `serve` of the bundled recording.
fn replay(flags: &[&str]) -> Exporter {
    Exporter::start(exporter::serve(["--source=replay"].iter().chain(flags)))
}

#[test]
fn counters_only_grow_and_parts_sum_to_totals() {
    let exporter = replay(&["--speed=50", "--loop"]);
    let first = exporter.scrape_until(|s| births(s) > 100.0);
    let second = exporter.scrape_until(|s| births(s) > 1000.0);
    for (name, value) in first.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(second[name] >= *value, "{name} fell from {value} to {}", second[name]);
    }
    for samples in [&first, &second] {
        let collisions = sum(samples, "kqproc_collisions_total");
        let overwritten = samples[r#"kqproc_births_total{tree="default",verdict="overwritten"}"#];
        assert_eq!(collisions, overwritten);
        let decided = births(samples) + sum(samples, "kqproc_deaths_total");
        assert_eq!(samples["kqproc_verdict_delay_seconds_count"], decided);
    }
}

#[test]
fn a_hangup_reloads_and_does_not_end_it() {
    const RELOADED: &str = "kqproc_config_last_reload_success_timestamp_seconds";
    let exporter = replay(&["--speed=0"]);
    let before = exporter.scrape_until(|s| s.contains_key(RELOADED))[RELOADED];
    exporter.signal(Signal::SIGHUP);
    exporter.scrape_until(|s| s[RELOADED] > before);
}

#[test]
fn sigterm_stops_it() {
    let exporter = replay(&[]);
    assert_eq!(exporter.get("/-/healthy").status, 200);
    assert_eq!(exporter.stop().code(), Some(0));
}

/// No call of a reader is in it.
#[test]
fn a_recording_of_consumers_alone_is_ready() {
    let recording = recording("consumer-15.1-one-lost-exit");
    let exporter = replay(&["--speed=0", "--recording", recording.to_str().unwrap()]);
    exporter.scrape_until(|samples| births(samples) == 429.0);
    assert_eq!(exporter.get("/-/ready").status, 200);
}
