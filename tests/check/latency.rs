//! The delay of verdicts, from the fact to the input that decided it: at most the settle time and a switch interval.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::common::played::simulate;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Fact, MonoTime, Regime, Verdict};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::sim::{self, Options, Shape};

/// When this input was read, if it has a time.
fn read_at(input: &Input<'_>) -> Option<MonoTime> {
    match input {
        Input::Batch(batch) => Some(batch.after),
        Input::Stdout { at, .. } => Some(*at),
        _ => None,
    }
}

/// From each fact on which both witnesses agree to its verdict, in nanoseconds of the reading host's clock, sorted.
fn delays(options: &Options) -> Vec<u64> {
    let mut pipeline = Pipeline::new(Config::default(), Vec::<Finding>::new());
    let (mut now, mut returned, mut delays) = (MonoTime(0), HashMap::new(), vec![]);
    sim::run(1, options, &mut |input: Input<'_>| {
        now = read_at(&input).unwrap_or(now);
        if let Input::Batch(batch) = &input {
            returned.insert(batch.seq, batch.after);
        }
        pipeline.push(input);
        for finding in pipeline.observer_mut().drain(..) {
            let (happened, delivered) = match finding.fact {
                Fact::Birth => (finding.dtrace.created, finding.kqueue.child),
                Fact::Death => (finding.dtrace.exited, finding.kqueue.exit),
            };
            if finding.verdict == Verdict::Agreed
                && let (Some(happened), Some(delivered)) = (happened, delivered)
            {
                // The call that delivered the note is a moment on both clocks.
                let moment = returned[&delivered.batch];
                delays.push(now.0 + delivered.at.0 - moment.0 - happened.0);
            }
        }
        ControlFlow::Continue(())
    });
    delays.sort_unstable();
    delays
}

#[test]
fn agreed_verdicts_fall_within_the_settle_time_and_a_switch_interval() {
    let config = Config::default();
    let bound = config.settle_ns + config.switch_ns;
    for shape in [Shape::Mix, Shape::Chain, Shape::Threads, Shape::Pidreuse] {
        for regime in [Regime::Split, Regime::MergedStatus] {
            let options = Options { shape, regime, count: 300, ..Options::default() };
            let delays = delays(&options);
            assert!(delays.len() > 300, "{options}: {} verdicts", delays.len());
            let p99 = delays[delays.len() * 99 / 100];
            assert!(p99 <= bound, "{options}: {p99} ns");
        }
    }
}

#[test]
fn the_histogram_of_verdict_delays_shows_the_same_bound() {
    let config = Config::default();
    let options = Options { shape: Shape::Threads, ..Options::default() };
    let delay = simulate(&options).verdict_delay;
    assert_eq!(delay.count(), 1601, "a verdict for each fact");
    assert!(delay.quantile(0.99) <= config.settle_ns + config.switch_ns);
}
