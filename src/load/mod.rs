//! The load: processes that are really forked, in the shapes that kernels are known to lose.
//!
//! It runs as a process of its own (`kqproc_exporter load`), so that the tree that is watched holds nothing else.

pub mod busy;
mod child;
mod pace;
pub mod pid_max;
mod process;
mod shapes;

use std::collections::BTreeMap;
use std::time::Duration;

use nix::errno::Errno;

pub use crate::model::Shape;
pub use shapes::run;

impl Shape {
    /// One line for the help text.
    pub const fn help(self) -> &'static str {
        match self {
            Shape::Exit => "exit at once, each with a status of its own",
            Shape::Enoent => "fail to exec, then exit 127",
            Shape::Exec => "run /usr/bin/true",
            Shape::Signal => "kill themselves with SIGKILL",
            Shape::Chain => "fork one another, --depth deep",
            Shape::Orphan => "fork twice, as a daemon does",
            Shape::Vfork => "vfork(2) and exec, half of them in vain",
            Shape::Threads => "exit, forked from --threads threads at once",
            Shape::Parallel => "enoent, in bursts that are alive at once",
            Shape::Mix => "exit, enoent, exec and signal in turn",
            Shape::Pidreuse => "enoent, for a lowered kern.pid_max",
            Shape::Forkexit => "vfork(2) a child that exits at once, then exit",
        }
    }
}

/// A load to be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What the processes do.
    pub shape: Shape,
    /// Rounds: forks of the root (for chain, orphan and forkexit, each is followed by forks of its children).
    pub count: u64,
    /// Rounds a second; 0 for as fast as possible.
    pub rate: u32,
    /// How many generations follow the first child of a chain.
    pub depth: u8,
    /// How many threads fork, for [`Shape::Threads`].
    pub threads: u16,
    /// No round begins and no fork is tried again after this time.
    pub max: Duration,
}

impl Plan {
    /// How many processes are born if every round succeeds.
    pub(crate) fn processes(&self) -> u64 {
        let each = match self.shape {
            Shape::Chain => u64::from(self.depth) + 1,
            Shape::Orphan | Shape::Forkexit => 2,
            _ => 1,
        };
        self.count.saturating_mul(each)
    }
}

/// What a load did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoadTally {
    /// Children of the root by wait(2) status.
    pub statuses: BTreeMap<u32, u64>,
    /// Forks of the root that failed (EAGAIN, ENOMEM) and were tried again.
    pub(crate) fork_failures: u64,
    /// Time was up before all was done.
    pub(crate) timed_out: bool,
}

impl LoadTally {
    /// Rounds whose child was forked and waited for.
    pub(crate) fn rounds(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Rounds in which a child could not fork in its turn.
    pub(crate) fn cut_short(&self) -> u64 {
        self.statuses.get(&(u32::from(child::CUT_SHORT) << 8)).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &LoadTally) {
        for (status, n) in &other.statuses {
            *self.statuses.entry(*status).or_default() += n;
        }
        self.fork_failures += other.fork_failures;
        self.timed_out |= other.timed_out;
    }
}

/// Why a load could not go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each error's text says what it is")]
pub enum LoadError {
    /// fork(2) or vfork(2) failed for a reason that waiting does not cure.
    #[error("cannot fork: {0}")]
    Fork(Errno),
    #[error("cannot wait for child {pid}: {errno}")]
    Wait { pid: i32, errno: Errno },
    #[error("a call that is measured fails: {0}")]
    Call(Errno),
    #[error("cannot watch the orphans: {0}")]
    Pipe(Errno),
    #[error("cannot start a thread (choose fewer --threads): {0}")]
    Thread(std::io::Error),
}
