//! What watching costs, as an operator reads it. A stand-in for dtrace(1) takes the place of the real one.

#![cfg(unix)]

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::eventually;
use common::exporter::{self, Exporter};
use tempfile::TempDir;

/// The stand-in for dtrace(1) under the name of what it does, in a folder of its own.
fn stand_in(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stand-in-dtrace.sh");
    symlink(script, &path).expect("a link");
    (folder, path)
}

#[test]
fn each_process_tells_how_much_processor_time_it_used() {
    let (_folder, dtrace) = stand_in("falls-silent");
    let exporter = Exporter::start(exporter::serve([
        format!("--consumer=own=pid:{}", std::process::id()),
        format!("--dtrace.path={}", dtrace.display()),
    ]));
    let of = |process: &str| format!(r#"kqproc_self_cpu_seconds_total{{process="{process}"}}"#);
    let names = ["exporter", "keeper", "dtrace"].map(of);
    // The compilations and the first dtrace(1) have taken some.
    let samples = exporter.scrape_until(|s| names.iter().all(|name| s.contains_key(name)));
    assert!(names.iter().all(|name| samples[name] > 0.0), "{samples:?}");
    eventually("the card", || {
        let page = exporter.get("/");
        let (_, card) = page.text().split_once("What watching costs").expect("a card");
        let (card, _) = card.split_once("</div>").expect("its end");
        let shown = |process: &str| {
            card.contains(&format!(": {process} 0.")) || card.contains(&format!(", {process} 0."))
        };
        ["exporter", "keeper", "dtrace"].iter().all(|process| shown(process)).then_some(())
    });
}

#[test]
fn a_simulated_kernel_takes_the_exporter_alone() {
    let exporter = Exporter::start(exporter::simulate([""; 0]));
    let samples = exporter.samples();
    let cpu: Vec<_> = samples.keys().filter(|name| name.starts_with("kqproc_self_cpu")).collect();
    assert_eq!(cpu, [r#"kqproc_self_cpu_seconds_total{process="exporter"}"#]);
}
