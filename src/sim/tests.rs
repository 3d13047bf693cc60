//! Tests of the simulated kernel: its determinism, and its truth.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::input::Input;
use crate::model::{Fact, Regime, Verdict, VerdictClass, note};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(line: &str) -> Options {
    Line::parse_from(std::iter::once("simulate").chain(line.split_whitespace())).options
}

/// Every byte of a run.
fn transcript(seed: u64, options: &Options) -> (String, Truth) {
    let mut text = String::new();
    let truth = run(seed, options, &mut |input: Input<'_>| {
        text += &format!("{input:?}\n");
        ControlFlow::Continue(())
    });
    (text, truth)
}

/// Runs and counts the kevents by their notes.
fn counts(seed: u64, options: &Options) -> (BTreeMap<String, u64>, Truth) {
    let mut counts = BTreeMap::new();
    let truth = run(seed, options, &mut |input: Input<'_>| {
        if let Input::Batch(batch) = input {
            for event in batch.events {
                *counts.entry(note::names(event.fflags)).or_default() += 1;
            }
        }
        ControlFlow::Continue(())
    });
    (counts, truth)
}

fn duplicates(truth: &Truth) -> u64 {
    truth.lives().map(|life| life.birth.further.len() as u64).sum()
}

/// Options all over the place, small enough to run by the hundred.
fn any_options() -> impl Strategy<Value = Options> {
    let regime = prop::sample::select(&[Regime::Split, Regime::MergedStatus, Regime::MergedPpid]);
    let shape = prop::sample::select(Shape::ALL);
    let stall = prop::sample::select(&[0, 0, 5, 40, 400]);
    let rate = prop::sample::select(&[0.0, 0.0, 0.01, 0.2]);
    let buffer = prop::sample::select(&[4 << 20, 4096, 1024]);
    let abort = prop::sample::select(&[0, 0, 400]);
    (regime, shape, stall, (rate.clone(), rate.clone(), rate), buffer, abort, any::<[bool; 3]>())
        .prop_map(|(regime, shape, stall_ms, (alloc_fail, race, preempt), buffer, abort_ms, b)| {
            Options {
                regime,
                shape,
                stall_ms,
                alloc_fail,
                race,
                preempt,
                buffer,
                abort_ms,
                note_fork: b[0],
                note_exec: b[0],
                exit_note_first: b[1],
                flux_us: if b[2] { 100 } else { 2 },
                consumers: if b[2] { 2 } else { 0 },
                count: 40,
                depth: 4,
                ..Options::default()
            }
        })
}

