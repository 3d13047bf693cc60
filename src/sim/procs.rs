//! The simulated processes and threads, and the pids that they take.

use std::collections::HashMap;

use super::arena::{Arena, Id};
use super::shape::{Op, Steps};
use super::truth::{Followed, LifeId};
use crate::model::Pid;

/// How far a process has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProcState {
    /// It runs, or is about to.
    Alive,
    /// P_WEXIT is set.
    Exiting,
    /// It waits to be reaped.
    Zombie,
}

/// A knote on the list of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attached {
    /// The number of its kqueue.
    pub(super) queue: usize,
    pub(super) knote: Id,
}

#[derive(Debug)]
pub(super) struct Proc {
    pub(super) pid: Pid,
    pub(super) parent: Id,
    /// Its place in the truth, if it belongs to the tree.
    pub(super) life: Option<LifeId>,
    pub(super) cpu: u32,
    pub(super) state: ProcState,
    /// p_xstat: the wait(2) status once it is set.
    pub(super) xstat: u32,
    /// p_klist, oldest first: the kernel walks it from the newest.
    pub(super) klist: Vec<Attached>,
    pub(super) children: Vec<Id>,
    pub(super) threads: Vec<Id>,
    /// Reaps without being asked: init and the reader.
    pub(super) reaper: bool,
}

impl Proc {
    pub(super) fn new(pid: Pid, parent: Id, life: Option<LifeId>, cpu: u32) -> Proc {
        Proc {
            pid,
            parent,
            life,
            cpu,
            state: ProcState::Alive,
            xstat: 0,
            klist: vec![],
            children: vec![],
            threads: vec![],
            reaper: false,
        }
    }
}

/// What a thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Waiting {
    /// Nothing: it runs or sleeps.
    #[default]
    Nothing,
    /// The end of this child.
    Child(Id),
    /// The end of any child.
    AnyChild,
    /// exec or exit of a child by vfork.
    Vfork(Id),
    /// The end of this many threads.
    Threads(usize),
}

/// A fork(2) call inside the kernel.
#[derive(Debug)]
pub(super) struct Forking {
    pub(super) child: Id,
    pub(super) pid: Pid,
    pub(super) parent: Pid,
    pub(super) life: Option<LifeId>,
    pub(super) flags: u32,
    pub(super) vfork: bool,
    /// The child runs before its knotes exist.
    pub(super) early: bool,
    /// Knotes of the forker that knote_fork has yet to visit, the next one last.
    pub(super) knotes: Vec<Attached>,
    /// The knote that is in flux now.
    pub(super) in_flux: Option<Attached>,
    /// What was done for each tracker.
    pub(super) followed: Vec<Followed>,
}

#[derive(Debug, Default)]
pub(super) struct Thread {
    pub(super) proc: Id,
    pub(super) program: Steps,
    pub(super) pc: usize,
    pub(super) last_child: Option<Id>,
    pub(super) waiting: Waiting,
    pub(super) forking: Option<Forking>,
    /// The thread that joins this one.
    pub(super) joiner: Option<Id>,
}

impl Thread {
    pub(super) fn op(&self) -> Option<Op> {
        self.program.get(self.pc).cloned()
    }
}

pub(super) struct Procs {
    pub(super) table: Arena<Proc>,
    pub(super) threads: Arena<Thread>,
    /// Which process has a pid.
    owners: HashMap<Pid, Id>,
    last_pid: u32,
    pid_max: u32,
}

impl Procs {
    /// An empty table whose next pid follows `last_pid`.
    pub(super) fn new(pid_max: u32, last_pid: u32) -> Procs {
        Procs {
            table: Arena::default(),
            threads: Arena::default(),
            owners: HashMap::new(),
            last_pid,
            pid_max: pid_max.min(Pid::MAX),
        }
    }

    /// The next free pid, as fork_findpid looks for it (13.2 `kern_fork.c`): upwards from the last one, from 100
    /// again when the highest is reached, live ones skipped. `None` when every pid is taken.
    pub(super) fn find_pid(&mut self) -> Option<Pid> {
        let mut number = self.last_pid;
        for _ in 0..=self.pid_max {
            number = if number >= self.pid_max { 100 } else { number + 1 };
            let pid = Pid::new(number.into())?;
            if !self.owners.contains_key(&pid) {
                self.last_pid = number;
                return Some(pid);
            }
        }
        None
    }

    /// Puts a process into the table, among its parent's children.
    pub(super) fn insert(&mut self, proc: Proc) -> Id {
        let (pid, parent) = (proc.pid, proc.parent);
        let id = self.table.insert(proc);
        self.owners.insert(pid, id);
        if let Some(parent) = self.table.get_mut(parent) {
            parent.children.push(id);
        }
        id
    }

    /// wait(2) has taken the status: the pid is free.
    pub(super) fn reap(&mut self, id: Id) -> Option<Proc> {
        let proc = self.table.remove(id)?;
        self.owners.remove(&proc.pid);
        if let Some(parent) = self.table.get_mut(proc.parent) {
            parent.children.retain(|c| *c != id);
        }
        Some(proc)
    }

    /// The process with this pid, zombies included.
    pub(super) fn find(&self, pid: Pid) -> Option<Id> {
        self.owners.get(&pid).copied()
    }

    pub(super) fn pid_of(&self, id: Id) -> Option<Pid> {
        self.table.get(id).map(|p| p.pid)
    }

    pub(super) fn is_zombie(&self, id: Id) -> bool {
        self.table.get(id).is_some_and(|p| p.state == ProcState::Zombie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_go_up_wrap_to_100_and_skip_the_living() {
        let mut procs = Procs::new(202, 200);
        let fork = |procs: &mut Procs, pid: Pid| procs.insert(Proc::new(pid, 0, None, 0));
        let next = |procs: &mut Procs| {
            let pid = procs.find_pid().unwrap();
            fork(procs, pid);
            pid.get()
        };
        assert_eq!([next(&mut procs), next(&mut procs)], [201, 202]);
        let kept = fork(&mut procs, Pid::new(100).unwrap());
        assert_eq!(next(&mut procs), 101);
        procs.reap(kept);
        for number in 102..=200 {
            assert_eq!(next(&mut procs), number);
        }
        assert_eq!(next(&mut procs), 100);
        assert_eq!(procs.find_pid(), None);
    }
}
