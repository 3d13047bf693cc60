//! The page that a stress run ends with, for recordings of real kernels and for simulated ones.

use crate::common::played::{replay, simulate};
use kqproc_exporter::model::{Regime, Shape};
use kqproc_exporter::report::answer::Soundness;
use kqproc_exporter::report::card::{Card, Loaded};
use kqproc_exporter::report::kernel::KernelVersion;
use kqproc_exporter::report::stress::{Report, Run};
use kqproc_exporter::sim::Options;

/// The page about a recording, as if a kernel of this version had been under test.
fn page(recording: &str, osreldate: u32) -> Report {
    let (stats, meta) = replay(&crate::common::recording(recording));
    let kernel = KernelVersion { uname: meta.uname, osreldate };
    Report::of(&stats, kernel, Run::default())
}

#[test]
fn a_split_kernel_is_sound() {
    let report = page("split-13.2-chain-stall", 1_302_001);
    assert_eq!(report.summary.decision, Soundness::Sound);
    assert_eq!(report.duplicates_per_birth, Some(13.55));
    assert_eq!(
        report.advice,
        "A tracker can trust this kernel under this load, if it ignores repeated NOTE_CHILD notes and asks for \
         NOTE_FORK and NOTE_EXEC, if at all, on another kqueue than the one whose NOTE_EXIT it needs.",
        "that run asked for NOTE_FORK"
    );
    assert!(report.latency.exit.p50_ns > 0);
}

#[test]
fn a_merged_kernel_is_unsound_and_a_regression_where_it_should_be_split() {
    let old = page("merged-orphan", 1_001_000);
    assert_eq!(old.summary.decision, Soundness::Unsound);
    assert!(old.advice.contains("two kqueues"), "{}", old.advice);
    assert!(old.advice.contains("list the processes from time to time"), "{}", old.advice);
    assert!(!old.advice.contains("r295012"), "{}", old.advice);
    let new = page("merged-orphan", 1_302_001);
    assert_eq!(new.summary.decision, Soundness::Unsound);
    assert!(new.advice.contains("r295012"), "{}", new.advice);
}

#[test]
fn a_kernel_that_dtrace_did_not_see_is_undecided() {
    let report = page("split-13.2-drops", 1_302_001);
    assert_eq!(report.summary.decision, Soundness::Undecided);
    assert!(report.advice.contains("DTrace dropped"), "{}", report.advice);
}

/// A load on a simulated kernel.
fn simulated(options: &Options) -> Loaded {
    let run = Run { stall_ms: options.stall_ms, ..Run::default() };
    Loaded { shape: options.shape, run, stats: simulate(options) }
}

#[test]
fn every_kind_of_kernel_gets_the_card_that_it_deserves() {
    for (regime, decision, words) in [
        (Regime::Split, Soundness::Sound, "if it ignores repeated NOTE_CHILD notes"),
        (Regime::MergedStatus, Soundness::Unsound, "two kqueues"),
        (Regime::MergedPpid, Soundness::Unsound, "from wait(2)"),
    ] {
        let loads = [(Shape::Exit, 0), (Shape::Enoent, 50), (Shape::Chain, 40)];
        let loads = loads.map(|(shape, stall_ms)| {
            simulated(&Options { regime, shape, stall_ms, count: 60, ..Options::default() })
        });
        let card = Card::of(KernelVersion::default(), loads.into());
        assert_eq!((card.decision, card.regime), (decision, regime), "{}", card.answer);
        assert!(card.answer.contains(words), "{}", card.answer);
    }
}

#[test]
fn forkexit_is_compared_with_and_without_note_fork() {
    let loads = [false, true].map(|note_fork| {
        let shape = Shape::Forkexit;
        simulated(&Options { shape, note_fork, count: 60, ..Options::default() })
    });
    let card = Card::of(KernelVersion::default(), loads.into());
    let race = card.exit_race.expect("both were run");
    assert_eq!((race.without.deaths, race.without.lost, race.with.deaths), (121, 0, 121));
    assert!(card.answer.contains("on another kqueue than the one whose NOTE_EXIT it needs"));
}
