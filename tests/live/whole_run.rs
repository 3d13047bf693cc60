//! Whole runs of the live source in real time, on a stand-in kernel and a stand-in dtrace(1) that agree with each other: a
//! verdict against the kernel would be the exporter's fault.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::common::exporter::PROGRAM;
use crate::common::stand_in_dtrace;
use crate::stand_in::StandInKernel;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Pid, Verdict};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::report::answer::Soundness;
use kqproc_exporter::source::dtrace;
use kqproc_exporter::source::kqueue::Notes;
use kqproc_exporter::source::live::{Live, LiveConfig};
use kqproc_exporter::source::target::{Root, Target};
use tempfile::TempDir;

fn config(folder: &TempDir, root: Root, stall: Duration) -> LiveConfig {
    let path = folder.path().join("traces-late");
    stand_in_dtrace::link(&path);
    LiveConfig {
        targets: vec![Target { name: "load".to_owned(), root }],
        consumers: Vec::new(),
        notes: Notes::default(),
        stall,
        dtrace: dtrace::DtraceOptions { path: Some(path), ..dtrace::DtraceOptions::default() },
        linger: Some(Duration::from_secs(1)),
        keep_stderr: false,
        own_program: Some(PROGRAM.into()),
    }
}

/// A command that is the root of the load: it ends when the load is over.
fn command(folder: &TempDir) -> Root {
    let script = "while [ ! -f done ]; do sleep 0.02; done";
    let script = format!("cd '{}'; {script}", folder.path().display());
    Root::Command(["/bin/sh", "-c", &script].map(Into::into).to_vec())
}

fn run(config: LiveConfig, kernel: StandInKernel, enough: impl Fn(&Stats) -> bool) -> Stats {
    let live = Live::prepare(config, || Ok(Box::new(kernel))).expect("prepared");
    let stop = live.stop();
    let mut pipeline = Pipeline::new(Config::default(), ());
    live.run(&mut |input: Input<'_>| {
        pipeline.push(input);
        pipeline.stats().assert_conserved();
        if enough(pipeline.stats()) && !stop.is_requested() {
            stop.request();
        }
        ControlFlow::Continue(())
    })
    .expect("it ends well");
    pipeline.stats().clone()
}

/// Asserts that every fact is `agreed`. As the run is in real time, the machine may hold up a witness: one fact in twenty may
/// be `undecided`.
#[track_caller]
fn assert_all_agreed(stats: &Stats, births: u64, deaths: u64) {
    let tree = &stats.trees[0];
    for (by, all) in [(&tree.births, births), (&tree.deaths, deaths)] {
        let [agreed, undecided] = [Verdict::Agreed, Verdict::Undecided].map(|v| by[v.index()]);
        assert_eq!((agreed + undecided, by.iter().sum::<u64>()), (all, all), "{by:?}");
        assert!(undecided * 20 <= all, "{by:?}");
    }
    assert_eq!(tree.order_violations.iter().sum::<u64>(), 0, "{:?}", tree.order_violations);
    assert_eq!(Soundness::of(stats), Soundness::Sound);
}

#[test]
fn a_command_under_a_quick_reader_is_agreed_throughout() {
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = StandInKernel::new(folder.path(), 1000, Duration::from_millis(1), false);
    let stats = run(config(&folder, command(&folder), Duration::ZERO), kernel, |_| false);
    assert_all_agreed(&stats, 1000, 1001);
}

#[test]
fn a_command_under_a_stalled_reader_is_agreed_throughout() {
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = StandInKernel::new(folder.path(), 1000, Duration::from_millis(1), false);
    let stall = Duration::from_millis(50);
    let stats = run(config(&folder, command(&folder), stall), kernel, |_| false);
    assert_all_agreed(&stats, 1000, 1001);
}

/// When the command ends, more events are queued than one call can return.
#[test]
fn what_is_queued_at_the_end_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = StandInKernel::new(folder.path(), 3000, Duration::ZERO, false);
    let stall = Duration::from_millis(700);
    let stats = run(config(&folder, command(&folder), stall), kernel, |_| false);
    assert_all_agreed(&stats, 3000, 3001);
}

/// Until dtrace traces, the reader makes more calls than there are capacities.
#[test]
fn nothing_of_a_tree_that_runs_is_called_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = StandInKernel::new(folder.path(), u32::MAX, Duration::from_micros(700), true);
    let root = Root::Pid(Pid::new(12345).expect("a pid"));
    let stats = run(config(&folder, root, Duration::ZERO), kernel, |stats| {
        stats.trees.first().is_some_and(|tree| tree.births[Verdict::Agreed.index()] > 1000)
    });
    let tree = &stats.trees[0];
    for verdict in [Verdict::LostSilent, Verdict::LostInherited, Verdict::Corrupt] {
        assert_eq!(tree.births[verdict.index()], 0, "{:?}", tree.births);
        assert_eq!(tree.deaths[verdict.index()], 0, "{:?}", tree.deaths);
    }
}
