//! A pipeline whose invariants are checked after every input.

use std::collections::HashSet;

use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::BoundedTable;
use kqproc_exporter::input::{Attach, Batch, Input};
use kqproc_exporter::model::{Kevent, MonoTime, Pid, TreeId, note};
use kqproc_exporter::pipeline::Pipeline;

/// Small, so that a short input can fill the tables.
pub const CAPACITY: usize = 64;

/// How many pids there are.
pub const ALL_PIDS: u64 = Pid::MAX as u64 + 1;

/// A batch may bring a few more at once.
const AT_ONCE: u64 = 16;

/// The pipeline under test.
pub struct Play {
    pipeline: Pipeline<()>,
    /// Of each tracker: the mirror, and each consumer.
    most: u64,
    consumers: HashSet<TreeId>,
}

impl Play {
    /// A pipeline with one tree, whose input names at most so many pids: each may have a process alive.
    pub fn new(pids: u64) -> Play {
        let config = Config { capacity: CAPACITY, ..Config::default() };
        let most = CAPACITY as u64 + AT_ONCE + pids;
        let mut play =
            Play { pipeline: Pipeline::new(config, ()), most, consumers: HashSet::new() };
        play.push(Input::Tree { id: TreeId(0), name: "default" });
        play
    }

    /// Pushes and checks.
    pub fn push(&mut self, input: Input<'_>) {
        if let Input::Consumer { id, .. } = input {
            self.consumers.insert(id);
        }
        self.pipeline.push(input);
        self.check();
    }

    /// Ends the input, and checks that every fact has a verdict.
    pub fn end(mut self) {
        self.push(Input::End);
        let stats = self.pipeline.stats();
        for tree in &stats.trees {
            assert_eq!(tree.pending(), 0, "pending at the end");
        }
    }

    fn check(&self) {
        let stats = self.pipeline.stats();
        stats.assert_conserved();
        let evicted = stats.evictions[BoundedTable::Incarnations.index()];
        assert!(
            stats.incarnations() <= self.most * (1 + self.consumers.len() as u64),
            "{} lives, {evicted} evicted",
            stats.incarnations()
        );
        for tree in &stats.trees {
            assert!(tree.tracked <= stats.incarnations(), "{} tracked", tree.tracked);
            assert!(tree.lost_alive <= stats.incarnations(), "{} lost alive", tree.lost_alive);
        }
    }
}

/// dtrace's stdout, in pieces of any size, beside a tree with one process.
pub fn stdout(data: &[u8]) {
    let mut play = Play::new(ALL_PIDS);
    play.push(Input::DtraceUp { at: MonoTime(0) });
    let pid = Pid::new(100).expect("a pid");
    let attached =
        [Attach { tree: TreeId(0), pid, root: true, errno: 0, notes: Attach::USUAL_NOTES }];
    let events = [Kevent {
        ident: 101,
        flags: note::EV_CLEAR,
        fflags: note::CHILD,
        data: 100,
        udata: TreeId(0).cookie(),
    }];
    play.push(batch(0, 1, &attached, &[]));
    for (i, bytes) in data.chunks(1 + data.len() / 5).enumerate() {
        play.push(Input::Stdout { at: MonoTime(i as u64 * 1_000_000), bytes });
        play.push(batch(i as u64 + 1, i as u64 * 1_000_000, &[], &events));
    }
    play.push(Input::DtraceDown { at: MonoTime(9_000_000) });
    play.end();
}

/// dtrace's stderr, in pieces of any size, with a record between them.
pub fn stderr(data: &[u8]) {
    let mut play = Play::new(ALL_PIDS);
    play.push(Input::DtraceUp { at: MonoTime(0) });
    for (i, bytes) in data.chunks(1 + data.len() / 3).enumerate() {
        let at = MonoTime(i as u64);
        play.push(Input::Stderr { at, bytes });
        play.push(Input::Stdout { at, bytes: b"T 1000000000 1000000000\n" });
    }
    play.push(Input::DtraceDown { at: MonoTime(9) });
    play.end();
}

fn batch<'a>(seq: u64, at: u64, attached: &'a [Attach], events: &'a [Kevent]) -> Input<'a> {
    let capacity = Batch::capacity_of(seq);
    let (before, after) = (MonoTime(at), MonoTime(at + 1000));
    Input::Batch(Batch { seq, capacity, before, after, attached, events })
}
