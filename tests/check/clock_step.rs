//! Clocks that jump in the middle of a recording: no verdict against the kernel comes of it, and later facts are decided
//! again.

use crate::common::inputs::{self, moved};
use crate::common::recording;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::{BlindReason, Stats};
use kqproc_exporter::input::{Batch, Input, OwnedBatch, OwnedInput};
use kqproc_exporter::model::{Fact, MonoTime, TreeId, Verdict};
use kqproc_exporter::pipeline::Pipeline;

/// The lines of dtrace's stdout and the calls of the reader, in the order of reading.
fn both_streams(name: &str) -> Vec<OwnedInput> {
    let mut inputs = inputs::inputs(&recording(name));
    inputs.retain(|input| matches!(input, OwnedInput::Stdout(..) | OwnedInput::Batch(_)));
    inputs
}

/// The statistics if DTrace's clock jumps by `dtrace_ms` and that of the reader's calls by `reader_ms` after half of the
/// inputs. The times at which dtrace's pipes were read stay.
fn play(inputs: &[OwnedInput], dtrace_ms: i64, reader_ms: i64) -> Stats {
    let mut pipeline = Pipeline::new(Config::default(), ());
    pipeline.push(Input::Tree { id: TreeId(0), name: "tree" });
    pipeline.push(Input::DtraceUp { at: MonoTime(1) });
    for (i, input) in inputs.iter().enumerate() {
        let by = |ms: i64| if i < inputs.len() / 2 { 0 } else { ms * 1_000_000 };
        match input {
            OwnedInput::Stdout(at, line) => {
                let line = moved(std::str::from_utf8(line).expect("text"), by(dtrace_ms));
                pipeline.push(Input::Stdout { at: *at, bytes: line.as_bytes() });
            }
            OwnedInput::Batch(OwnedBatch { head, attached, events }) => {
                let moved = |at: MonoTime| MonoTime(at.0.saturating_add_signed(by(reader_ms)));
                let (before, after) = (moved(head.before), moved(head.after));
                pipeline.push(Input::Batch(Batch { before, after, attached, events, ..*head }));
            }
            _ => {}
        }
        pipeline.stats().assert_conserved();
    }
    pipeline.push(Input::End);
    pipeline.stats().clone()
}

const RECORDINGS: [&str; 3] = ["split-13.2-enoent-drain", "merged-exit-stall", "split-15.1-orphan"];

/// How many verdicts accuse the kernel.
fn accused(stats: &Stats) -> u64 {
    let accuses = |v: &&Verdict| v.is_lost() || matches!(v, Verdict::Corrupt | Verdict::KqueueOnly);
    let verdicts = || Verdict::ALL.iter().filter(accuses);
    let of = |fact| verdicts().map(|v| stats.trees[0].of(fact)[v.index()]).sum::<u64>();
    of(Fact::Birth) + of(Fact::Death)
}

#[test]
fn a_clock_of_dtraces_that_jumps_forward_is_followed() {
    for name in RECORDINGS {
        let inputs = both_streams(name);
        let expected = play(&inputs, 0, 0);
        for ms in [100, 300, 1000, 60_000, 3_600_000] {
            let found = play(&inputs, ms, 0);
            for fact in [Fact::Birth, Fact::Death] {
                let of = |stats: &Stats| *stats.trees[0].of(fact);
                assert_eq!(of(&found), of(&expected), "{name} {fact:?} {ms} ms");
            }
            let blind = found.dtrace_blind_ns[BlindReason::Clock.index()];
            assert!(blind >= ms as u64 * 1_000_000, "{name} {ms} ms: counted as {blind} ns");
        }
    }
}

#[test]
fn a_clock_that_jumps_back_accuses_nobody() {
    for name in RECORDINGS {
        let inputs = both_streams(name);
        for ms in [-60_000, -5000, -1000, -300, -100] {
            for (dtrace_ms, reader_ms) in [(ms, 0), (0, ms)] {
                let found = play(&inputs, dtrace_ms, reader_ms);
                let case = format!("{name} dtrace {dtrace_ms} reader {reader_ms}");
                assert_eq!(accused(&found), 0, "{case}");
                assert!(found.blind_seconds() > 0.0, "{case}");
            }
        }
    }
}

#[test]
fn what_comes_after_a_small_jump_is_decided_again() {
    for name in RECORDINGS {
        let inputs = both_streams(name);
        let undecided = |stats: &Stats| stats.trees[0].deaths[Verdict::Undecided.index()];
        for (dtrace_ms, reader_ms) in [(-100, 0), (0, -100), (0, 5000)] {
            let found = play(&inputs, dtrace_ms, reader_ms);
            assert!(
                undecided(&found) < 100,
                "{name} {dtrace_ms} {reader_ms}: {:?}",
                undecided(&found)
            );
        }
    }
}

#[test]
fn no_recording_of_the_project_has_a_clock_that_jumps() {
    for entry in std::fs::read_dir(recording("").parent().expect("a folder")).expect("recordings") {
        let file = entry.expect("an entry").path();
        if file.extension().is_some_and(|extension| extension == "kqr") {
            let name = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            let jumped =
                play(&both_streams(name), 0, 0).dtrace_blind_ns[BlindReason::Clock.index()];
            assert_eq!(jumped, 0, "{name}");
        }
    }
}

#[test]
fn a_clock_that_steps_back_during_a_long_call_of_the_reader_accuses_nobody() {
    // The call lasted 63 ms: its mark bounds the offset of the two clocks too loosely to show the step.
    let sound = inputs::inputs(&recording("split-13.2-chain-stall"));
    let found = inputs::play(&inputs::stepped(&sound, 0.05, -70_000_000));
    assert_eq!(accused(&found), accused(&inputs::play(&sound)));
    assert!(found.dtrace_blind_ns[BlindReason::Clock.index()] > 0);
}
