//! The page of metrics: promtool accepts it, its parts add up, and OpenMetrics has the same.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, TryRecvError};

use kqproc_exporter::metrics::table::{TABLE, Type};
use kqproc_exporter::model::Verdict;

use crate::common::client::Reply;
use crate::common::promtool;
use crate::support::{Exporter, some_stats, with_consumer};

#[test]
fn promtool_accepts_the_page() {
    let exporter = Exporter::start(&[]);
    exporter.state.publish(0, with_consumer());
    assert_eq!(promtool::complaints(&exporter.get("/metrics").body), "");
}

#[test]
fn the_page_has_the_table_and_nothing_else() {
    let exporter = Exporter::start(&[]);
    exporter.state.publish(0, with_consumer());
    let page = exporter.get("/metrics");
    let typed: BTreeSet<(&str, &str)> = page
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    assert_eq!(typed, TABLE.iter().map(|def| (def.name, def.kind.as_str())).collect());
}

#[test]
fn every_known_label_value_is_there_from_the_start() {
    let exporter = Exporter::start(&[]);
    let samples = exporter.samples();
    for verdict in Verdict::ALL {
        for family in ["births", "deaths"] {
            let name = format!("kqproc_{family}_total{{tree=\"postgres\",verdict=\"{verdict}\"}}");
            assert!(samples.contains_key(name.as_str()), "{name}");
        }
    }
    for sample in [
        r#"kqproc_collisions_total{tree="postgres",winner="ppid"}"#,
        r#"kqproc_order_violations_total{tree="postgres",kind="late"}"#,
        r#"kqproc_trackerr_causes_total{errno="ENOMEM"}"#,
        r#"kqproc_kevents_total{note="trackerr"}"#,
        r#"kqproc_dtrace_records_total{kind="mark"}"#,
        r#"kqproc_dtrace_drops_total{kind="speculation_busy"}"#,
        r#"kqproc_decode_errors_total{source="stdout",reason="bad_number"}"#,
        r#"kqproc_blind_seconds_total{witness="kqueue",reason="overflow"}"#,
        r#"kqproc_evictions_total{table="records",reason="capacity"}"#,
        r#"kqproc_source_up{source="sysctl"}"#,
        r#"kqproc_delivery_latency_seconds_count{tree="postgres",note="child"}"#,
    ] {
        assert_eq!(samples.get(sample), Some(&0.0), "{sample}");
    }
}

