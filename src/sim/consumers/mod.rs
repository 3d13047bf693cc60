//! The simulated consumers: processes that use kqueue themselves, each in its own way. DTrace alone watches them.

mod calls;
mod habits;
#[cfg(test)]
mod tests;
mod traced;

use std::collections::HashMap;

use super::arena::Id;
use super::dtrace::Traced;
use super::kernel::{Kernel, MS, SECOND, US};
use super::kqueue::Kqueue;
use super::options::Options;
use super::procs::ProcState;
use super::rng::Rng;
use super::truth::{LifeId, Truth};
use crate::input::Input;
use crate::model::{KernelTime, Pid, TreeId, note};
use habits::Habits;

pub(super) use calls::CallingThread;
use traced::ConsumerProbe;
pub(super) use traced::ConsumerRecord;

/// The descriptor of a consumer's first kqueue.
const FIRST_FD: i32 = 3;
/// How long it takes until the pid file of a consumer, or its end, is noticed.
const NOTICED: u64 = SECOND;

/// A step of a consumer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Step {
    /// It opens its kqueues, and its threads begin to call kevent(2).
    Begin(usize),
    /// It is to close its first kqueue and to open another.
    Reopen(usize),
    /// It ends.
    End(usize),
    /// The exporter notices that it has ended.
    Missed(usize),
    /// Another process takes its place.
    Return(usize),
    /// The exporter has read its pid file: dtrace is to watch this process.
    Found(usize),
    /// A thread calls kevent(2).
    Call(Id),
    /// A thread comes to the next entry of its changelist.
    Change(Id),
    /// A thread looks at the queue inside its call.
    Wake(Id),
    /// The timeout of this call of a thread.
    Timeout(Id, u64),
    /// A thread comes to the next queued knote.
    Scan(Id),
    /// A thread has copied this knote.
    Copied(Id, Id),
    /// The call of a thread returns.
    Done(Id),
}

/// A consumer.
pub(super) struct Consumer {
    id: TreeId,
    rng: Rng,
    habits: Habits,
    /// Its process, while it runs.
    running: Option<(Id, Pid)>,
    /// The process that dtrace(1) watches.
    watched: Option<Pid>,
    /// Its kqueues, by their places.
    kqueues: Vec<OpenKqueue>,
    threads: Vec<Id>,
    /// It is to close its first kqueue and to open another.
    reopens: bool,
    /// What DTrace has shown of the calls under way: the notes that were copied out to each thread.
    shown: HashMap<Id, Vec<(LifeId, u32)>>,
    /// What it received.
    pub(super) truth: Truth,
}

/// A kqueue that a consumer has open.
struct OpenKqueue {
    /// Its number.
    queue: usize,
    /// Processes of the tree that it is to watch, and those that it does.
    known: Vec<Pid>,
    registered: Vec<Pid>,
    /// The last call that drained it.
    drained: DrainBegan,
}

/// When a call began that drained a kqueue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct DrainBegan {
    at: u64,
    /// When it may have begun, as DTrace shows it.
    shown: KernelTime,
}

/// The consumers of a run: what each does depends on the seed alone, not on the rest of the run.
pub(super) fn all(seed: u64, options: &Options) -> Vec<Consumer> {
    let first = u64::from(options.mirror);
    let consumer = |n: u64| {
        let mut rng = Rng::new(seed ^ (n + 1) << 32);
        Consumer {
            id: TreeId((first + n) as u16),
            habits: Habits::new(&mut rng),
            rng,
            running: None,
            watched: None,
            kqueues: vec![],
            threads: vec![],
            reopens: false,
            shown: HashMap::new(),
            truth: Truth::new(usize::MAX),
        }
    };
    (0..u64::from(options.consumers)).map(consumer).collect()
}

