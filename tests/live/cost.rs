//! What watching costs: the processor time of the exporter, its keeper and dtrace(1), and what others pay.

use std::process::Command;

use kqproc_exporter::metrics::OwnProcess;
use serde_json::Value;

use crate::common::eventually;
use crate::common::exporter::{self, Exporter, PROGRAM};
use crate::common::stand_in_dtrace::StandInDtrace;

fn cpu_of(process: OwnProcess) -> String {
    format!(r#"kqproc_self_cpu_seconds_total{{process="{process}"}}"#)
}

#[test]
fn each_process_tells_how_much_processor_time_it_used() {
    let dtrace = StandInDtrace::new("falls-silent");
    let exporter = Exporter::start(exporter::serve([
        format!("--consumer=own=pid:{}", std::process::id()),
        format!("--dtrace.path={}", dtrace.path.display()),
    ]));
    // The compilation and the first dtrace(1) have taken some.
    exporter.scrape_until(|samples| {
        let used = |process: &OwnProcess| samples.get(&cpu_of(*process)).is_some_and(|s| *s > 0.0);
        OwnProcess::ALL.iter().all(used)
    });
    eventually("the card", || {
        let page = exporter.get("/");
        let (_, card) = page.text().split_once("What watching costs").expect("a card");
        let (card, _) = card.split_once("</div>").expect("its end");
        let is_shown = |process: &OwnProcess| card.contains(&format!(" {process} "));
        OwnProcess::ALL.iter().all(is_shown).then_some(())
    });
}

#[test]
fn a_simulated_kernel_takes_the_exporter_alone() {
    let exporter = Exporter::start(exporter::simulate([""; 0]));
    let samples = exporter.samples();
    let cpu: Vec<_> = samples.keys().filter(|name| name.starts_with("kqproc_self_cpu")).collect();
    assert_eq!(cpu, [&cpu_of(OwnProcess::Exporter)]);
}

fn measure(dtrace: &StandInDtrace, format: &str) -> std::process::Output {
    let mut check = Command::new(PROGRAM);
    check.args(["check", "--cost", "--seconds=1", "--format", format, "--dtrace.path"]);
    check.arg(&dtrace.path).output().expect("it starts")
}

#[test]
fn the_cost_for_others_is_measured_with_dtrace_on_and_off_in_turn() {
    let dtrace = StandInDtrace::new("drains");
    let output = measure(&dtrace, "json");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cost: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(cost["program"], "proc-causes.d");
    let speeds = cost["speeds"].as_array().expect("a list");
    let names: Vec<&str> = speeds.iter().filter_map(|speed| speed["what"].as_str()).collect();
    assert_eq!(
        names,
        ["forks", if cfg!(target_os = "freebsd") { "kevent(2) calls" } else { "poll(2) calls" }]
    );
    for speed in speeds {
        let number = |value: &Value| value.as_f64().expect("a number");
        assert!(number(&speed["without"]) > 0.0 && number(&speed["with"]) > 0.0, "{cost}");
        let [min, median, max] = ["min", "median", "max"].map(|name| number(&speed["ratio"][name]));
        assert!(0.0 < min && min <= median && median <= max, "{cost}");
    }
    let started = std::fs::read_to_string(dtrace.file("started")).expect("it was started");
    assert_eq!(started.lines().count(), 3);

    let output = measure(&dtrace, "text");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("a CPU second"), "{text}");
    assert!(text.contains("\nforks ") && text.contains(" with proc-causes.d,"), "{text}");
}

#[test]
fn a_dtrace_that_does_not_trace_has_no_cost_to_measure() {
    let output = measure(&StandInDtrace::new("dies"), "text");
    assert_eq!(output.status.code(), Some(69));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("dtrace ended before it traced: "), "{error}");
    assert!(error.contains("Permission denied"), "{error}");
}
