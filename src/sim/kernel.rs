//! The simulated kernel's event loop: virtual time, the agenda, and what handles each event.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::ControlFlow;

use super::Length;
use super::arena::{Arena, Id};
use super::consumers::{self, CallingThread, Consumer, Step};
use super::dtrace::{Dtrace, Traced};
use super::kqueue::Kqueue;
use super::options::Options;
use super::procs::{Proc, Procs, Thread};
use super::reader::SimReader;
use super::rng::Rng;
use super::shape;
use super::truth::{Fault, LifeId, Truth};
use crate::input::{Input, Sink};
use crate::model::{Fact, MonoTime, Pid, Regime, TreeId, note};

pub(super) const US: u64 = 1_000;
pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

/// Where virtual time begins on DTrace's clock.
const START: u64 = 10 * SECOND;
/// CLOCK_MONOTONIC minus DTrace's clock: neither the origin nor the distance means anything.
const MONO_OFFSET: u64 = 7 * SECOND + 123_456_789;
/// How long the witnesses go on after the last process of the tree is gone and its last note has been read.
const LINGER: u64 = SECOND;
/// The same with consumers, some of which read rarely.
const LINGER_CONSUMERS: u64 = 6 * SECOND;
/// How much of the truth an endless run keeps.
const KEEP: usize = 1 << 14;
/// When the root begins if there are consumers: what happens within the settle time after DTrace's first record is undecided.
pub(super) const CONSUMED: u64 = COMPILE + SECOND;
/// The number of the mirror's kqueue: that of the exporter's own reader.
pub(super) const MIRROR: usize = 0;
/// dtrace needs this long to compile and enable its program.
pub(super) const COMPILE: u64 = 150 * MS;

/// What can be due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum KernelEvent {
    /// A thread takes its next step.
    Step(Id),
    /// A thread inside fork(2) comes to the next knote of its process.
    KnoteFork(Id),
    /// A thread inside fork(2) is past its probe's place.
    Created(Id),
    /// A child gets its first time slice: the process and the thread that runs its program.
    Runnable(Id),
    ExitProbe(Id),
    /// KNOTE(NOTE_EXIT) of a process.
    ExitNote(Id),
    Zombie(Id),
    /// The root of the tree is forked.
    Root,
    /// The process that forked the root lets it go.
    Attached,
    Call,
    /// The reader looks at the queue inside its call.
    Wake,
    Timeout(u64),
    /// The reader comes to the next queued knote.
    Scan,
    /// The reader has copied this knote.
    Copied(Id),
    /// The call returns.
    Return,
    /// The D program begins.
    Begin,
    Tick,
    /// dtrace switches this CPU's buffer.
    Switch(u32),
    /// dtrace prints some of what it took.
    Print,
    /// Somebody reads dtrace's stdout.
    ReadStdout,
    /// Somebody reads dtrace's stderr.
    ReadStderr,
    Consumer(Step),
    /// The kernel kills the DTrace session.
    Abort,
    /// The supervisor starts dtrace again.
    Restart,
    /// sysctl is read.
    Forks,
    ClockStep,
    Stop,
}

/// A simulated kernel with everything that runs on it.
pub(super) struct Kernel<'a> {
    pub(super) options: &'a Options,
    pub(super) rng: Rng,
    pub(super) now: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, KernelEvent)>>,
    order: u64,
    pub(super) procs: Procs,
    /// The status of each process between P_WEXIT and the setting of its p_xstat.
    pub(super) exiting: HashMap<Id, u32>,
    pub(super) queues: Vec<Kqueue>,
    pub(super) consumers: Vec<Consumer>,
    /// Their threads.
    pub(super) callers: Arena<CallingThread>,
    pub(super) reader: SimReader,
    pub(super) dtrace: Dtrace,
    pub(super) truth: Truth,
    /// vm.stats.vm.v_forks + v_vforks + v_rforks.
    pub(super) forks: u64,
    /// Processes of the tree that have not been reaped.
    pub(super) tree: usize,
    /// init(8), which reaps the processes that are left to it.
    pub(super) init: Id,
    pub(super) root: Id,
    reader_proc: Id,
    ending: bool,
    length: Length,
    /// Since when DTrace is blind, while it is not running.
    pub(super) blind_since: u64,
    /// When dtrace's last pass began.
    pub(super) pass_began: u64,
    sink: &'a mut dyn Sink,
    stopped: bool,
}

