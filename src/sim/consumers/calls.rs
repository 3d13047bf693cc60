//! The simulated kevent(2) calls of consumers: the changelist entry by entry, then kqueue_scan knote by knote, eight
//! events at a time (13.2 `kern_event.c:1380-1440`, `1930-2080`).

use super::habits::Habits;
use super::traced::{ConsumerProbe, CopiedEvent, KQ_NEVENTS};
use super::{Consumer, DrainBegan, Step};
use crate::model::{KernelTime, Kevent, Pid, Regime, filter, note};
use crate::sim::arena::Id;
use crate::sim::kernel::{Kernel, KernelEvent, US};
use crate::sim::kqueue::{Change, ChangeTarget, Changed, Head};
use crate::sim::procs::{Attached, ProcState};
use crate::sim::truth::LifeId;

/// A thread of a consumer, inside and between its calls.
#[derive(Default)]
pub(in crate::sim) struct CallingThread {
    pub(super) consumer: usize,
    pub(super) tid: u32,
    cpu: u32,
    /// Which of the consumer's kqueues it reads, and that one's descriptor.
    place: usize,
    fd: i32,
    seq: u64,
    /// When the call began.
    entered: u64,
    /// When DTrace has shown its last call to return, or its last registration to be done.
    shown: KernelTime,
    changes: Vec<Change>,
    /// The first of them has begun.
    changing: bool,
    room: usize,
    /// How many receipts and errors were returned for changes.
    receipts: usize,
    errno: i32,
    sleeping: bool,
    timed_out: bool,
    /// How many queued knotes lie before the scan's marker.
    left: usize,
    /// How many events were copied out, and those that were not yet.
    copied: usize,
    events: Vec<CopiedEvent>,
    /// Those of processes of the tree: they are delivered when the call returns.
    delivered: Vec<(LifeId, Kevent)>,
    /// The processes of the last events: what EV_DISPATCH has disabled is enabled again.
    reported: Vec<Pid>,
}

