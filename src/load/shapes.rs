//! Forks the processes of a load in its shape: rounds one after the other, in bursts or from several threads. Runs in the
//! process that is the root of the load's tree.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::pid_t;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::child::{self, ChildScript};
use super::pace::Pace;
use super::{LoadError, LoadTally, Plan, Shape, process};

/// How many children of [`Shape::Parallel`] are alive at once: enough to keep every CPU busy, too few to fill the
/// process table.
const BURST: usize = 256;

/// Forks as planned, waits for every child, and says what became of them.
///
/// # Errors
/// When fork(2) fails for good, or a child cannot be waited for. A full process table is no error: see
/// `LoadTally::fork_failures` and `LoadTally::timed_out`.
pub fn run(plan: &Plan) -> Result<LoadTally, LoadError> {
    let pace = Pace::new(plan.rate, plan.max);
    match plan.shape {
        Shape::Threads => threads(plan, pace),
        Shape::Orphan => orphans(plan, pace),
        Shape::Parallel => rounds(plan, pace, 0..plan.count, BURST),
        _ => rounds(plan, pace, 0..plan.count, 1),
    }
}

/// Forks a child for each of these rounds; at most `width` are alive at once.
fn rounds(
    plan: &Plan,
    pace: Pace,
    which: impl Iterator<Item = u64>,
    width: usize,
) -> Result<LoadTally, LoadError> {
    let mut crew = Crew::default();
    for i in which {
        if !(pace.ready(i) && crew.fork(plan, i, pace)?) {
            crew.tally.timed_out = true;
            break;
        }
        if crew.alive.len() >= width {
            crew.reap()?;
        }
    }
    crew.reap()?;
    Ok(crew.tally)
}

/// Every thread takes its turn: thread t of n the rounds t, t + n, t + 2n and so on.
fn threads(plan: &Plan, pace: Pace) -> Result<LoadTally, LoadError> {
    let n = plan.threads.max(1);
    std::thread::scope(|scope| {
        let mut forkers = Vec::with_capacity(n.into());
        for t in 0..n {
            let mine = (u64::from(t)..plan.count).step_by(n.into());
            let forker = std::thread::Builder::new()
                .spawn_scoped(scope, move || rounds(plan, pace, mine, 1))
                .map_err(LoadError::Thread)?;
            forkers.push(forker);
        }
        let mut tally = LoadTally::default();
        for forker in forkers {
            tally.add(&forker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(tally)
    })
}

/// Orphans are not ours to wait for, so each holds the end of a pipe: when it closes, the last one is gone.
fn orphans(plan: &Plan, pace: Pace) -> Result<LoadTally, LoadError> {
    let (end, held) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(LoadError::Pipe)?;
    let mut tally = rounds(plan, pace, 0..plan.count, 1)?;
    drop(held);
    loop {
        let left = pace.left().min(Duration::from_millis(i32::MAX as u64));
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                tally.timed_out = true;
                return Ok(tally);
            }
            Ok(_) => return Ok(tally),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(LoadError::Pipe(errno)),
        }
    }
}

/// The children that are alive, and what became of the others.
#[derive(Default)]
struct Crew {
    alive: Vec<pid_t>,
    tally: LoadTally,
}

impl Crew {
    /// Forks the child of round `i`, however often that takes. False if the time is up.
    fn fork(&mut self, plan: &Plan, i: u64, pace: Pace) -> Result<bool, LoadError> {
        loop {
            match spawn(plan, i) {
                Ok(pid) => {
                    self.alive.push(pid);
                    return Ok(true);
                }
                Err(Errno::EAGAIN | Errno::ENOMEM) => {
                    self.tally.fork_failures += 1;
                    self.reap()?;
                    if !pace.pause() {
                        return Ok(false);
                    }
                }
                Err(errno) => return Err(LoadError::Fork(errno)),
            }
        }
    }

    /// Waits for every child that is alive.
    fn reap(&mut self) -> Result<(), LoadError> {
        for pid in self.alive.drain(..) {
            let status = process::wait(pid).map_err(|errno| LoadError::Wait { pid, errno })?;
            *self.tally.statuses.entry(status).or_default() += 1;
        }
        Ok(())
    }
}

