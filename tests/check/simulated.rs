//! Invariants of the cross-check over random simulated runs, and the simulated runs that once got a wrong verdict.

use std::ops::ControlFlow;

use crate::common::inputs::read_at;
use clap::Parser;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::input::{Input, OwnedInput};
use kqproc_exporter::model::{Fact, Verdict};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::sim;
use kqproc_exporter::sim::grid::{self, Case};
use kqproc_exporter::sim::score::Score;
use proptest::prelude::*;

mod trouble;

#[derive(Parser)]
struct Line {
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    options: sim::Options,
}

fn case(flags: &str) -> Case {
    let line = Line::parse_from(std::iter::once("simulate").chain(flags.split_whitespace()));
    Case { seed: line.seed, options: line.options }
}

#[test]
fn runs_that_were_once_judged_wrongly_are_judged_rightly() {
    let seeds = [include_str!("seeds/judged.txt"), include_str!("seeds/consumers.txt")];
    let seeds = seeds.into_iter().flat_map(str::lines);
    for line in seeds.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (reason, flags) = line.split_once(" | ").expect("a reason and flags");
        let misses = Score::of_case(&case(flags)).misses;
        assert!(misses.is_empty(), "{reason}: {:?}", misses.keys().collect::<Vec<_>>());
    }
}

#[test]
fn a_recording_of_a_simulated_run_replays() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("run.kqr");
    let simulate = ["simulate", "--seed", "3", "--shape", "orphan", "--count", "4", "--output"];
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kqproc_exporter"));
        let output = command.args(args).arg(&file).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let simulated = run(&simulate);
    assert!(simulated.contains("every verdict is right"), "{simulated}");
    let replayed = run(&["replay"]);
    assert!(simulated.starts_with(replayed.trim_end()), "{simulated}\n{replayed}");
}

/// A case of the grid, cut short.
fn any_case() -> impl Strategy<Value = Case> {
    (0..u64::MAX / 2, 1..25u32).prop_map(|(n, count)| {
        let mut case = grid::case(n);
        case.options.count = count;
        case
    })
}

/// The same cases without clocks that jump: a jump can only be noticed by the times of reading.
fn any_case_with_steady_clocks() -> impl Strategy<Value = Case> {
    any_case().prop_map(|mut case| {
        (case.options.clock_step_ms, case.options.reader_step_ms) = (0, 0);
        case
    })
}

fn inputs(case: &Case) -> Vec<OwnedInput> {
    let mut inputs = vec![];
    sim::run(case.seed, &case.options, &mut |input: Input<'_>| {
        inputs.push(input.into());
        ControlFlow::Continue(())
    });
    inputs
}

/// Every verdict with both witnesses' evidence about the fact itself, in an order that does not depend on the time of the
/// verdict.
///
/// The rest of the evidence may depend on it: what else was known by then, and the time of a batch without a mark, which is
/// an estimate.
fn verdicts(inputs: &[OwnedInput]) -> Vec<String> {
    let mut pipeline = Pipeline::new(Config::default(), Vec::<Finding>::new());
    inputs.iter().for_each(|input| pipeline.push(input.as_input()));
    let line = |Finding { fact, pid, verdict, dtrace, kqueue, .. }: &Finding| {
        let (witness, note) = match fact {
            Fact::Birth => (format!("{:?} {:?}", dtrace.created, dtrace.forker), kqueue.child),
            Fact::Death => (format!("{:?} {:?}", dtrace.exited, dtrace.status), kqueue.exit),
        };
        let note = note.map(|note| (note.event, note.batch));
        format!("{fact:?} {pid} {verdict} {witness} {note:?} {}", kqueue.trackerr)
    };
    let mut verdicts: Vec<String> = pipeline.observer().iter().map(line).collect();
    verdicts.sort();
    verdicts
}

/// The same inputs with the batches read up to `lag_ns` earlier or later. Each stream keeps its order; the first input and
/// the last two keep their places.
fn reread(mut inputs: Vec<OwnedInput>, lag_ns: i64) -> Vec<OwnedInput> {
    let last = inputs.split_off(inputs.len() - 2);
    let mut now = 0;
    let mut keyed: Vec<(i64, OwnedInput)> = inputs
        .into_iter()
        .map(|input| {
            now = read_at(&input).map_or(now, |at| at.0 as i64);
            let lag = if matches!(input, OwnedInput::Batch(_)) { lag_ns } else { 0 };
            (if now == 0 { i64::MIN } else { now + lag }, input)
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, input)| input).chain(last).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 6, ..ProptestConfig::default() })]

    #[test]
    fn every_reported_fact_has_one_verdict_or_is_pending_after_every_input(case in any_case()) {
        let mut pipeline = Pipeline::new(Config::default(), ());
        sim::run(case.seed, &case.options, &mut |input: Input<'_>| {
            pipeline.push(input);
            pipeline.stats().assert_conserved();
            ControlFlow::Continue(())
        });
        let pending: u64 = pipeline.stats().trees.iter().map(|tree| tree.pending()).sum();
        prop_assert_eq!(pending, 0, "{}", case);
    }

    #[test]
    fn verdicts_do_not_depend_on_when_the_streams_are_read(
        case in any_case_with_steady_clocks(),
        lag_ms in -150..150i64,
    ) {
        let expected = verdicts(&inputs(&case));
        let found = verdicts(&reread(inputs(&case), lag_ms * 1_000_000));
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|line| those.binary_search(line).is_err()).cloned().collect()
        };
        prop_assert_eq!(only(&expected, &found), only(&found, &expected), "{}", case);
        prop_assert_eq!(expected.len(), found.len(), "{}", case);
    }

    #[test]
    fn what_kqueue_delivered_is_never_called_lost_however_blind_dtrace_is(case in any_case()) {
        for miss in Score::of_case(&case).misses.keys() {
            let delivered = miss.truth == Some(Verdict::Agreed);
            prop_assert!(!delivered, "{}: {}", miss, case);
        }
    }
}
