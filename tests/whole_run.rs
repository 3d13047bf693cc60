//! A whole run of the live source in real time, against a kernel and a dtrace(1) that agree with each other: whatever
//! is not agreed is our own mistake.

#![cfg(unix)]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kqproc_exporter::check::Config as CheckConfig;
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Kevent, Pid, Verdict, note};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::report::answer::Answer;
use kqproc_exporter::source::dtrace;
use kqproc_exporter::source::kqueue::{Change, Kernel, Notes, Process};
use kqproc_exporter::source::live::{Config, Live};
use kqproc_exporter::source::target::{Root, Target};
use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

/// DTrace's clock has an origin of its own.
const ORIGIN: u64 = 77_000_000_000;

/// A split kernel with one load: the root forks a child that exits, `rounds` times, one each `period`.
struct World {
    folder: PathBuf,
    log: File,
    root: Option<(u32, u64)>,
    queue: VecDeque<Kevent>,
    rounds: u32,
    period: Duration,
    next: Option<Instant>,
    forked: u32,
    over: Option<Instant>,
    /// The load runs before anybody tracks it, and goes on until the test has seen enough.
    running: bool,
}

impl World {
    fn new(folder: &Path, rounds: u32, period: Duration, running: bool) -> World {
        let log = File::create(folder.join("trace")).expect("a file");
        World {
            folder: folder.to_owned(),
            log,
            root: None,
            queue: VecDeque::new(),
            rounds,
            period,
            next: None,
            forked: 0,
            over: None,
            running,
        }
    }

    fn now() -> u64 {
        let mono = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
        mono.tv_sec() as u64 * 1_000_000_000 + mono.tv_nsec() as u64 + ORIGIN
    }

    /// What a probe prints, once tracing has begun.
    fn trace(&mut self, line: &str) {
        if self.folder.join("tracing").exists() {
            let mut text = String::new();
            if self.log.metadata().expect("a file").len() == 0 {
                text += &format!("B {} 1\n", World::now());
                text += &format!("T {} 1\n", World::now());
            }
            text += line;
            text.push('\n');
            self.log.write_all(text.as_bytes()).expect("written");
        }
    }

    fn queue(&mut self, pid: u32, flags: u32, fflags: u32, data: i64) {
        if let Some((_, udata)) = self.root {
            self.queue.push_back(Kevent { ident: pid.into(), flags, fflags, data, udata });
        }
    }

    /// Everything that is due happens.
    fn happen(&mut self) {
        let root = self.root.map_or(12345, |(pid, _)| pid);
        if self.next.is_none() && (self.running || self.folder.join("ran").exists()) {
            self.next = Some(Instant::now());
        }
        while let Some(at) =
            self.next.filter(|at| *at <= Instant::now() && self.forked < self.rounds)
        {
            self.next = Some(at + self.period);
            // The root has a pid of this host: the children take others.
            let pid = 1 + (root + self.forked % 60_000) % 90_000;
            self.forked += 1;
            self.queue(pid, 0x30, note::CHILD, root.into());
            self.trace(&format!("C {} 0 {pid} {root} {root} 14", World::now()));
            self.trace(&format!("X {} 1 {pid} {root} 1 32512", World::now()));
            self.queue(pid, 0x8030, note::EXIT, 32512);
        }
        if self.forked == self.rounds && self.over.is_none() && !self.running {
            self.over = Some(Instant::now());
            self.trace(&format!("X {} 1 {root} 1 1 0", World::now()));
            self.queue(root, 0x8030, note::EXIT, 0);
            fs::write(self.folder.join("done"), "").expect("written");
        }
    }
}

impl Kernel for World {
    fn kevent(
        &mut self,
        changes: &[Change],
        capacity: u32,
        timeout: Duration,
        events: &mut Vec<Kevent>,
    ) -> io::Result<()> {
        let (entered, deadline) = (World::now(), Instant::now() + timeout);
        if let Some(change) = changes.first() {
            self.root = Some((change.pid.get(), change.udata));
        }
        loop {
            self.happen();
            if !self.queue.is_empty() || Instant::now() >= deadline {
                break;
            }
            let nap = self.next.map_or(Duration::from_millis(1), |at| {
                at.saturating_duration_since(Instant::now()).min(Duration::from_millis(1))
            });
            std::thread::sleep(nap.max(Duration::from_micros(50)));
            self.trace(&format!("T {} 1", World::now()));
        }
        let n = self.queue.len().min(capacity as usize);
        events.extend(self.queue.drain(..n));
        self.trace(&format!("M {} 0 {entered} {capacity} {n} 0", World::now()));
        Ok(())
    }