impl<'a> Kernel<'a> {
    pub(super) fn new(
        seed: u64,
        options: &'a Options,
        length: Length,
        sink: &'a mut dyn Sink,
    ) -> Kernel<'a> {
        let mut rng = Rng::new(seed);
        let mut notes = note::TRACK | note::EXIT;
        notes |= if options.note_fork { note::FORK } else { 0 };
        notes |= if options.note_exec { note::EXEC } else { 0 };
        let pid_max = options.shape.pid_max(options.pid_max);
        let last_pid = 120 + rng.below(u64::from(pid_max.min(4_000) - 150)) as u32;
        Kernel {
            procs: Procs::new(pid_max, last_pid),
            exiting: HashMap::new(),
            queues: vec![Kqueue::new(0, options.regime, options.max_knotes as usize)],
            consumers: consumers::all(seed, options),
            callers: Arena::default(),
            reader: SimReader::new(rng.below(u64::from(options.cpus.max(1))) as u32, notes),
            dtrace: Dtrace::new(options, &mut rng),
            options,
            rng,
            now: START,
            agenda: BinaryHeap::new(),
            order: 0,
            truth: Truth::new(if length == Length::Endless { KEEP } else { usize::MAX }),
            forks: 2_000,
            tree: 0,
            init: 0,
            root: 0,
            reader_proc: 0,
            ending: false,
            length,
            blind_since: START,
            pass_began: START,
            sink,
            stopped: false,
        }
    }

    /// Runs until the load is done and both witnesses have fallen silent, or the sink has had enough.
    pub(super) fn run(mut self) -> Truth {
        if self.options.mirror {
            self.push(Input::Tree { id: TreeId(0), name: self.options.shape.as_str() });
        }
        self.boot_consumers();
        self.push(Input::DtraceUp { at: self.mono() });
        self.boot();
        while !self.stopped {
            let Some(Reverse((at, _, event))) = self.agenda.pop() else { break };
            self.now = at;
            self.handle(event);
            self.wake_reader();
            self.wake_callers();
        }
        self.truth.finish(self.options);
        for consumer in self.consumers {
            let mut truth = consumer.truth;
            truth.complete(&self.truth);
            truth.finish(self.options);
            self.truth.consumers.push(truth);
        }
        self.truth
    }

    /// init, the reader, a root that waits behind its barrier, and what else forks on this machine.
    fn boot(&mut self) {
        self.init = self.spawn(Pid::new(1), 0, None);
        let daemon = self.spawn(None, self.init, None);
        let reader = self.spawn(None, self.init, None);
        for reaper in [self.init, reader] {
            if let Some(proc) = self.procs.table.get_mut(reaper) {
                proc.reaper = true;
            }
        }
        self.reader_proc = reader;
        // A command that the reader starts itself, or a process that was there before.
        let known = self.rng.chance(0.5);
        self.after(if known { COMPILE + 50 * MS } else { MS }, KernelEvent::Root);
        self.after(COMPILE, KernelEvent::Begin);
        if self.options.mirror {
            self.after(COMPILE + 100 * MS, KernelEvent::Call);
        }
        if !self.consumers.is_empty() {
            self.after(CONSUMED, KernelEvent::Attached);
        }
        self.after(SECOND / 2, KernelEvent::Forks);
        if self.options.foreign_us > 0 {
            let thread = self.add_thread(daemon, shape::foreign(self.options), None);
            self.after(COMPILE, KernelEvent::Step(thread));
        }
        if (self.options.clock_step_ms, self.options.reader_step_ms) != (0, 0) {
            self.after(self.options.step_at_ms * MS, KernelEvent::ClockStep);
        }
        if self.options.abort_ms > 0 {
            self.after(self.options.abort_ms * MS, KernelEvent::Abort);
        }
    }

    /// The root is forked; it waits until the reader has attached to it.
    fn fork_root(&mut self) {
        let (pid, forker) = (self.procs.find_pid(), self.procs.pid_of(self.reader_proc));
        let (Some(pid), Some(forker)) = (pid, forker) else { return };
        let life = self.born(pid, forker, None);
        self.root = self.spawn(Some(pid), self.reader_proc, Some(life));
        self.tree += 1;
        self.add_thread(self.root, shape::root(self.options, self.length), None);
        let traced = Traced::Create { child: pid, forker, parent: forker, flags: 0x14 };
        let cpu = self.any_cpu();
        self.trace(cpu, traced, None);
    }

    pub(super) fn spawn(&mut self, pid: Option<Pid>, parent: Id, life: Option<LifeId>) -> Id {
        let cpu = self.any_cpu();
        match pid.or_else(|| self.procs.find_pid()) {
            Some(pid) => self.procs.insert(Proc::new(pid, parent, life, cpu)),
            None => parent,
        }
    }

    pub(super) fn add_thread(&mut self, proc: Id, program: shape::Steps, joiner: Option<Id>) -> Id {
        let thread = Thread { proc, program, joiner, ..Thread::default() };
        let id = self.procs.threads.insert(thread);
        if let Some(proc) = self.procs.table.get_mut(proc) {
            proc.threads.push(id);
        }
        id
    }

    fn handle(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Step(thread) => self.step(thread),
            KernelEvent::KnoteFork(thread) => self.knote_fork(thread),
            KernelEvent::Created(thread) => self.created(thread),
            KernelEvent::Runnable(proc) => self.runnable(proc),
            KernelEvent::ExitProbe(proc) => self.exit_probe(proc),
            KernelEvent::ExitNote(proc) => self.exit_note(proc),
            KernelEvent::Zombie(proc) => self.zombie(proc),
            KernelEvent::Root => self.fork_root(),
            KernelEvent::Attached => self.runnable(self.root),
            KernelEvent::Call => self.call(),
            KernelEvent::Wake => self.wake(),
            KernelEvent::Timeout(seq) => self.timeout(seq),
            KernelEvent::Scan => self.scan(),
            KernelEvent::Copied(knote) => self.copied(knote),
            KernelEvent::Return => self.return_batch(),
            KernelEvent::Begin => self.begin(),
            KernelEvent::Tick => self.tick(),
            KernelEvent::Switch(cpu) => self.switch(cpu),
            KernelEvent::Print => self.print(),
            KernelEvent::ReadStdout => self.read_stdout(),
            KernelEvent::ReadStderr => self.read_stderr(),
            KernelEvent::Consumer(step) => self.consumer_step(step),
            KernelEvent::Abort => self.abort(),
            KernelEvent::Restart => self.restart(),
            KernelEvent::Forks => self.count_forks(),
            KernelEvent::ClockStep => self.clock_step(),
            KernelEvent::Stop => self.stop(),
        }
    }

    /// Puts an event on the agenda, `delay` nanoseconds from now.
    pub(super) fn after(&mut self, delay: u64, event: KernelEvent) {
        self.order += 1;
        self.agenda.push(Reverse((self.now + delay, self.order, event)));
    }

    /// Now, on the reading host's clock.
    pub(super) fn mono(&self) -> MonoTime {
        MonoTime((self.now + MONO_OFFSET).saturating_add_signed(self.reader.step))
    }

    /// DTrace's clock, the reader's or both jump.
    fn clock_step(&mut self) {
        self.truth.fault(self.now, Fault::ClockStep, 0);
        self.reader.step = self.options.reader_step_ms * MS as i64;
        self.dtrace.step(self.options.clock_step_ms * MS as i64);
    }

    pub(super) fn push(&mut self, input: Input<'_>) {
        if self.sink.push(input) == ControlFlow::Break(()) {
            self.stopped = true;
        }
    }

    pub(super) fn any_cpu(&mut self) -> u32 {
        self.rng.below(u64::from(self.dtrace.cpus())) as u32
    }

    /// A probe fires now, in the context of a process.
    pub(super) fn trace(&mut self, cpu: u32, traced: Traced, fact: Option<(LifeId, Fact)>) {
        let fork_or_exit = matches!(traced, Traced::Create { .. } | Traced::Exit { .. });
        let twice = (fork_or_exit && self.rng.chance(self.options.twice)).then(|| traced.clone());
        self.dtrace.fire(self.now, cpu, traced, fact, &mut self.truth);
        if let Some(traced) = twice {
            let again = self.now + 100 + self.rng.below(800);
            self.truth.fault(self.now, Fault::PrintedTwice, traced.pid());
            self.dtrace.fire(again, cpu, traced, None, &mut self.truth);
        }
    }

    /// Kernels whose child may run before knote_fork: those with one knote a child.
    pub(super) fn races(&mut self) -> bool {
        self.options.regime != Regime::Split && self.rng.chance(self.options.race)
    }

    /// The time between two places in the kernel: short, unless the thread is preempted.
    pub(super) fn window(&mut self) -> u64 {
        if self.rng.chance(self.options.preempt) {
            self.rng.below(self.options.preempt_us * US)
        } else {
            self.rng.around(3 * US)
        }
    }

    fn count_forks(&mut self) {
        self.push(Input::Forks { at: self.mono(), total: self.forks });
        self.after(SECOND, KernelEvent::Forks);
    }

    /// Nothing is queued any more: if no process is left that could queue something, the run ends soon.
    pub(super) fn nothing_queued(&mut self) {
        if self.tree == 0 && !self.ending {
            self.ending = true;
            let linger = if self.consumers.is_empty() { LINGER } else { LINGER_CONSUMERS };
            self.after(linger, KernelEvent::Stop);
        }
    }

    /// A process of the tree is forked.
    pub(super) fn born(&mut self, pid: Pid, forker: Pid, forker_life: Option<LifeId>) -> LifeId {
        for consumer in &mut self.consumers {
            consumer.truth.born(pid, forker, forker_life);
        }
        self.truth.born(pid, forker, forker_life)
    }

    /// The truth of every tracker.
    pub(super) fn truths(&mut self) -> impl Iterator<Item = &mut Truth> {
        let consumers = self.consumers.iter_mut().map(|consumer| &mut consumer.truth);
        std::iter::once(&mut self.truth).chain(consumers)
    }

    pub(super) fn truth_of(&mut self, tracker: usize) -> &mut Truth {
        match tracker.checked_sub(1) {
            Some(consumer) => &mut self.consumers[consumer].truth,
            None => &mut self.truth,
        }
    }

    fn stop(&mut self) {
        if self.dtrace.running() {
            self.dtrace.finish(self.now, &mut self.truth);
            self.consumers_shown();
        } else {
            self.truth.blinded(self.blind_since, u64::MAX);
        }
        self.read_stderr();
        while !self.dtrace.stdout.is_empty() {
            self.read_stdout();
        }
        if self.options.mirror {
            self.push(Input::TreeGone { id: TreeId(0) });
        }
        self.push(Input::End);
        self.stopped = true;
    }
}
