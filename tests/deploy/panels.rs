//! Every panel of every dashboard shows something, once a real Prometheus has scraped a merged and a split kernel, and a
//! consumer.

use std::ffi::OsStr;

use kqproc_exporter::model::Regime;
use kqproc_exporter::sim::{Options, Shape};
use serde_json::Value;

use crate::common::eventually;
use crate::common::exporter::{Exporter, serve, simulate};
use crate::project::{path, read};
use crate::stack::Daemon;

/// A panel's query with the variables as Grafana would fill them in.
fn filled_in(query: &str) -> String {
    let query = query.replace("$__rate_interval", "3s");
    ["$job", "$instance", "$tree"].iter().fold(query, |q, variable| q.replace(variable, ".+"))
}

/// Whether the answer has a number that can be drawn.
fn shows(answer: &[Value]) -> bool {
    let number = |sample: &Value| sample["value"][1].as_str().and_then(|n| n.parse::<f64>().ok());
    answer.iter().filter_map(number).any(f64::is_finite)
}

#[test]
fn every_panel_shows_a_merged_and_a_split_kernel_and_a_consumer() {
    let kernels = [
        // One knote a child, a slow reader, too little memory.
        Options {
            regime: Regime::MergedStatus,
            shape: Shape::Mix,
            count: 2000,
            stall_ms: 20,
            alloc_fail: 0.01,
            ..Options::default()
        },
        // Two knotes a child, chains of forks, a slow reader.
        Options {
            regime: Regime::Split,
            shape: Shape::Chain,
            count: 100,
            stall_ms: 40,
            ..Options::default()
        },
    ];
    let exporters = kernels.map(|kernel| Exporter::start(simulate(kernel.to_string().split(' '))));
    let [merged, split] = exporters.each_ref().map(|exporter| exporter.addr);
    let recording = path("recordings/consumer-15.1-one-lost-exit.kqr");
    let replay = ["--source=replay", "--loop", "--recording"].map(OsStr::new);
    let replayed = Exporter::start(serve(replay.into_iter().chain([recording.as_os_str()])));
    let consumer = replayed.addr;
    let prometheus = Daemon::prometheus(
        &format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
             scrape_configs:\n\
             - {{job_name: kqproc, static_configs: [{{targets: ['{merged}', '{split}', '{consumer}']}}]}}\n"
        ),
        &[],
    );
    // Both kernels have shown what they are, and all their facts have left the first scrape behind.
    for (what, query) in [
        (
            "collisions",
            format!(
                r#"rate(kqproc_collisions_total{{instance="{merged}",winner="status"}}[3s]) > 0"#
            ),
        ),
        (
            "duplicates",
            format!(r#"rate(kqproc_duplicate_child_notes_total{{instance="{split}"}}[3s]) > 0"#),
        ),
        (
            "losses",
            format!(
                r#"rate(kqproc_births_total{{instance="{merged}",verdict="lost_reported"}}[3s]) > 0"#
            ),
        ),
    ] {
        eventually(what, || Some(prometheus.query(&query)).filter(|answer| shows(answer)));
    }
    for board in ["host", "fleet"] {
        let json: Value = serde_json::from_str(&read(&format!("dashboards/{board}.json"))).unwrap();
        for panel in json["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row") {
            let targets = panel["targets"].as_array().unwrap();
            let shows_something = |target: &Value| {
                shows(&prometheus.query(&filled_in(target["expr"].as_str().unwrap())))
            };
            // On a busy machine a scrape may be missing for a moment.
            let panel = format!("{board}: {}", panel["title"]);
            eventually(&panel, || targets.iter().any(shows_something).then_some(()));
        }
    }
}