    fn processes(&mut self, _: &mut Vec<Process>) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> RawFd {
        42
    }
}

fn config(folder: &TempDir, root: Root, stall: Duration) -> Config {
    let path = folder.path().join("traces-a-world");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stand-in-dtrace.sh");
    symlink(script, &path).expect("a link");
    Config {
        targets: vec![Target { name: "load".to_owned(), root }],
        notes: Notes::default(),
        stall,
        dtrace: dtrace::Options { path: Some(path), ..dtrace::Options::default() },
        linger: Some(Duration::from_secs(1)),
        barrier: Some(env!("CARGO_BIN_EXE_kqproc_exporter").into()),
    }
}

/// The load as a command: it begins and ends when the world says so.
fn command(folder: &TempDir) -> Root {
    let script = "touch ran; while [ ! -f done ]; do sleep 0.02; done";
    let script = format!("cd '{}'; {script}", folder.path().display());
    Root::Command(["/bin/sh", "-c", &script].map(Into::into).to_vec())
}

fn run(config: Config, world: World, enough: impl Fn(&Stats) -> bool) -> Stats {
    let live = Live::with_kernel(config, || Ok(Box::new(world))).expect("prepared");
    let stop = live.stop();
    let mut pipeline = Pipeline::new(CheckConfig::default(), ());
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

/// Everything was told and judged rightly. The run is in real time: where the machine held a witness up, a fact may be
/// undecided, but one in twenty at most, and none may be anything else.
#[track_caller]
fn assert_all_agreed(stats: &Stats, births: u64, deaths: u64) {
    let tree = &stats.trees[0];
    for (by, all) in [(&tree.births, births), (&tree.deaths, deaths)] {
        let [agreed, undecided] = [Verdict::Agreed, Verdict::Undecided].map(|v| by[v.index()]);
        assert_eq!((agreed + undecided, by.iter().sum::<u64>()), (all, all), "{by:?}");
        assert!(undecided * 20 <= all, "{by:?}");
    }
    assert_eq!(tree.order_violations.iter().sum::<u64>(), 0, "{:?}", tree.order_violations);
    assert_eq!(Answer::of(stats), Answer::Sound);
}

#[test]
fn a_command_under_a_quick_reader_is_agreed_throughout() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new(folder.path(), 1000, Duration::from_millis(1), false);
    let stats = run(config(&folder, command(&folder), Duration::ZERO), world, |_| false);
    assert_all_agreed(&stats, 1000, 1001);
}

#[test]
fn a_command_under_a_stalled_reader_is_agreed_throughout() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new(folder.path(), 1000, Duration::from_millis(1), false);
    let stall = Duration::from_millis(50);
    let stats = run(config(&folder, command(&folder), stall), world, |_| false);
    assert_all_agreed(&stats, 1000, 1001);
}

/// More events than a call can return wait when the command ends.
#[test]
fn what_is_queued_at_the_end_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new(folder.path(), 3000, Duration::ZERO, false);
    let stall = Duration::from_millis(700);
    let stats = run(config(&folder, command(&folder), stall), world, |_| false);
    assert_all_agreed(&stats, 3000, 3001);
}

/// Until dtrace traces, the reader makes more calls than there are capacities.
#[test]
fn nothing_of_a_tree_that_runs_is_called_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::new(folder.path(), u32::MAX, Duration::from_micros(700), true);
    let root = Root::Pid(Pid::new(12345).expect("a pid"));
    let stats = run(config(&folder, root, Duration::ZERO), world, |stats| {
        stats.trees.first().is_some_and(|tree| tree.births[Verdict::Agreed.index()] > 1000)
    });
    let tree = &stats.trees[0];
    for verdict in [Verdict::LostSilent, Verdict::LostInherited, Verdict::Corrupt] {
        assert_eq!(tree.births[verdict.index()], 0, "{:?}", tree.births);
        assert_eq!(tree.deaths[verdict.index()], 0, "{:?}", tree.deaths);
    }
}
