//! `kqproc_self_cpu_seconds_total`: the processor time of the exporter, its keeper and dtrace(1), which is a stand-in here.

use crate::common::eventually;
use crate::common::exporter::{self, Exporter};
use crate::common::stand_in_dtrace::StandInDtrace;

#[test]
fn each_process_tells_how_much_processor_time_it_used() {
    let dtrace = StandInDtrace::new("falls-silent");
    let exporter = Exporter::start(exporter::serve([
        format!("--consumer=own=pid:{}", std::process::id()),
        format!("--dtrace.path={}", dtrace.path.display()),
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
