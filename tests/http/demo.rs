//! `serve` on other systems than FreeBSD: it plays recordings of several kernels in a loop.

#![cfg(not(target_os = "freebsd"))]

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::common::exporter::{self, Exporter};

const TREES: [&str; 3] = ["13.2-merged", "13.2", "15.1"];

/// The births of a tree, or its deaths, with this verdict.
fn facts(samples: &BTreeMap<String, f64>, what: &str, tree: &str, verdict: &str) -> f64 {
    let name = format!(r#"kqproc_{what}_total{{tree="{tree}",verdict="{verdict}"}}"#);
    samples.get(&name).copied().unwrap_or(0.0)
}

#[test]
fn a_newcomer_sees_several_kernels_that_go_on_and_on() {
    let exporter = Exporter::start(exporter::serve(["--speed=30"]));
    // More than the 400 and 420 births in one round of each recording.
    let all = |samples: &BTreeMap<String, f64>, least: f64| {
        TREES.iter().all(|tree| facts(samples, "births", tree, "agreed") > least)
    };
    let first = exporter.scrape_until(|samples| all(samples, 0.0));
    let last = RefCell::new(first);
    let later = exporter.scrape_until(|samples| {
        for (name, value) in samples.iter().filter(|(name, _)| name.contains("_total")) {
            let before = last.borrow().get(name).copied().unwrap_or(0.0);
            assert!(*value >= before, "{name} fell from {before} to {value}");
            if name.starts_with("kqproc_blind_seconds") || name.contains(r#"kind="late""#) {
                assert_eq!(*value, 0.0, "{name}: no seam is a blind window");
            }
        }
        for source in ["kqueue", "dtrace"] {
            let up = format!(r#"kqproc_source_up{{source="{source}"}}"#);
            assert_eq!(samples[&up], 1.0, "{source} at a seam");
        }
        last.replace(samples.clone());
        all(samples, 900.0)
    });
    let tree = |what, tree, verdict| facts(&later, what, tree, verdict);
    assert!(tree("births", "13.2-merged", "lost_silent") >= 2.0);
    assert_eq!(tree("births", "13.2", "lost_silent") + tree("deaths", "13.2", "lost_silent"), 0.0);
    assert_eq!(tree("births", "15.1", "lost_silent"), 0.0);
    assert!(tree("deaths", "15.1", "lost_silent") >= 2.0, "a current kernel loses exits");
    let info =
        later.keys().find(|name| name.starts_with("kqproc_kernel_info")).expect("it is there");
    assert!(info.contains(r#"origin="replay""#), "{info}");
    assert!(info.contains(r#"osrelease="13.2-RELEASE 15.1-RELEASE"#), "{info}");
}

#[test]
fn pages_and_metrics_show_that_this_is_not_the_host() {
    let exporter = Exporter::start(exporter::serve(["--speed=30"]));
    exporter.scrape_until(|samples| {
        TREES.iter().all(|tree| facts(samples, "births", tree, "agreed") > 0.0)
            && facts(samples, "births", "13.2-merged", "overwritten") > 0.0
    });
    let page = exporter.get("/");
    for shown in [
        "This is not the host you are on",
        "3 bundled recordings, over and over",
        "13.2-merged: merged-status, 13.2: split, 15.1: split",
    ] {
        assert!(page.text().contains(shown), "{shown}: {}", page.text());
    }
    let list = exporter.get("/incidents?tree=13.2-merged&verdict=overwritten&limit=1");
    let list: serde_json::Value = serde_json::from_slice(&list.body).expect("json");
    assert_eq!(list["detail"], "3 bundled recordings, over and over");
    let incident = &list["incidents"][0];
    assert_eq!(incident["tree"], "13.2-merged");
    assert!(incident["time"].as_str().expect("a time").starts_with("2026-"), "of its own clock");
    assert_eq!(
        exporter.get("/incidents?tree=15.1&verdict=overwritten").text().matches("\"id\"").count(),
        0
    );
    let lost = exporter.get("/incidents?tree=15.1&verdict=lost_silent&limit=1");
    let lost: serde_json::Value = serde_json::from_slice(&lost.body).expect("json");
    assert_eq!(lost["incidents"][0]["pid"], 6712, "{lost}");
    assert_eq!(exporter.get("/-/ready").status, 200);
}
