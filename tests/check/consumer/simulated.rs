//! Simulated consumers whose streams are cut, or in which a record is printed twice. No process of theirs is lost.

use super::*;
use kqproc_exporter::sim::{self, Options};

/// The consumers of a run, and the lines that dtrace printed.
type Simulated = (Vec<(TreeId, Pid)>, Vec<String>);

/// What dtrace prints in a run of two consumers, which do not end.
fn simulated(seed: u64) -> Option<Simulated> {
    let options = Options { consumers: 2, mirror: false, count: 12, ..Options::default() };
    let (mut text, mut consumers, mut end) = (String::new(), vec![], false);
    sim::run(seed, &options, &mut |input: Input<'_>| {
        match input {
            Input::Stdout { bytes, .. } => text += &String::from_utf8_lossy(bytes),
            Input::Consumer { id, pid: Some(pid) } => consumers.push((id, pid)),
            Input::Consumer { pid: None, .. } => end = true,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let lines = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    (!end).then_some((consumers, lines))
}

/// By tree and fact how many facts have each verdict.
fn play(consumers: &[(TreeId, Pid)], lines: &[String]) -> Vec<[u64; Verdict::COUNT]> {
    let mut pipeline = Pipeline::new(Config::default(), Vec::new());
    for &(id, pid) in consumers {
        pipeline.push(Input::Tree { id, name: "supervisor" });
        pipeline.push(Input::Consumer { id, pid: Some(pid) });
    }
    for line in lines {
        let bytes = format!("{line}\n");
        pipeline.push(Input::Stdout { at: MonoTime(0), bytes: bytes.as_bytes() });
        pipeline.stats().assert_conserved();
    }
    pipeline.push(Input::End);
    let trees = pipeline.stats().trees.iter();
    trees.flat_map(|tree| [*tree.of(Fact::Birth), *tree.of(Fact::Death)]).collect()
}

/// How many facts accuse the kernel.
fn accusations(verdicts: &[[u64; Verdict::COUNT]]) -> u64 {
    let accuses = |verdict: &&Verdict| {
        !matches!(verdict.class(), VerdictClass::Good) && **verdict != Verdict::Undecided
    };
    verdicts
        .iter()
        .map(|by| Verdict::ALL.iter().filter(accuses).map(|v| by[v.index()]).sum::<u64>())
        .sum()
}

#[test]
fn a_record_of_a_simulated_consumer_that_is_printed_twice_happened_once() {
    for (consumers, lines) in (0..4).filter_map(simulated) {
        let expected = play(&consumers, &lines);
        assert_eq!(accusations(&expected), 0);
        for n in (0..lines.len()).step_by(lines.len() / 15 + 1) {
            let mut twice = lines.clone();
            twice.insert(n, lines[n].clone());
            assert_eq!(play(&consumers, &twice), expected, "{}", lines[n]);
        }
    }
}

#[test]
fn a_simulated_consumer_whose_stream_is_cut_anywhere_accuses_nobody() {
    for (consumers, lines) in (0..4).filter_map(simulated) {
        for n in (0..lines.len()).step_by(lines.len() / 15 + 1) {
            for part in [&lines[..n], &lines[n..]] {
                assert_eq!(accusations(&play(&consumers, part)), 0, "{n}");
            }
        }
    }
}
