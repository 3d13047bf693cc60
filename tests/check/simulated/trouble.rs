//! What can happen to the words between the witnesses and the checker: they are read late, there is no room for them, or
//! they are lost on our side. It may cost verdicts; it never makes a wrong one.

use std::ops::ControlFlow;

use kqproc_exporter::check::Config;
use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::input::{Input, OwnedInput};
use kqproc_exporter::model::{MonoTime, Verdict};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::sim::judge::{Case, score};
use kqproc_exporter::sim::rng::Rng;
use kqproc_exporter::sim::{self, grid};

use super::case;
use crate::common::inputs::{delay, read_at};

const MS: u64 = 1_000_000;

/// What goes wrong with the words of a run.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// dtrace's stdout is read so much later, and up to `jitter_ms` more.
    lag_ms: u64,
    jitter_ms: u64,
    /// One batch of so many begins a loss of up to `run` of them.
    lose: u64,
    run: u64,
    /// The reader's clock jumps forward so much, at some time.
    jump_ms: u64,
    /// How much the checker may hold; 0 for its default.
    capacity: usize,
}

impl Trouble {
    /// The inputs as they come in the end.
    fn happens(&self, seed: u64, mut inputs: Vec<OwnedInput>) -> Vec<OwnedInput> {
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
                OwnedInput::Batch { head, attached, events } => {
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
                    keyed.push((now, OwnedInput::Batch { head, attached, events }));
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

    /// Every verdict of this case that accuses someone and is not the truth.
    fn false_words(&self, case: &Case) -> Vec<String> {
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
        for input in self.happens(case.seed, inputs) {
            pipeline.push(input.as_input());
            pipeline.stats().assert_conserved();
        }
        let score = score(case, &truth, pipeline.observer());
        let accuses = |verdict: usize| Verdict::ALL[verdict] != Verdict::Agreed;
        let misses = score.misses.keys().filter(|miss| miss.verdict.is_some_and(accuses));
        misses.map(|miss| format!("{miss}: {case}")).collect()
    }
}

/// Nothing that this trouble makes of some cases of the grid is a false word.
fn accuses_nobody(trouble: Trouble, cases: std::ops::Range<u64>, pid_max: u32) {
    for n in cases {
        let mut case = grid::case(n);
        case.options.count = case.options.count.min(120);
        case.options.pid_max = pid_max;
        assert_eq!(trouble.false_words(&case), Vec::<String>::new());
    }
}

/// Batches that could not wait for their marks were placed before the creates whose notes they brought.
#[test]
fn crowded_tables_accuse_nobody() {
    for (capacity, lag_ms) in [(20, 0), (60, 1000), (200, 0), (200, 100)] {
        accuses_nobody(Trouble { capacity, lag_ms, ..Trouble::default() }, 0..40, 400);
    }
}

/// The place of batches that are lost before dtrace has said a word was not known, and not asked for again.
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

/// Drops of the first switch of buffers, whose message is read before the first record, were thought to be over by then.
#[test]
fn drops_that_are_told_of_before_the_first_record_accuse_nobody() {
    accuses_nobody(Trouble { jitter_ms: 600, ..Trouble::default() }, 100..130, 99_999);
}

/// NOTE_CHILD, which came before its create, was taken for that of a stranger who had had the pid before.
#[test]
fn a_pid_that_a_stranger_had_is_announced_as_another_life() {
    let seed = "--seed 2093 --regime merged-ppid --shape chain --count 30 --set pid-max=300 --set note-fork=true --set note-exec=true --set scan-ns=20000 --set alloc-fail=0.002";
    assert_eq!(Trouble::default().false_words(&case(seed)), Vec::<String>::new());
}

/// Threads that are held up for longer than the settle time, on a host where some were held up for a while before.
#[test]
fn a_host_that_starves_its_threads_is_given_more_time() {
    for seed in [1, 2, 3, 6, 7] {
        let flags =
            "--regime split --shape exit --count 200 --set preempt=0.05 --set preempt-us=650000";
        let case = case(&format!("--seed {seed} {flags}"));
        assert_eq!(Trouble::default().false_words(&case), Vec::<String>::new());
    }
}