impl Kernel<'_> {
    pub(super) fn start_caller(&mut self, consumer: usize, place: usize, fd: i32) {
        let cpus = u64::from(self.options.cpus.max(1));
        let cpu = self.consumers[consumer].rng.below(cpus) as u32;
        let thread = CallingThread {
            consumer,
            tid: 100_100 + self.callers.len() as u32,
            cpu,
            place,
            fd,
            ..CallingThread::default()
        };
        let id = self.callers.insert(thread);
        self.consumers[consumer].threads.push(id);
        self.step_after(self.callers.len() as u64 * US, Step::Call(id));
    }

    pub(super) fn caller_cpu(&self, id: Id) -> u32 {
        self.callers.get(id).map_or(0, |thread| thread.cpu)
    }

    pub(super) fn step_after(&mut self, delay: u64, step: Step) {
        self.after(delay, KernelEvent::Consumer(step));
    }

    /// The number of the kqueue that this thread reads.
    fn queue_of(&self, id: Id) -> Option<usize> {
        let thread = self.callers.get(id)?;
        Some(self.consumers[thread.consumer].kqueues.get(thread.place)?.queue)
    }

    /// Userland calls kevent(2).
    pub(super) fn caller_calls(&mut self, id: Id) {
        let Some(thread) = self.callers.get_mut(id) else { return };
        let (n, place) = (thread.consumer, thread.place);
        let reported = std::mem::take(&mut thread.reported);
        if place == 0 && self.consumers[n].reopens && self.consumers[n].habits.threads == 1 {
            self.consumers[n].reopens = false;
            self.reopen(n);
        }
        let mut changes = self.consumers[n].changes(place, &reported);
        let Habits { room, timeout, apart, flags, .. } = self.consumers[n].habits;
        let (room, timeout) = if !apart || changes.is_empty() {
            (room, timeout)
        } else {
            // It only registers.
            (if flags & note::EV_RECEIPT != 0 { changes.len() } else { 0 }, Some(0))
        };
        let Some(thread) = self.callers.get_mut(id) else { return };
        thread.seq += 1;
        thread.entered = self.now;
        (thread.room, thread.receipts, thread.errno) = (room, 0, 0);
        (thread.copied, thread.timed_out) = (0, timeout == Some(0));
        let (seq, waits) = (thread.seq, changes.is_empty());
        changes.reverse();
        thread.changes = changes;
        // If it registers first, the timeout counts from the beginning of the scan, which comes soon.
        if let Some(timeout) = timeout.filter(|ns| *ns > 0) {
            self.step_after(timeout, Step::Timeout(id, seq));
        }
        if waits { self.caller_waits(id) } else { self.step_after(US, Step::Change(id)) }
    }

    /// kqueue_register for the next entry of the changelist.
    pub(super) fn caller_changes(&mut self, id: Id) {
        let Some(thread) = self.callers.get_mut(id) else { return };
        let (n, fd) = (thread.consumer, thread.fd);
        let Some(&change) = thread.changes.last() else { return self.changes_done(id) };
        let begins = !std::mem::replace(&mut thread.changing, true);
        let Some(queue) = self.queue_of(id) else { return };
        let Change { pid, flags, notes } = change;
        let proc = self.procs.find(pid);
        let target = proc.and_then(|proc| self.target(proc));
        if target.is_some_and(|target| target.life.is_none()) {
            // Another process, which is none of the tree's, has the pid by now: it is let be.
            if let Some(thread) = self.callers.get_mut(id) {
                thread.change_done();
            }
            return self.caller_changes(id);
        }
        if begins {
            let kqueue = 0xffff_f800_0000_0000 + 0x200 * queue as u64;
            let ident = u64::from(pid.get());
            let what = ConsumerProbe::Register {
                fd,
                kqueue,
                ident,
                filter: filter::PROC,
                flags,
                fflags: notes,
            };
            self.trace_consumer(id, what);
        }
        let life = target.and_then(|target| target.life);
        let errno = match self.queues[queue].change(&change, target) {
            Changed::Blocked => return self.step_after(US, Step::Change(id)),
            Changed::Refused(errno) => errno,
            Changed::Done(knote) => {
                if let (Some(knote), Some(proc)) =
                    (knote, proc.and_then(|proc| self.procs.table.get_mut(proc)))
                {
                    proc.klist.push(Attached { queue, knote });
                }
                let also =
                    if flags & (note::EV_DELETE | note::EV_DISABLE) == 0 { notes } else { 0 };
                self.asked_anew(n, proc, life, also);
                0
            }
        };
        self.now += 300;
        self.trace_consumer(id, ConsumerProbe::RegDone { errno });
        self.caller_shown(id);
        self.changed(id, &change, errno);
    }

    /// An entry of the changelist is done: what failed, or is to have a receipt, is returned as an event.
    fn changed(&mut self, id: Id, change: &Change, errno: i32) {
        let Some(thread) = self.callers.get_mut(id) else { return };
        thread.change_done();
        let fd = thread.fd;
        if errno != 0 || change.flags & note::EV_RECEIPT != 0 {
            if thread.room == thread.receipts {
                thread.errno = errno;
                thread.changes.clear();
                return self.step_after(US / 2, Step::Done(id));
            }
            thread.receipts += 1;
            let event = Kevent {
                ident: u64::from(change.pid.get()),
                flags: note::EV_ERROR,
                fflags: 0,
                data: i64::from(errno),
                udata: 0,
            };
            let events = vec![CopiedEvent::of_process(event, None)];
            self.trace_consumer(id, ConsumerProbe::Copyout { fd, events });
        }
        self.step_after(US / 2, Step::Change(id));
    }

    fn changes_done(&mut self, id: Id) {
        match self.callers.get(id) {
            Some(thread) if thread.receipts > 0 || thread.room == 0 => {
                self.step_after(US / 2, Step::Done(id));
            }
            _ => self.caller_waits(id),
        }
    }

    /// The process of this number, as a registration finds it.
    fn target(&self, proc: Id) -> Option<ChangeTarget> {
        let standing = self.standing(proc);
        let proc = self.procs.table.get(proc)?;
        Some(ChangeTarget { life: proc.life, standing, zombie: proc.state == ProcState::Zombie })
    }

    /// kqueue_scan begins: it sleeps while nothing is queued.
    fn caller_waits(&mut self, id: Id) {
        let Some(queue) = self.queue_of(id) else { return };
        let Some(thread) = self.callers.get_mut(id) else { return };
        let queued = self.queues[queue].queued() > 0;
        thread.sleeping = !queued && !thread.timed_out;
        if !thread.sleeping {
            let step = if queued { Step::Wake(id) } else { Step::Done(id) };
            self.step_after(US / 2, step);
        }
    }

    /// After every event: something may have been queued for a sleeping thread.
    pub(in crate::sim) fn wake_callers(&mut self) {
        for n in 0..self.consumers.len() {
            for place in 0..self.consumers[n].threads.len() {
                let id = self.consumers[n].threads[place];
                let Some(queue) = self.queue_of(id) else { continue };
                let Some(thread) = self.callers.get_mut(id) else { continue };
                if thread.sleeping && self.queues[queue].queued() > 0 {
                    thread.sleeping = false;
                    let delay = self.consumers[n].rng.latency(self.options.reader_us * US);
                    self.step_after(delay, Step::Wake(id));
                }
            }
        }
    }

    pub(super) fn caller_times_out(&mut self, id: Id, seq: u64) {
        let Some(thread) = self.callers.get_mut(id).filter(|thread| thread.seq == seq) else {
            return;
        };
        thread.timed_out = true;
        if std::mem::take(&mut thread.sleeping) {
            self.step_after(US, Step::Done(id));
        }
    }

    /// The scan puts its marker behind what is queued now.
    pub(super) fn caller_wakes(&mut self, id: Id) {
        let Some(queue) = self.queue_of(id) else { return };
        let Some(thread) = self.callers.get_mut(id) else { return };
        thread.left = self.queues[queue].queued();
        self.queues[queue].scans += 1;
        self.caller_scans(id);
    }

    pub(super) fn caller_scans(&mut self, id: Id) {
        let Some(queue) = self.queue_of(id) else { return };
        let Some(thread) = self.callers.get_mut(id) else { return };
        if thread.left == 0 || thread.copied + thread.events.len() >= thread.room {
            return self.caller_scanned(id, queue);
        }
        let head = self.queues[queue].head();
        if let Some(Head::Freed | Head::Scan(_)) = head {
            thread.left -= 1;
        }
        match head {
            Some(Head::Blocked) => self.step_after(US, Step::Scan(id)),
            Some(Head::Freed) => self.step_after(0, Step::Scan(id)),
            Some(Head::Scan(knote)) => {
                let delay = self.rng.around(self.options.scan_ns.max(1));
                self.step_after(delay, Step::Copied(id, knote));
            }
            None => self.caller_scanned(id, queue),
        }
    }

    pub(super) fn caller_copied(&mut self, id: Id, knote: Id) {
        let Some(queue) = self.queue_of(id) else { return };
        let Some(n) = self.callers.get(id).map(|thread| thread.consumer) else { return };
        let Some(read) = self.queues[queue].read(knote) else { return self.caller_scans(id) };
        if let Some(mut event) = read.event {
            self.scribble(&mut event);
            event.udata = 0;
            // The knote of a NOTE_CHILD that a split kernel makes has done all that it was to do.
            let of_birth = event.fflags & note::CHILD != 0 && self.options.regime == Regime::Split;
            if read.used_up && event.fflags & note::EXIT == 0 && !of_birth {
                let proc = Pid::new(event.ident).and_then(|pid| self.procs.find(pid));
                self.asked_anew(n, proc, read.life, 0);
            }
            let Some(thread) = self.callers.get_mut(id) else { return };
            thread.events.push(CopiedEvent::of_process(event, read.life));
            thread.reported.extend(Pid::new(event.ident));
            let full = thread.copied + thread.events.len() == thread.room;
            let Consumer { rng, habits, .. } = &mut self.consumers[n];
            if !full && rng.chance(habits.others) {
                let event =
                    Kevent { ident: 5, flags: note::EV_CLEAR, fflags: 0, data: 1, udata: 0 };
                thread.events.push(CopiedEvent { event, filter: -7, life: None });
            }
            if thread.events.len() >= KQ_NEVENTS {
                self.copy_out(id);
            }
        }
        self.caller_scans(id);
    }

    /// At most eight events go to the consumer.
    fn copy_out(&mut self, id: Id) {
        let Some(thread) = self.callers.get_mut(id) else { return };
        let some = thread.events.len().min(KQ_NEVENTS);
        let events: Vec<CopiedEvent> = thread.events.drain(..some).collect();
        thread.copied += events.len();
        thread.delivered.extend(events.iter().filter_map(|got| Some((got.life?, got.event))));
        let fd = thread.fd;
        if !events.is_empty() {
            self.trace_consumer(id, ConsumerProbe::Copyout { fd, events });
        }
    }

    /// The marker, or the end of the eventlist, has been reached.
    fn caller_scanned(&mut self, id: Id, queue: usize) {
        self.queues[queue].scans -= 1;
        self.copy_out(id);
        match self.callers.get(id) {
            Some(thread) if thread.copied > 0 || thread.timed_out => {
                let delay = self.rng.around(US);
                self.step_after(delay, Step::Done(id));
            }
            // Everything that was queued turned out to be nothing: it sleeps on.
            _ => self.caller_waits(id),
        }
    }

    /// DTrace shows what this thread has done until now. Gives back when that is on its clock.
    fn caller_shown(&mut self, id: Id) -> KernelTime {
        let shown = KernelTime(self.dtrace.stamp(self.now, self.caller_cpu(id)));
        if let Some(thread) = self.callers.get_mut(id) {
            thread.shown = shown;
        }
        shown
    }

    pub(super) fn caller_returns(&mut self, id: Id) {
        let Some(thread) = self.callers.get_mut(id) else { return };
        let (n, fd, place, nevents, errno) =
            (thread.consumer, thread.fd, thread.place, thread.room, thread.errno);
        let returned = thread.copied + thread.receipts;
        let drained = thread.receipts == 0 && returned < nevents;
        let began = DrainBegan { at: thread.entered, shown: thread.shown };
        let seq = thread.seq;
        let delivered = std::mem::take(&mut thread.delivered);
        let what = ConsumerProbe::Call {
            fd,
            nevents,
            returned: if errno == 0 { returned as i32 } else { -1 },
            errno,
        };
        self.trace_consumer(id, what);
        let returned = self.caller_shown(id);
        let consumer = &mut self.consumers[n];
        for (life, event) in delivered {
            consumer.truth.delivered(life, &event, seq);
        }
        consumer.truth.returned(returned);
        if drained {
            if let Some(open) = consumer.kqueues.get_mut(place) {
                open.drained = began;
            }
            if let Some(all) = consumer.kqueues.iter().map(|open| open.drained).min() {
                consumer.truth.drained(all.at, all.shown);
            }
        }
        let pause = consumer.rng.around(consumer.habits.pause);
        let moves = consumer.rng.chance(0.1);
        let cpu = self.any_cpu();
        if moves && let Some(thread) = self.callers.get_mut(id) {
            thread.cpu = cpu;
        }
        self.step_after(pause, Step::Call(id));
    }
}

impl CallingThread {
    /// The entry of the changelist that it is at is done.
    fn change_done(&mut self) {
        self.changes.pop();
        self.changing = false;
    }
}