impl Kernel<'_> {
    /// The consumers run already.
    pub(super) fn boot_consumers(&mut self) {
        for n in 0..self.consumers.len() {
            let (id, name) = (self.consumers[n].id, format!("consumer{n}"));
            self.push(Input::Tree { id, name: &name });
            self.start_consumer(n);
            let Consumer { habits, running, watched, .. } = &mut self.consumers[n];
            let (pid, begins, closes, ends) =
                (running.map(|(_, pid)| pid), habits.begins, habits.closes, habits.ends);
            *watched = pid;
            self.push(Input::Consumer { id, pid });
            self.step_after(begins, Step::Begin(n));
            for (at, step) in [(closes, Step::Reopen(n)), (ends, Step::End(n))] {
                if let Some(at) = at {
                    self.step_after(at, step);
                }
            }
        }
    }

    pub(super) fn consumer_step(&mut self, step: Step) {
        match step {
            Step::Begin(n) => self.begin_consumer(n),
            Step::Reopen(n) => self.consumers[n].reopens = true,
            Step::End(n) => self.end_consumer(n),
            Step::Missed(n) => self.missed(n),
            Step::Return(n) => self.return_consumer(n),
            Step::Found(n) => self.found(n),
            Step::Call(caller) => self.caller_calls(caller),
            Step::Change(caller) => self.caller_changes(caller),
            Step::Wake(caller) => self.caller_wakes(caller),
            Step::Timeout(caller, seq) => self.caller_times_out(caller, seq),
            Step::Scan(caller) => self.caller_scans(caller),
            Step::Copied(caller, knote) => self.caller_copied(caller, knote),
            Step::Done(caller) => self.caller_returns(caller),
        }
    }

    fn start_consumer(&mut self, n: usize) -> Option<Pid> {
        let proc = self.spawn(None, self.init, None);
        let pid = self.procs.pid_of(proc)?;
        self.consumers[n].running = Some((proc, pid));
        Some(pid)
    }

    fn begin_consumer(&mut self, n: usize) {
        if self.consumers[n].running.is_none() {
            return;
        }
        let root = self.procs.pid_of(self.root).filter(|_| self.consumers[n].habits.follows);
        for place in 0..self.consumers[n].habits.notes.len() {
            let queue = self.open_kqueue(n);
            let known = root.into_iter().collect();
            self.consumers[n].kqueues.push(OpenKqueue {
                queue,
                known,
                registered: vec![],
                drained: DrainBegan::default(),
            });
            for _ in 0..self.consumers[n].habits.threads {
                self.start_caller(n, place, FIRST_FD + place as i32);
            }
        }
    }

    fn open_kqueue(&mut self, n: usize) -> usize {
        let (regime, most) = (self.options.regime, self.options.max_knotes as usize);
        self.queues.push(Kqueue::new(n + 1, regime, most));
        self.queues.len() - 1
    }

    fn close_kqueue(&mut self, n: usize, queue: usize) {
        self.queues[queue].close();
        let Consumer { truth, kqueues, .. } = &mut self.consumers[n];
        truth.forget();
        for (life, asked) in kqueues.iter().flat_map(|open| self.queues[open.queue].watched()) {
            if let Some(life) = truth.life(life) {
                life.asked |= asked;
            }
        }
    }

    /// The first kqueue is closed, which no thread reads now, and another one takes its descriptor: not without a registration,
    /// which shows that.
    fn reopen(&mut self, n: usize) {
        let watches = |open: &OpenKqueue| !open.known.is_empty() || !open.registered.is_empty();
        if !self.consumers[n].kqueues.first().is_some_and(watches) {
            return;
        }
        let new = self.open_kqueue(n);
        let Some(open) = self.consumers[n].kqueues.first_mut() else { return };
        let old = std::mem::replace(&mut open.queue, new);
        open.known.append(&mut open.registered);
        self.close_kqueue(n, old);
    }

    /// Those consumers that watch processes by themselves come to know one of the tree.
    pub(super) fn consumers_meet(&mut self, pid: Pid) {
        for Consumer { habits, rng, kqueues, .. } in &mut self.consumers {
            if !habits.follows && rng.chance(0.7) {
                kqueues.iter_mut().for_each(|open| open.known.push(pid));
            }
        }
    }

    /// exit1: its files are closed before its exit probe fires.
    fn end_consumer(&mut self, n: usize) {
        let Some((proc, pid)) = self.consumers[n].running.take() else { return };
        for id in std::mem::take(&mut self.consumers[n].threads) {
            self.callers.remove(id);
        }
        for open in std::mem::take(&mut self.consumers[n].kqueues) {
            self.close_kqueue(n, open.queue);
        }
        self.now += 20 * US;
        let cpu = self.any_cpu();
        let parent = self.procs.pid_of(self.init).unwrap_or(pid);
        self.trace(cpu, Traced::Exit { pid, parent, status: 9 }, None);
        self.procs.reap(proc);
        self.step_after(NOTICED, Step::Missed(n));
        if let Some(gone) = self.consumers[n].habits.returns {
            self.step_after(gone, Step::Return(n));
        }
    }

    fn missed(&mut self, n: usize) {
        let id = self.consumers[n].id;
        self.push(Input::Consumer { id, pid: None });
    }

    /// It registers what it finds at once, or a while later: when the exporter knows it, or long before.
    fn return_consumer(&mut self, n: usize) {
        let Some(pid) = self.start_consumer(n) else { return };
        let (cpu, init) = (self.any_cpu(), self.procs.pid_of(self.init).unwrap_or(pid));
        let created = Traced::Create { child: pid, forker: init, parent: init, flags: 0x14 };
        self.trace(cpu, created, None);
        let begins = self.consumers[n].rng.below(3 * SECOND);
        self.step_after(begins, Step::Begin(n));
        self.step_after(NOTICED + 100 * MS, Step::Found(n));
    }

    /// dtrace(1) is started again, with another program.
    fn found(&mut self, n: usize) {
        let Consumer { id, running, watched, .. } = &mut self.consumers[n];
        let (id, pid) = (*id, running.map(|(_, pid)| pid));
        *watched = pid;
        self.push(Input::Consumer { id, pid });
        self.restart_dtrace();
    }

    /// A probe fires in the context of a consumer's thread.
    fn trace_consumer(&mut self, caller: Id, what: ConsumerProbe) {
        let Some(&CallingThread { consumer, tid, .. }) = self.callers.get(caller) else { return };
        let Some((_, pid)) = self.consumers[consumer].running else { return };
        if self.consumers[consumer].watched == Some(pid) {
            let traced = ConsumerRecord { consumer, pid, caller, tid, what };
            let cpu = self.caller_cpu(caller);
            self.trace(cpu, Traced::Consumer(Box::new(traced)), None);
        }
    }

    /// DTrace has printed records of consumers: the notes of a call are known once it is seen to return.
    pub(super) fn consumers_shown(&mut self) {
        for (stamp, ConsumerRecord { consumer, caller, what, .. }) in
            std::mem::take(&mut self.dtrace.shown)
        {
            let Consumer { shown, truth, .. } = &mut self.consumers[consumer];
            let shown = shown.entry(caller).or_default();
            match what {
                ConsumerProbe::Copyout { events, .. } => {
                    shown.extend(
                        events.iter().filter_map(|got| Some((got.life?, got.event.fflags))),
                    );
                }
                ConsumerProbe::Call { .. } => {
                    shown.drain(..).for_each(|(life, fflags)| truth.shown(life, fflags, stamp));
                }
                ConsumerProbe::Register { .. } | ConsumerProbe::RegDone { .. } => {}
            }
        }
    }

    /// dtrace(1) has ended: calls under way are not seen to return.
    pub(super) fn consumers_forgotten(&mut self) {
        self.consumers.iter_mut().for_each(|consumer| consumer.shown.clear());
    }

    /// A consumer has changed a registration of this process, to report `also` on top of what its other knotes do.
    fn asked_anew(&mut self, n: usize, proc: Option<Id>, life: Option<LifeId>, also: u32) {
        let proc = proc.and_then(|proc| self.procs.table.get(proc));
        let asked = proc.map(|proc| &proc.klist).into_iter().flatten().fold(0, |asked, at| {
            let queue = &self.queues[at.queue];
            asked | if queue.tracker == n + 1 { queue.asked(at.knote) } else { 0 }
        });
        let alive = proc.is_some_and(|proc| proc.state == ProcState::Alive);
        if let Some(life) = life.and_then(|life| self.consumers[n].truth.life(life)) {
            life.asked = asked | also;
            life.unwatched |= alive && also & note::EXIT != 0 && asked & note::EXIT == 0;
        }
    }
}