#[test]
fn only_a_consumer_has_the_metrics_of_consumers() {
    let exporter = Exporter::start(&[]);
    exporter.state.publish(0, with_consumer());
    let samples = exporter.samples();
    for (sample, value) in [
        (r#"kqproc_tree_info{tree="postgres",mode="mirror"}"#, 1.0),
        (r#"kqproc_tree_info{tree="nosh",mode="consumer"}"#, 1.0),
        (r#"kqproc_consumer_up{tree="nosh"}"#, 1.0),
        (r#"kqproc_consumer_lag_seconds{tree="nosh"}"#, 2.5),
        (r#"kqproc_consumer_pending_facts{tree="nosh"}"#, 3.0),
        (r#"kqproc_consumer_registrations_refused_total{tree="nosh",errno="ESRCH"}"#, 7.0),
        (r#"kqproc_consumer_registrations_refused_total{tree="nosh",errno="other"}"#, 0.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}");
    }
    let of_mirror =
        |name: &&String| name.starts_with("kqproc_consumer") && name.contains(r#"tree="postgres""#);
    assert_eq!(samples.keys().find(of_mirror), None);
}

#[test]
fn parts_sum_to_totals() {
    let exporter = Exporter::start(&[]);
    let samples = exporter.samples();
    let sum = |prefix: &str| -> f64 {
        samples.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, v)| v).sum()
    };
    let tree = &some_stats().trees[0];
    let verdicts = sum("kqproc_births_total{") + sum("kqproc_deaths_total{");
    let reported = (tree.births_reported + tree.deaths_reported) as f64;
    assert_eq!(verdicts + samples["kqproc_pending_facts"], reported);

    let exit = r#"tree="postgres",note="exit""#;
    let latency = |rest: &str| samples[format!("kqproc_delivery_latency_seconds_{rest}").as_str()];
    assert_eq!(latency(&format!("bucket{{{exit},le=\"+Inf\"}}")), 2.0);
    assert_eq!(latency(&format!("count{{{exit}}}")), 2.0);
    assert_eq!(latency(&format!("sum{{{exit}}}")), 20.003);
    let below = |le: f64| {
        let buckets = samples.iter().filter(|(name, _)| name.contains(exit));
        let le_of = |name: &str| name.split_once("le=\"")?.1.split('"').next()?.parse().ok();
        buckets
            .filter(|(name, _)| le_of(name).is_some_and(|l: f64| l < le))
            .map(|(_, v)| *v)
            .fold(0.0, f64::max)
    };
    assert_eq!(below(0.003), 0.0, "3 ms is not below 3 ms");
    assert_eq!(below(0.005), 1.0);
}

#[test]
fn openmetrics_has_the_same_samples() {
    let exporter = Exporter::start(&[]);
    exporter.state.publish(0, with_consumer());
    let plain = exporter.get("/metrics");
    let open = exporter.request("GET", "/metrics", "Accept: application/openmetrics-text\r\n");
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.text().ends_with("\n# EOF\n"));
    assert!(open.text().contains("# TYPE kqproc_births counter\n"));
    assert!(open.text().contains("kqproc_kevent_batch_size_bucket{le=\"1.0\"} 0\n"));

    let names = |page: &Reply| -> BTreeSet<String> {
        let name = |sample: &String| sample.split(['{', ' ']).next().unwrap().to_string();
        page.samples().keys().map(name).collect()
    };
    assert_eq!(names(&plain), names(&open));
    for def in TABLE.iter().filter(|def| def.kind == Type::Counter) {
        let family = def.name.strip_suffix("_total").unwrap();
        assert!(open.text().contains(&format!("# TYPE {family} counter\n")), "{family}");
    }
}

#[test]
fn a_hostile_tree_name_stays_one_label_value() {
    let exporter = Exporter::start(&[]);
    let mut stats = some_stats();
    stats.trees[0].name = "a\"} 1\nevil 2\\".into();
    exporter.state.publish(0, stats);
    for accept in ["text/plain", "application/openmetrics-text"] {
        let page = exporter.request("GET", "/metrics", &format!("Accept: {accept}\r\n"));
        assert!(page.text().contains(r#"kqproc_lost_processes{tree="a\"} 1\nevil 2\\"} 0"#));
        assert!(page.text().lines().all(|line| line.starts_with("kqproc_")
            || line.starts_with('#')
            || line.starts_with("process_")));
    }
}

#[test]
fn counters_grow_and_a_published_snapshot_is_seen_at_once() {
    let exporter = Exporter::start(&[]);
    let agreed = r#"kqproc_births_total{tree="postgres",verdict="agreed"}"#;
    let value = |exporter: &Exporter| exporter.samples()[agreed];
    assert_eq!(value(&exporter), 38.0);
    let mut stats = some_stats();
    stats.trees[0].births[Verdict::Agreed.index()] += 2;
    exporter.state.publish(0, stats);
    assert_eq!(value(&exporter), 40.0);
}

#[test]
fn a_scrape_sees_one_snapshot_while_others_are_published() {
    let exporter = Exporter::start(&[]);
    let (running, ended) = mpsc::channel::<()>();
    let state = exporter.state.clone();
    let publisher = std::thread::spawn(move || {
        let mut stats = some_stats();
        while ended.try_recv() != Err(TryRecvError::Disconnected) {
            let tree = &mut stats.trees[0];
            for counts in [&mut tree.births, &mut tree.deaths] {
                counts[Verdict::Agreed.index()] += 1;
            }
            tree.births_reported += 1;
            tree.deaths_reported += 1;
            state.publish(0, stats.clone());
        }
    });
    let mut last = 0.0;
    for _ in 0..50 {
        let samples = exporter.samples();
        let agreed = |family: &str| {
            let name = format!("kqproc_{family}_total{{tree=\"postgres\",verdict=\"agreed\"}}");
            samples[name.as_str()]
        };
        assert_eq!(agreed("deaths") - agreed("births"), 3.0, "as in some_stats()");
        assert!(agreed("births") >= last);
        last = agreed("births");
    }
    drop(running);
    publisher.join().unwrap();
}
