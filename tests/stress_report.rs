//! The page that ends a stress run, for what real kernels did.

use std::ops::ControlFlow;
use std::path::Path;

use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::input::Input;
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::report::answer::Answer;
use kqproc_exporter::report::format::Paint;
use kqproc_exporter::report::kernel::Kernel;
use kqproc_exporter::report::stress::{Report, Run};
use kqproc_exporter::source::replay::Replay;

/// The page for a recording of the project, as if a kernel of this version had been under test.
fn page(recording: &str, osreldate: u32) -> Report {
    let replay =
        Replay::open(Path::new(&format!("recordings/{recording}.kqr"))).expect("a recording");
    let kernel = Kernel { uname: replay.meta().uname, osreldate };
    let stats = stats(replay);
    let run = Run { load: recording.to_owned(), ..Run::default() };
    let report = Report::of(&stats, kernel, run);
    println!("{}", report.text(&stats, Paint::Plain));
    report
}

fn stats(replay: Replay) -> Stats {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let mut sink = |input: Input<'_>| {
        pipeline.push(input);
        ControlFlow::Continue(())
    };
    replay.play(&mut sink).expect("undamaged");
    pipeline.stats().clone()
}

#[test]
fn a_split_kernel_is_sound() {
    let report = page("split-13.2-chain-stall", 1_302_001);
    assert_eq!(report.summary.decision, Answer::Sound);
    assert_eq!(report.duplicates_per_birth, Some(13.55));
    assert_eq!(
        report.advice,
        "A tracker can trust this kernel under this load, if it ignores repeated NOTE_CHILD notes."
    );
    assert!(report.latency.exit.p50_ns > 0);
}

#[test]
fn a_merged_kernel_is_unsound_and_a_regression_where_it_should_be_split() {
    let old = page("merged-orphan", 1_001_000);
    assert_eq!(old.summary.decision, Answer::Unsound);
    assert!(old.advice.contains("two kqueues"), "{}", old.advice);
    assert!(old.advice.contains("list the processes from time to time"), "{}", old.advice);
    assert!(!old.advice.contains("r295012"), "{}", old.advice);
    let new = page("merged-orphan", 1_302_001);
    assert_eq!(new.summary.decision, Answer::Unsound);
    assert!(new.advice.contains("r295012"), "{}", new.advice);
}

#[test]
fn a_kernel_that_dtrace_did_not_see_is_undecided() {
    let report = page("split-13.2-drops", 1_302_001);
    assert_eq!(report.summary.decision, Answer::Undecided);
    assert!(report.advice.contains("DTrace dropped"), "{}", report.advice);
}
