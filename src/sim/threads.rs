//! The simulated threads, step by step: fork, wait, exec, and exit1 with those that it wakes.

use super::arena::Id;
use super::dtrace::Traced;
use super::kernel::{Kernel, KernelEvent, US};
use super::kqueue::ExitNotes;
use super::procs::{ProcState, Waiting};
use super::shape::{ForkKind, Op};
use super::truth::{Fault, LifeId};
use crate::model::{Fact, KernelTime, Pid, WaitStatus, note};

impl Kernel<'_> {
    /// A child's first time slice.
    pub(super) fn runnable(&mut self, proc: Id) {
        let thread = self.procs.table.get(proc).and_then(|p| p.threads.first().copied());
        if let Some(thread) = thread {
            self.step(thread);
        }
    }

    pub(super) fn step(&mut self, id: Id) {
        let Some(thread) = self.procs.threads.get_mut(id) else { return };
        thread.waiting = Waiting::Nothing;
        let proc = thread.proc;
        match thread.op() {
            Some(Op::Fork(kind, program)) => self.fork(id, kind, program),
            Some(Op::Wait) => self.wait_last(id, proc),
            Some(Op::WaitAll) => self.wait_all(id, proc),
            Some(Op::Exec) => self.exec(id, proc),
            Some(Op::ExecFail) => self.exec_fail(id, proc),
            Some(Op::Sleep(ns)) => {
                let delay = self.rng.around(ns.max(1));
                self.next(id, delay);
            }
            Some(Op::Threads(programs)) => {
                thread.waiting = Waiting::Threads(programs.len());
                for program in programs.iter() {
                    let new = self.add_thread(proc, program.clone(), Some(id));
                    let delay = self.rng.latency(50 * US);
                    self.after(delay, KernelEvent::Step(new));
                }
            }
            Some(Op::End(status)) => self.exit(proc, status),
            Some(Op::Repeat) => {
                thread.pc = 0;
                self.after(US, KernelEvent::Step(id));
            }
            None => self.thread_ends(id, proc),
        }
    }

    /// The current step is done; the next one follows after `delay`.
    pub(super) fn next(&mut self, id: Id, delay: u64) {
        if let Some(thread) = self.procs.threads.get_mut(id) {
            thread.pc += 1;
        }
        self.after(delay, KernelEvent::Step(id));
    }

    fn wait_last(&mut self, id: Id, proc: Id) {
        let last = self.procs.threads.get(id).and_then(|t| t.last_child);
        let Some(child) = last else { return self.next(id, US) };
        if self.procs.is_zombie(child) {
            self.reap(child);
        } else if self.procs.table.get(child).is_some_and(|c| c.parent == proc) {
            return self.wait_for(id, Waiting::Child(child));
        }
        let delay = self.rng.around(10 * US);
        self.next(id, delay);
    }

    fn wait_for(&mut self, id: Id, waiting: Waiting) {
        if let Some(thread) = self.procs.threads.get_mut(id) {
            thread.waiting = waiting;
        }
    }

    fn wait_all(&mut self, id: Id, proc: Id) {
        let children = self.procs.table.get(proc).map(|p| p.children.clone()).unwrap_or_default();
        for child in &children {
            if self.procs.is_zombie(*child) {
                self.reap(*child);
            }
        }
        if self.procs.table.get(proc).is_some_and(|p| !p.children.is_empty()) {
            self.wait_for(id, Waiting::AnyChild);
        } else {
            self.next(id, US);
        }
    }

    fn exec(&mut self, id: Id, proc: Id) {
        let Some(p) = self.procs.table.get(proc) else { return };
        for at in p.klist.iter().rev() {
            self.queues[at.queue].exec(at.knote);
        }
        let (cpu, pid, parent) = (p.cpu, p.pid, p.parent);
        self.trace(cpu, Traced::Exec { pid }, None);
        self.vfork_done(parent, proc);
        let delay = self.rng.around(300 * US);
        self.next(id, delay);
    }

    fn exec_fail(&mut self, id: Id, proc: Id) {
        const ENOENT: i32 = 2;
        let Some(p) = self.procs.table.get(proc) else { return };
        let (cpu, pid) = (p.cpu, p.pid);
        self.trace(cpu, Traced::ExecFail { pid, errno: ENOENT }, None);
        let delay = self.rng.around(30 * US);
        self.next(id, delay);
    }

    fn vfork_done(&mut self, parent: Id, child: Id) {
        self.wake_threads(parent, |waiting| waiting == Waiting::Vfork(child));
    }

    fn wake_threads(&mut self, proc: Id, wants: impl Fn(Waiting) -> bool) {
        let threads = self.procs.table.get(proc).map(|p| p.threads.clone()).unwrap_or_default();
        for id in threads {
            let Some(thread) = self.procs.threads.get_mut(id) else { continue };
            if wants(thread.waiting) {
                thread.waiting = Waiting::Nothing;
                let delay = self.rng.latency(30 * US);
                self.after(delay, KernelEvent::Step(id));
            }
        }
    }

    /// A thread has no more steps: the one that joins it may go on.
    fn thread_ends(&mut self, id: Id, proc: Id) {
        let joiner = self.procs.threads.remove(id).and_then(|t| t.joiner);
        if let Some(p) = self.procs.table.get_mut(proc) {
            p.threads.retain(|t| *t != id);
        }
        let Some(joiner) = joiner else { return };
        let Some(thread) = self.procs.threads.get_mut(joiner) else { return };
        match &mut thread.waiting {
            Waiting::Threads(left) if *left > 1 => *left -= 1,
            _ => {
                let delay = self.rng.around(20 * US);
                self.next(joiner, delay);
            }
        }
    }

    /// exit1: the status is known to the dying process at once; its p_xstat is set a little later if it races.
    fn exit(&mut self, id: Id, status: u32) {
        let races = self.races();
        let Some(proc) = self.procs.table.get_mut(id) else { return };
        proc.state = ProcState::Exiting;
        let (life, threads) = (proc.life, std::mem::take(&mut proc.threads));
        for thread in threads {
            self.procs.threads.remove(thread);
        }
        for truth in self.truths() {
            if let Some(life) = life.and_then(|l| truth.life(l)) {
                life.status = Some(WaitStatus(status));
            }
        }
        if !races && let Some(proc) = self.procs.table.get_mut(id) {
            proc.xstat = status;
        }
        self.exiting.insert(id, status);
        let hold = if races { self.rng.latency(300 * US) } else { self.rng.around(10 * US) };
        let first = if self.options.exit_note_first {
            KernelEvent::ExitNote(id)
        } else {
            KernelEvent::ExitProbe(id)
        };
        self.after(hold, first);
    }

    pub(super) fn exit_probe(&mut self, id: Id) {
        let status = self.set_status(id);
        let Some(proc) = self.procs.table.get(id) else { return };
        let (cpu, pid, life) = (proc.cpu, proc.pid, proc.life);
        let parent = self.procs.pid_of(proc.parent).unwrap_or(pid);
        let stamp = self.dtrace.stamp(self.now, cpu);
        if let Some(life) = life.and_then(|l| self.truth.life(l)) {
            life.death.at = Some(KernelTime(stamp));
        }
        let fact = life.map(|l| (l, Fact::Death));
        self.trace(cpu, Traced::Exit { pid, parent, status }, fact);
        let next = if self.options.exit_note_first {
            KernelEvent::Zombie(id)
        } else {
            KernelEvent::ExitNote(id)
        };
        let delay = self.window();
        self.after(delay, next);
    }

    pub(super) fn exit_note(&mut self, id: Id) {
        let status = self.set_status(id);
        let Some(proc) = self.procs.table.get_mut(id) else { return };
        let (list, pid, life) = (std::mem::take(&mut proc.klist), proc.pid, proc.life);
        let mut notes = vec![ExitNotes::default(); 1 + self.consumers.len()];
        for at in list.iter().rev() {
            let (queue, rng, rate) =
                (&mut self.queues[at.queue], &mut self.rng, self.options.lost_exit);
            let scanning = queue.scans > 0;
            let of_knote = queue.exit(at.knote, status, || scanning && rng.chance(rate));
            let of_tracker = &mut notes[queue.tracker];
            of_tracker.lost |= of_knote.lost;
            of_tracker.kept |= of_knote.kept;
        }
        if let Some(life) = life {
            for (tracker, notes) in notes.into_iter().enumerate() {
                self.exit_noted(life, pid, tracker, notes);
            }
        }
        let next = if self.options.exit_note_first {
            KernelEvent::ExitProbe(id)
        } else {
            KernelEvent::Zombie(id)
        };
        let delay = self.window();
        self.after(delay, next);
    }

    /// KNOTE(NOTE_EXIT) has come to all knotes of this tracker.
    fn exit_noted(&mut self, life: LifeId, pid: Pid, tracker: usize, notes: ExitNotes) {
        let ExitNotes { lost, kept } = notes;
        let (now, truth) = (self.now, self.truth_of(tracker));
        let is_due =
            truth.life(life).is_some_and(|life| life.unwatched && life.asked & note::EXIT != 0);
        if is_due && (lost | kept) & note::EXIT == 0 {
            truth.vanished(life, note::EXIT, now);
        }
        let lost = lost & (note::CHILD | note::EXIT) & !kept;
        if lost != 0 {
            self.truth.fault(now, Fault::LostExit, pid.get());
            self.truth_of(tracker).vanished(life, lost, now);
        }
    }

    fn set_status(&mut self, id: Id) -> u32 {
        let Some(proc) = self.procs.table.get_mut(id) else { return 0 };
        if let Some(status) = self.exiting.remove(&id) {
            proc.xstat = status;
        }
        proc.xstat
    }

    /// The process can be waited for; its own children go to init.
    pub(super) fn zombie(&mut self, id: Id) {
        let Some(proc) = self.procs.table.get_mut(id) else { return };
        proc.state = ProcState::Zombie;
        let (parent, orphans) = (proc.parent, std::mem::take(&mut proc.children));
        for orphan in orphans {
            self.adopt(orphan);
        }
        self.vfork_done(parent, id);
        if self.procs.table.get(parent).is_none_or(|p| p.reaper) {
            self.reap(id);
        } else {
            self.wake_threads(parent, |w| w == Waiting::Child(id) || w == Waiting::AnyChild);
        }
    }

    fn adopt(&mut self, orphan: Id) {
        let Some(proc) = self.procs.table.get_mut(orphan) else { return };
        proc.parent = self.init;
        if proc.state == ProcState::Zombie {
            self.reap(orphan);
        } else if let Some(init) = self.procs.table.get_mut(self.init) {
            init.children.push(orphan);
        }
    }

    fn reap(&mut self, id: Id) {
        let Some(proc) = self.procs.reap(id) else { return };
        if proc.life.is_some() {
            self.tree -= 1;
            if !self.options.mirror {
                self.nothing_queued();
            }
        }
    }

    /// Where the child of a fork of this kind belongs.
    pub(super) fn parent_of(&self, forker: Id, kind: ForkKind) -> Id {
        if kind == ForkKind::Nowait { self.init } else { forker }
    }
}
