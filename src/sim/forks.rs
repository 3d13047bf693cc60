//! The simulated fork(2): knote_fork knote by knote, then the create probe, then the child.

use super::arena::Id;
use super::dtrace::Traced;
use super::kernel::{Kernel, KernelEvent, MS, US};
use super::kqueue::{ChildRegistration, ChildState, KnoteTurn, Newborn};
use super::procs::{Attached, Forking, Proc, ProcState, Waiting};
use super::shape::{ForkKind, Steps};
use super::truth::{Fault, Followed};
use crate::model::{Fact, KernelTime, Pid};

impl Kernel<'_> {
    /// do_fork up to knote_fork.
    pub(super) fn fork(&mut self, thread: Id, kind: ForkKind, program: Steps) {
        let Some(forker) = self.procs.threads.get(thread).map(|t| t.proc) else { return };
        let Some(pid) = self.procs.find_pid() else {
            // EAGAIN: the program tries again, as a shell does.
            return self.after(MS, KernelEvent::Step(thread));
        };
        let Some(proc) = self.procs.table.get(forker) else { return };
        let (forker_pid, forker_life, klist) = (proc.pid, proc.life, proc.klist.clone());
        self.forks += 1;
        let life = forker_life.map(|l| self.born(pid, forker_pid, Some(l)));
        self.tree += usize::from(life.is_some());
        let cpu = self.any_cpu();
        let parent = self.parent_of(forker, kind);
        let child = self.procs.insert(Proc::new(pid, parent, life, cpu));
        self.add_thread(child, program, None);
        // The forker of a vfork holds its child back, so the two cannot race.
        let early = life.is_some() && kind != ForkKind::Vfork && self.races();
        if early {
            let delay = self.rng.latency(50 * US);
            self.after(delay, KernelEvent::Runnable(child));
        }
        let forking = Forking {
            child,
            pid,
            parent: self.procs.pid_of(parent).unwrap_or(forker_pid),
            life,
            flags: kind.flags(),
            vfork: kind == ForkKind::Vfork,
            early,
            knotes: klist,
            in_flux: None,
            followed: vec![Followed::default(); 1 + self.consumers.len()],
        };
        if let Some(thread) = self.procs.threads.get_mut(thread) {
            thread.last_child = Some(child);
            thread.forking = Some(forking);
        }
        let delay = if early { self.rng.latency(300 * US) } else { self.rng.around(5 * US) };
        self.after(delay, KernelEvent::KnoteFork(thread));
    }

    /// One turn of knote_fork: leaves the knote that was in flux and goes to the next.
    pub(super) fn knote_fork(&mut self, thread: Id) {
        let Some(forking) = self.procs.threads.get_mut(thread).and_then(|t| t.forking.as_mut())
        else {
            return;
        };
        if let Some(at) = forking.in_flux.take() {
            self.queues[at.queue].end_fork(at.knote);
        }
        let (child, pid, life) = (forking.child, forking.pid, forking.life);
        let Some(at) = forking.knotes.pop() else { return self.knotes_followed(thread) };
        let mut done = ChildRegistration::default();
        let turn = self.queues[at.queue].begin_fork(at.knote);
        match turn {
            KnoteTurn::Nothing => {}
            KnoteTurn::SkippedInFlux => {
                self.truth.fault(self.now, Fault::InFlux, pid.get());
                self.trace_cause(thread, Some(at), |forker| Traced::Influx { forker, child: pid });
            }
            KnoteTurn::SkippedScan => self.truth.fault(self.now, Fault::ScanSkip, pid.get()),
            KnoteTurn::Register => {
                let newborn = Newborn { pid, life, standing: self.standing(child) };
                done = self.register(at, newborn, child);
                if let Some(errno) = done.errno() {
                    self.trace_cause(thread, None, |forker| Traced::RegFail {
                        forker,
                        child: pid,
                        errno,
                    });
                }
            }
        }
        let tracker = self.queues[at.queue].tracker;
        if let Some(f) = self.procs.threads.get_mut(thread).and_then(|t| t.forking.as_mut()) {
            f.in_flux = (turn == KnoteTurn::Register).then_some(at);
            let followed = &mut f.followed[tracker];
            followed.tracked |= turn != KnoteTurn::Nothing;
            followed.asked |= if done.attached.is_empty() { 0 } else { done.asked };
            followed.child_noted |= done.child;
            followed.exit_noted |= done.exit;
            followed.not_followed |= done.no_track_memory;
            followed.failed |= done.has_failed();
        }
        let flux = if turn == KnoteTurn::Register { self.options.flux_us * US } else { 0 };
        let delay = self.rng.around(flux);
        self.after(delay, KernelEvent::KnoteFork(thread));
    }

    /// A cause probe fires, if it is traced. That of a knote in flux looks at the first knote of the forker alone.
    fn trace_cause(
        &mut self,
        thread: Id,
        skipped: Option<Attached>,
        traced: impl FnOnce(Pid) -> Traced,
    ) {
        let Some(forker) = self.procs.threads.get(thread).map(|t| t.proc) else { return };
        let Some(forker) = self.procs.table.get(forker) else { return };
        let first = forker.klist.last();
        let seen = skipped.is_none_or(|at| {
            first.is_some_and(|first| (first.queue, first.knote) == (at.queue, at.knote))
        });
        if seen && self.options.causes {
            let (cpu, traced) = (forker.cpu, traced(forker.pid));
            self.trace(cpu, traced, None);
        }
    }

    fn register(&mut self, at: Attached, newborn: Newborn, child: Id) -> ChildRegistration {
        let (rng, rate) = (&mut self.rng, self.options.alloc_fail);
        let done = self.queues[at.queue].register(at.knote, newborn, || !rng.chance(rate));
        if let Some(proc) = self.procs.table.get_mut(child) {
            let attached = done.attached.iter().map(|knote| Attached { knote: *knote, ..at });
            proc.klist.extend(attached);
        }
        // Still in the table: the status that the dying process has not written yet.
        let stale = done.child && self.exiting.contains_key(&child);
        for (happened, fault) in [
            (done.no_child_memory, Fault::NoChildMemory),
            (done.no_track_memory, Fault::NoTrackMemory),
            (done.no_process, Fault::NoProcess),
            (done.reused, Fault::PidReuse),
            (stale, Fault::StaleStatus),
        ] {
            if happened {
                self.truth.fault(self.now, fault, newborn.pid.get());
            }
        }
        self.truth.most_knotes = self.truth.most_knotes.max(self.queues[at.queue].len());
        done
    }

    /// What pfind and zpfind see of the child.
    pub(super) fn standing(&self, child: Id) -> ChildState {
        match self.procs.table.get(child) {
            Some(Proc { state: ProcState::Alive, .. }) => ChildState::Alive,
            Some(proc) => ChildState::Exiting(proc.xstat),
            None => ChildState::Gone,
        }
    }

    /// knote_fork is done: what will not come is lost, for one reason or another.
    fn knotes_followed(&mut self, thread: Id) {
        let Some(t) = self.procs.threads.get(thread) else { return };
        let Some(f) = t.forking.as_ref() else { return };
        let (life, forker) = (f.life, self.procs.table.get(t.proc).and_then(|p| p.life));
        if let (Some(life), Some(forker)) = (life, forker) {
            let truths = self.consumers.iter_mut().map(|consumer| &mut consumer.truth);
            for (truth, followed) in std::iter::once(&mut self.truth).chain(truths).zip(&f.followed)
            {
                truth.followed(life, forker, followed, self.now);
            }
        }
        let delay = self.window();
        self.after(delay, KernelEvent::Created(thread));
    }

    /// proc:::create, then the child may run.
    pub(super) fn created(&mut self, thread: Id) {
        let Some(t) = self.procs.threads.get_mut(thread) else { return };
        let Some(forking) = t.forking.take() else { return };
        let forker = t.proc;
        if forking.vfork {
            t.waiting = Waiting::Vfork(forking.child);
            t.pc += 1;
        }
        self.trace_create(forker, &forking);
        if !forking.early {
            let delay = self.rng.latency(80 * US);
            self.after(delay, KernelEvent::Runnable(forking.child));
        }
        if !forking.vfork {
            let delay = self.rng.around(30 * US);
            self.next(thread, delay);
        }
    }

    fn trace_create(&mut self, forker: Id, forking: &Forking) {
        let Some(f) = self.procs.table.get(forker) else { return };
        let (cpu, forker_pid) = (f.cpu, f.pid);
        let (child, life, parent) = (forking.pid, forking.life, forking.parent);
        let stamp = self.dtrace.stamp(self.now, cpu);
        if let Some(life) = life.and_then(|l| self.truth.life(l)) {
            life.birth.at = Some(KernelTime(stamp));
        }
        let traced = Traced::Create { child, forker: forker_pid, parent, flags: forking.flags };
        self.trace(cpu, traced, life.map(|l| (l, Fact::Birth)));
        if life.is_some() {
            self.consumers_meet(child);
        }
    }
}