/// The simulator has to know each of them, or no test shows that it falls: all but those that are the cross-check's alone.
#[test]
fn every_verdict_is_the_truth_of_some_fact() {
    let truths = [
        "--regime merged-status --set stall-ms=40",
        "--shape chain --set alloc-fail=0.2",
        "--set race=0.2",
        "--set corrupt=0.2",
    ]
    .map(|line| transcript(1, &options(line)).1);
    for verdict in Verdict::ALL.iter().filter(|v| v.class() != VerdictClass::Open) {
        let has = |life: &truth::TrueLife| {
            [life.birth.outcome, life.death.outcome].contains(&Some(*verdict))
        };
        assert!(truths.iter().any(|truth| truth.lives().any(has)), "{verdict}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 5, ..ProptestConfig::default() })]

    #[test]
    fn a_seed_repeats_its_run_byte_for_byte(seed: u64, options in any_options()) {
        let (text, truth) = transcript(seed, &options);
        let (again, truth_again) = transcript(seed, &options);
        prop_assert!(text == again, "{options}");
        prop_assert_eq!(truth.faults, truth_again.faults);
    }

    #[test]
    fn every_fact_of_the_truth_has_an_outcome_and_every_fault_its_reason(
        seed: u64,
        options in any_options(),
    ) {
        let (_, truth) = transcript(seed, &options);
        for (i, life) in truth.lives().enumerate() {
            prop_assert!(life.death.outcome.is_some(), "{life:?} --seed {seed} {options}");
            prop_assert_eq!(life.birth.outcome.is_none(), i == 0, "{:?} --seed {} {}", life, seed, &options);
            prop_assert!(life.birth.at.is_some() == (i != 0) && life.death.at.is_some());
        }
        if truth.faults.iter().all(|f| matches!(f.fault, Fault::Drop | Fault::Abort)) {
            let lost = |fact| truth.lives().filter(move |l| l.of(fact).outcome.is_some_and(Verdict::is_lost));
            // A child that forks before its own knote exists is the one loss without an injected fault.
            if options.race == 0.0 {
                prop_assert_eq!(lost(Fact::Birth).count() + lost(Fact::Death).count(), 0);
            }
        }
    }
}

#[test]
fn undrained_chains_double_their_notes_with_each_generation() {
    let once =
        options("--shape chain --count 1 --set depth=10 --set stall-ms=2000 --set stall-every=1");
    let (notes, truth) = counts(1, &once);
    // What a 13.2 kernel gave for 11 processes: 2,047 NOTE_CHILD and 4,099 knotes.
    assert_eq!(notes["NOTE_CHILD"], 2047);
    assert_eq!(truth.most_knotes, 4095);
    let drained =
        options("--shape chain --count 1 --set depth=10 --set gap-us=50000 --set reader-us=1");
    assert!(duplicates(&counts(1, &drained).1) < 200);
}

#[test]
fn stalled_chains_explode_as_the_recording_does() {
    // The recording: chains 6 deep, 40 ms stalls, 420 children, 5,691 duplicates.
    let chains =
        options("--shape chain --count 60 --set depth=6 --set stall-ms=40 --set note-fork=true");
    let (_, truth) = counts(1, &chains);
    assert_eq!(truth.lives().count(), 421);
    let duplicates = duplicates(&truth);
    assert!((2_000..=7_560).contains(&duplicates), "{duplicates}");
    assert!(truth.lives().all(|l| l.birth.outcome != Some(Verdict::LostSilent)));
}

#[test]
fn merged_regimes_collide_and_split_never_does() {
    for shape in Shape::ALL {
        let load =
            |regime: &str| options(&format!("--regime {regime} --shape {shape} --set stall-ms=20"));
        assert_eq!(counts(1, &load("split")).1.collisions, 0, "{shape}");
        for regime in ["merged-status", "merged-ppid"] {
            let (_, truth) = counts(1, &load(regime));
            assert!(truth.collisions > 0, "{regime} {shape}");
            assert_eq!(duplicates(&truth), 0, "{regime} {shape}");
        }
    }
}

#[test]
fn the_winner_of_a_collision_is_the_regimes() {
    let of = |line: &str, fact, verdict| {
        counts(1, &options(line)).1.lives().filter(|l| l.of(fact).outcome == Some(verdict)).count()
    };
    let status = "--regime merged-status --shape enoent --set stall-ms=200";
    assert!(of(status, Fact::Birth, Verdict::Overwritten) > 150);
    assert_eq!(of(status, Fact::Death, Verdict::Overwritten), 0);
    let ppid = "--regime merged-ppid --shape enoent --set stall-ms=200";
    assert!(of(ppid, Fact::Death, Verdict::Overwritten) > 150);
    assert_eq!(of(ppid, Fact::Birth, Verdict::Overwritten), 0);
}

#[test]
fn every_way_to_lose_a_process_is_there() {
    for (line, fault) in [
        ("--shape threads --set flux-us=50", Fault::InFlux),
        (
            "--regime merged-status --shape threads --set note-fork=true --set scan-ns=20000",
            Fault::ScanSkip,
        ),
        ("--regime merged-status --shape pidreuse --count 600 --set stall-ms=500", Fault::PidReuse),
        ("--shape exit --set alloc-fail=0.05", Fault::NoChildMemory),
        ("--shape exit --set alloc-fail=0.05", Fault::NoTrackMemory),
        ("--regime merged-status --shape enoent --set race=0.5", Fault::StaleStatus),
        ("--regime merged-status --shape orphan --set race=0.4 --count 600", Fault::NoProcess),
        (
            "--shape threads --set alloc-fail=0.3 --set scan-ns=20000 --set note-fork=true",
            Fault::LostUpdate,
        ),
        ("--shape exit --set buffer=512", Fault::Drop),
        ("--shape exit --set abort-ms=300", Fault::Abort),
        ("--shape exit --set corrupt=0.1", Fault::Scribble),
        (
            "--shape forkexit --set note-fork=true --set lost-exit=1 --set scan-ns=20000",
            Fault::LostExit,
        ),
        ("--shape exit --set clock-step-ms=-20", Fault::ClockStep),
        ("--shape exit --set twice=0.1", Fault::PrintedTwice),
    ] {
        assert!(counts(1, &options(line)).1.count(fault) > 0, "{fault}: {line}");
    }
}

#[test]
fn an_exit_is_lost_only_where_another_note_is_pending_on_its_knote() {
    let lost = |line: &str| {
        let line =
            format!("--shape forkexit --set lost-exit=1 --set scan-ns=20000 --count 1000 {line}");
        let (_, truth) = counts(1, &options(&line));
        let lost = |fact| {
            let silent =
                move |life: &&truth::TrueLife| life.of(fact).outcome == Some(Verdict::LostSilent);
            truth.lives().filter(silent).count()
        };
        (lost(Fact::Birth), lost(Fact::Death), truth.count(Fault::LostExit))
    };
    assert_eq!(lost("--regime split"), (0, 0, 0));
    for notes in ["--set note-fork=true", "--set note-fork=true --set note-exec=true"] {
        let (births, deaths, exits) = lost(&format!("--regime split {notes}"));
        assert!(births == 0 && deaths > 0 && deaths == exits, "{notes}: {births} {deaths} {exits}");
    }
    // One knote a child: NOTE_CHILD is pending on it, even if it was not asked for.
    let (births, deaths, _) = lost("--regime merged-status");
    assert!(births > 0 && deaths > 0);
}

/// It said NOTE_TRACK|NOTE_EXIT, whatever the reader asked for.
#[test]
fn a_registration_says_what_the_reader_asks_for() {
    for (line, expected) in [
        ("", note::TRACK | note::EXIT),
        ("--set note-fork=true", note::TRACK | note::EXIT | note::FORK),
        ("--set note-exec=true", note::TRACK | note::EXIT | note::EXEC),
    ] {
        let mut asked = vec![];
        run(1, &options(&format!("--count 1 {line}")), &mut |input: Input<'_>| {
            if let Input::Batch(batch) = input {
                asked.extend(batch.attached.iter().map(|attach| attach.notes));
            }
            ControlFlow::Continue(())
        });
        assert_eq!(asked, [expected], "{line}");
    }
}

#[test]
fn dtraces_clock_jumps_once_and_the_readers_is_another() {
    let jumps = |line: &str| {
        let (_, truth) = transcript(1, &options(&format!("--shape exit --count 400 {line}")));
        let created: Vec<i64> =
            truth.lives().filter_map(|l| l.birth.at).map(|at| at.0 as i64).collect();
        let between: Vec<i64> = created.windows(2).map(|pair| pair[1] - pair[0]).collect();
        between.into_iter().filter(|ns| !(0..50_000_000).contains(ns)).collect::<Vec<_>>()
    };
    for (line, expected) in [
        ("--set clock-step-ms=-130", vec![-130]),
        ("--set clock-step-ms=130", vec![130]),
        ("--set reader-step-ms=-130", vec![]),
    ] {
        let near = |ns: &i64, ms: &i64| (ns - ms * 1_000_000).abs() < 5_000_000;
        let jumps = jumps(line);
        let same = jumps.len() == expected.len();
        assert!(same && jumps.iter().zip(&expected).all(|(ns, ms)| near(ns, ms)), "{jumps:?}");
    }
}

#[test]
fn an_endless_run_goes_on_with_pids_and_time_until_the_sink_breaks() {
    let (mut batches, mut last) = (0, None);
    let truth = run_endless(1, &options("--shape exit --count 5"), &mut |input: Input<'_>| {
        if let Input::Batch(batch) = input {
            assert!(last < Some(batch.before));
            (batches, last) = (batches + 1, Some(batch.before));
        }
        assert_ne!(input, Input::End);
        if batches < 200 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(truth.lives().count() > 50);
}

#[test]
fn the_quality_page_does_not_depend_on_who_ran_what() {
    let page = |split: u64| {
        let (mut one, mut other) = (quality::Quality::default(), quality::Quality::default());
        for n in (0..grid::CELLS).step_by(29) {
            let quality = if n % 4 < split { &mut one } else { &mut other };
            quality.add(n);
        }
        one.merge(other);
        one.markdown()
    };
    assert_eq!(page(0), page(3));
    assert!(page(2).contains("| birth | agreed |"));
}
