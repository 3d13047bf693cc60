//! The programs of simulated processes: lists of system calls, for each shape of load.

use std::sync::Arc;

use super::Length;
use super::options::Options;
use crate::model::Shape;

impl Shape {
    /// The pid_max of this shape: `pid_max`, but low enough for pidreuse to deserve its name.
    pub fn pid_max(self, pid_max: u32) -> u32 {
        // Below 200 there is no room for the live ones: pids start at 100 when they wrap.
        let highest = if self == Shape::Pidreuse { 300 } else { u32::MAX };
        pid_max.min(highest).max(200)
    }
}

/// How a process is forked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ForkKind {
    Fork,
    /// vfork(2): the forker waits until the child execs or exits.
    Vfork,
    /// rfork(2) with RFNOWAIT: the reaper is the parent from the beginning.
    Nowait,
}

impl ForkKind {
    /// The rfork(2) flags that proc:::create shows (13.2 `sys/unistd.h:190`).
    pub(super) const fn flags(self) -> u32 {
        match self {
            ForkKind::Fork => 0x14,
            ForkKind::Vfork => 0x8000_0034,
            ForkKind::Nowait => 0x54,
        }
    }
}

/// One step of a program.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Fork a child that runs this program.
    Fork(ForkKind, Steps),
    /// Wait for the child forked last.
    Wait,
    WaitAll,
    /// Exec a program that exists.
    Exec,
    /// Exec a program that does not.
    ExecFail,
    /// Sleep for about so many nanoseconds.
    Sleep(u64),
    /// Start a thread for each program and join them.
    Threads(Arc<[Steps]>),
    /// End with this wait(2) status.
    End(u32),
    /// Begin again.
    Repeat,
}

/// A list of steps. It ends with [`Op::End`] or [`Op::Repeat`], or the thread just ends.
pub(super) type Steps = Arc<[Op]>;

const fn exit(code: u32) -> Op {
    Op::End((code & 0xff) << 8)
}

fn enoent() -> Steps {
    [Op::ExecFail, exit(127)].into()
}

fn exec() -> Steps {
    [Op::Exec, Op::Sleep(200_000), exit(0)].into()
}

/// What child number `i` of a simple shape does.
fn leaf(shape: Shape, i: u32) -> Steps {
    match shape {
        Shape::Enoent => enoent(),
        Shape::Exec => exec(),
        Shape::Signal => [Op::Sleep(20_000), Op::End(9)].into(),
        _ => [exit(if i % 2 == 1 { 0 } else { i })].into(),
    }
}

/// `count` children, one after the other.
fn one_by_one(options: &Options, count: u32, leaf: impl Fn(u32) -> (ForkKind, Steps)) -> Vec<Op> {
    (0..count)
        .flat_map(|i| {
            let (kind, program) = leaf(i);
            [Op::Fork(kind, program), Op::Wait, Op::Sleep(options.gap_us * 1000)]
        })
        .collect()
}

fn chain(depth: u32) -> Steps {
    match depth {
        0 => [exit(7)].into(),
        _ => [Op::Fork(ForkKind::Fork, chain(depth - 1)), Op::Wait, exit(depth & 0x7f)].into(),
    }
}

fn orphan(i: u32) -> Steps {
    let daemon: Steps = [Op::Sleep(2_000_000), exit(11)].into();
    let kind = if i % 4 == 3 { ForkKind::Nowait } else { ForkKind::Fork };
    [Op::Fork(kind, daemon), exit(0)].into()
}

/// Forks a child that ends at once and ends itself, a varying few microseconds later.
fn fork_exit(i: u32) -> Steps {
    let grandchild = [exit(3)].into();
    let spin = Op::Sleep(u64::from(i % 64) * 200);
    [Op::Fork(ForkKind::Vfork, grandchild), spin, exit(5)].into()
}

fn threads(options: &Options) -> Vec<Op> {
    let forks = one_by_one(options, options.count, |i| (ForkKind::Fork, leaf(Shape::Exit, i)));
    let forks: Steps = forks.into();
    vec![Op::Threads((0..options.threads).map(|_| forks.clone()).collect())]
}

/// What the root of the tree does, without its end.
fn body(options: &Options) -> Vec<Op> {
    let fork = |program| (ForkKind::Fork, program);
    let simple =
        |shape, count| one_by_one(options, count, move |i| (ForkKind::Fork, leaf(shape, i)));
    match options.shape {
        shape @ (Shape::Exit | Shape::Enoent | Shape::Exec | Shape::Signal) => {
            simple(shape, options.count)
        }
        Shape::Pidreuse => simple(Shape::Enoent, options.count),
        Shape::Mix => [Shape::Exit, Shape::Enoent, Shape::Exec, Shape::Signal]
            .into_iter()
            .flat_map(|shape| simple(shape, options.count.div_ceil(4)))
            .collect(),
        Shape::Chain => one_by_one(options, options.count, |_| fork(chain(options.depth))),
        Shape::Orphan => one_by_one(options, options.count, |i| fork(orphan(i))),
        Shape::Forkexit => one_by_one(options, options.count, |i| fork(fork_exit(i))),
        Shape::Vfork => one_by_one(options, options.count, |i| {
            (ForkKind::Vfork, if i % 2 == 1 { exec() } else { enoent() })
        }),
        Shape::Threads => threads(options),
        Shape::Parallel => (0..options.count)
            .map(|_| Op::Fork(ForkKind::Fork, enoent()))
            .chain([Op::WaitAll, Op::Sleep(options.gap_us * 1000)])
            .collect(),
    }
}

/// The program of the root: the load once, or for ever.
pub(super) fn root(options: &Options, length: Length) -> Steps {
    let mut ops = vec![Op::Exec];
    ops.extend(body(options));
    match length {
        Length::Endless => ops.extend([Op::Sleep(100_000_000), Op::Repeat]),
        Length::Once => ops.push(exit(0)),
    }
    ops.into()
}

/// A process outside the tree that forks now and then.
pub(super) fn foreign(options: &Options) -> Steps {
    [
        Op::Fork(ForkKind::Fork, exec()),
        Op::Sleep(options.foreign_us * 1000),
        Op::WaitAll,
        Op::Repeat,
    ]
    .into()
}