fn spawn(plan: &Plan, i: u64) -> nix::Result<pid_t> {
    match plan.shape {
        Shape::Vfork => {
            let program = if i % 2 == 1 { child::TRUE } else { child::MISSING };
            process::vfork(Some(program), 127)
        }
        _ => process::fork(job(plan, i)),
    }
}

/// What the child of round `i` does.
fn job(plan: &Plan, i: u64) -> ChildScript {
    let exit = ChildScript::Exit(if i % 2 == 1 { 0 } else { i as u8 });
    match plan.shape {
        Shape::Exit | Shape::Threads => exit,
        Shape::Enoent | Shape::Parallel | Shape::Pidreuse | Shape::Vfork => ChildScript::Enoent,
        Shape::Exec => ChildScript::Exec,
        Shape::Signal => ChildScript::Signal,
        Shape::Chain => ChildScript::Chain(plan.depth),
        Shape::Orphan => ChildScript::Orphan,
        Shape::Forkexit => ChildScript::ForkExit { turns: (i % 64) as u32 * 200 },
        Shape::Mix => match i % 4 {
            0 => exit,
            1 => ChildScript::Enoent,
            2 => ChildScript::Exec,
            _ => ChildScript::Signal,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn plan(shape: Shape, count: u64) -> Plan {
        Plan { shape, count, rate: 0, depth: 6, threads: 4, max: Duration::from_secs(60) }
    }

    const KILLED: u32 = 9;

    /// What the children of the root must end with: (wait(2) status, how many).
    fn expected(shape: Shape) -> BTreeMap<u32, u64> {
        let exit = |status: u32| status << 8;
        match shape {
            // 600 rounds: 300 odd ones exit 0, the even ones 0, 2, ... 254, 0, 2, ...
            Shape::Exit | Shape::Threads => {
                let mut all = BTreeMap::from([(0, 300)]);
                for i in (0..600).step_by(2) {
                    *all.entry(exit(i & 0xff)).or_default() += 1;
                }
                all
            }
            Shape::Enoent | Shape::Parallel | Shape::Pidreuse => BTreeMap::from([(exit(127), 600)]),
            Shape::Exec => BTreeMap::from([(0, 20)]),
            Shape::Signal => BTreeMap::from([(KILLED, 20)]),
            Shape::Chain => BTreeMap::from([(exit(6), 20)]),
            Shape::Orphan => BTreeMap::from([(0, 20)]),
            Shape::Forkexit => BTreeMap::from([(exit(5), 100)]),
            Shape::Vfork => BTreeMap::from([(0, 10), (exit(127), 10)]),
            Shape::Mix => BTreeMap::from([
                (0, 6),
                (exit(4), 1),
                (exit(8), 1),
                (exit(12), 1),
                (exit(16), 1),
                (exit(127), 5),
                (KILLED, 5),
            ]),
        }
    }

    #[test]
    fn every_shape_ends_and_leaves_no_child() {
        for shape in Shape::ALL {
            let expected = expected(*shape);
            let count = expected.values().sum();
            let tally = run(&plan(*shape, count)).expect("forks");
            assert_eq!(tally.statuses, expected, "{shape}");
            assert!(!tally.timed_out, "{shape}");
            assert_eq!(tally.cut_short(), 0, "{shape}");
            assert_eq!(tally.rounds(), count, "{shape}");
        }
    }

    #[test]
    fn no_round_begins_when_the_time_is_up() {
        for shape in Shape::ALL {
            let tally = run(&Plan { max: Duration::ZERO, ..plan(*shape, 5) }).expect("no fork");
            assert!(tally.timed_out, "{shape}");
            assert_eq!(tally.rounds(), 0, "{shape}");
        }
    }

    #[test]
    fn a_chain_of_one_is_one_process() {
        let tally = run(&Plan { depth: 0, ..plan(Shape::Chain, 2) }).expect("forks");
        assert_eq!(tally.statuses, BTreeMap::from([(7 << 8, 2)]));
        assert_eq!(Plan { depth: 0, ..plan(Shape::Chain, 2) }.processes(), 2);
        assert_eq!(plan(Shape::Chain, 2).processes(), 14);
        assert_eq!(plan(Shape::Orphan, 2).processes(), 4);
        assert_eq!(plan(Shape::Forkexit, 2).processes(), 4);
    }
}
