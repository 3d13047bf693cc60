//! Trouble between the witnesses and the checker: inputs are read late, do not fit, or are lost on our side. It may leave facts
//! undecided; it never makes a wrong verdict.

use std::ops::ControlFlow;

use kqproc_exporter::check::Config;
use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::input::{Input, OwnedBatch, OwnedInput};
use kqproc_exporter::model::{MonoTime, Verdict};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::sim;
use kqproc_exporter::sim::grid::{self, Case};
use kqproc_exporter::sim::rng::Rng;
use kqproc_exporter::sim::score::Score;

use super::case;
use crate::common::inputs::{delay, read_at};

const MS: u64 = 1_000_000;

/// What goes wrong with the inputs of a run.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// dtrace's stdout is read so much later, plus up to `jitter_ms`.
    lag_ms: u64,
    jitter_ms: u64,
    /// One batch of so many begins a loss of up to `run` of them.
    lose: u64,
    run: u64,
    /// The reader's clock jumps forward by so much, at a random time.
    jump_ms: u64,
    /// The capacity of the checker's tables; 0 for its default.
    capacity: usize,
}

impl Trouble {
    /// The inputs as the checker gets them.
    fn apply(&self, seed: u64, mut inputs: Vec<OwnedInput>) -> Vec<OwnedInput> {
        let mut rng = Rng::new(seed);
        let jump = rng.below(inputs.len() as u64) as usize;
        inputs[jump..].iter_mut().for_each(|input| delay(input, self.jump_ms * MS));
        let (mut now, mut read, mut losing) = (0, 0, 0);
        let mut lost: Option<(u64, u64, MonoTime, MonoTime)> = None;
        let mut keyed: Vec<(u64, OwnedInput)> = vec![];
        for input in inputs {
            now = read_at(&input).map_or(now, |at| at.0);
            match input {
                OwnedInput::Stdout(at, bytes) => {
                    read = read.max(at.0 + self.lag_ms * MS + rng.below(self.jitter_ms * MS));
                    keyed.push((read, OwnedInput::Stdout(MonoTime(read), bytes)));
                }
                OwnedInput::Batch(OwnedBatch { head, attached, events }) => {
                    if losing == 0 && self.lose > 0 && head.seq > 3 && rng.below(self.lose) == 0 {
                        losing = 1 + rng.below(self.run);
                    }
                    if losing > 0 {
                        losing -= 1;
                        let lost = lost.get_or_insert((head.seq, 0, head.before, head.after));
                        (lost.1, lost.3) = (lost.1 + 1, head.after);
                        continue;
                    }
                    if let Some((first, count, from, to)) = lost.take() {
                        let input = Input::BatchesLost { first, count, from, to };
                        keyed.push((now, OwnedInput::Other(input)));
                    }
                    keyed.push((now, OwnedInput::Batch(OwnedBatch { head, attached, events })));
                }
                OwnedInput::Other(Input::DtraceDown { .. } | Input::DtraceUp { .. }) => {
                    read = read.max(now);
                    keyed.push((read, input));
                }
                OwnedInput::Other(Input::End) => keyed.push((u64::MAX, input)),
                other => keyed.push((now, other)),
            }
        }
        keyed.sort_by_key(|(at, _)| *at);
        keyed.into_iter().map(|(_, input)| input).collect()
    }

    /// The verdicts on this case that differ from the truth and are not `agreed`.
    fn wrong_verdicts(&self, case: &Case) -> Vec<String> {
        let mut inputs = vec![];
        let truth = sim::run(case.seed, &case.options, &mut |input: Input<'_>| {
            inputs.push(input.into());
            ControlFlow::Continue(())
        });
        let mut config = Config::default();
        if self.capacity > 0 {
            config.capacity = self.capacity;
        }
        let mut pipeline = Pipeline::new(config, Vec::<Finding>::new());
        for input in self.apply(case.seed, inputs) {
            pipeline.push(input.as_input());
            pipeline.stats().assert_conserved();
        }
        let score = Score::of(case, &truth, pipeline.observer());
        let accuses = |verdict| verdict != Verdict::Agreed;
        let misses = score.misses.keys().filter(|miss| miss.verdict.is_some_and(accuses));
        misses.map(|miss| format!("{miss}: {case}")).collect()
    }
}

/// Asserts that some cases of the grid get no wrong verdict under this trouble.
fn accuses_nobody(trouble: Trouble, cases: std::ops::Range<u64>, pid_max: u32) {
    for n in cases {
        let mut case = grid::case(n);
        case.options.count = case.options.count.min(120);
        case.options.pid_max = pid_max;
        assert_eq!(trouble.wrong_verdicts(&case), Vec::<String>::new());
    }
}

/// Batches that could not wait for their marks were placed before the creates whose notes they brought.
#[test]
fn crowded_tables_accuse_nobody() {
    for (capacity, lag_ms) in [(20, 0), (60, 1000), (200, 0), (200, 100)] {
        accuses_nobody(Trouble { capacity, lag_ms, ..Trouble::default() }, 0..40, 400);
    }
}

/// The place of batches lost before dtrace's first record was not known, and was not looked up later.
#[test]
fn lost_batches_accuse_nobody_however_late_dtrace_is() {
    for (lag_ms, jitter_ms) in [(0, 0), (2000, 0), (0, 400)] {
        accuses_nobody(
            Trouble { lag_ms, jitter_ms, lose: 5, run: 6, ..Trouble::default() },
            0..40,
            1500,
        );
    }
}

/// Marks of batches that were lost were taken for those of batches far behind, whose capacities are ahead of them.
#[test]
fn many_batches_lost_at_once_accuse_nobody() {
    for lag_ms in [0, 700] {
        let trouble = Trouble { lag_ms, lose: 100, run: 1000, ..Trouble::default() };
        accuses_nobody(trouble, 0..30, 1500);
    }
}

/// The time of lost batches was taken from the reader's clock.
#[test]
fn batches_lost_while_a_clock_jumps_accuse_nobody() {
    accuses_nobody(
        Trouble { jump_ms: 3000, lose: 20, run: 6, ..Trouble::default() },
        590..640,
        99_999,
    );
}

/// The message about drops in the first switch of buffers comes before the first record: the drops were thought to be over
/// by then.
#[test]
fn drops_that_are_reported_before_the_first_record_accuse_nobody() {
    accuses_nobody(Trouble { jitter_ms: 600, ..Trouble::default() }, 100..130, 99_999);
}

/// A NOTE_CHILD that came before its create was taken for one about the foreign process that had the pid before.
#[test]
fn a_pid_that_a_stranger_had_is_announced_as_another_life() {
    let seed = "--seed 2093 --regime merged-ppid --shape chain --count 30 --set pid-max=300 --set note-fork=true --set note-exec=true --set scan-ns=20000 --set alloc-fail=0.002";
    assert_eq!(Trouble::default().wrong_verdicts(&case(seed)), Vec::<String>::new());
}

/// Threads that are held up for longer than the settle time, on a host where some were held up for a while before.
#[test]
fn a_host_that_starves_its_threads_is_given_more_time() {
    for seed in [1, 2, 3, 6, 7] {
        let flags =
            "--regime split --shape exit --count 200 --set preempt=0.05 --set preempt-us=650000";
        let case = case(&format!("--seed {seed} {flags}"));
        assert_eq!(Trouble::default().wrong_verdicts(&case), Vec::<String>::new());
    }
}
