//! Puts together the registrations and the kevent(2) calls of consumers, the user's own trackers, from DTrace's records of them.
//!
//! The kernel copies out at most eight events at a time (KQ_NEVENTS), so the events of a call are all those that its thread was
//! copied before it returned. The call has looked at the queue after the thread's previous call had returned and after its own
//! registrations were done, but before its first event was copied out.

use super::event::{Call, Registration};
use crate::input::took_all;
use crate::model::{KernelTime, Kevent, Pid, filter};
use crate::wire::record::{Copyout, Register};

/// More processes than these are not kept apart: the one that has been there longest is forgotten.
const MAX_CONSUMERS: usize = 256;
/// More threads of consumers than these are not kept apart: the one that has been there longest is forgotten.
const MAX_THREADS: usize = 256;
/// More events than these are not kept for one call.
const MAX_EVENTS: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct ConsumerCalls {
    /// Who they are, and the numbers of their trackers.
    running: Vec<(Pid, usize)>,
    threads: Vec<ConsumerThread>,
}

/// A thread of a consumer.
#[derive(Debug)]
struct ConsumerThread {
    tracker: usize,
    tid: u32,
    /// The registration under way.
    registering: Option<Register>,
    /// When its previous call returned, or a later registration was done: it has not looked at the queue since.
    idle_since: KernelTime,
    /// What it was copied since then: all events, and those of EVFILT_PROC.
    copied: i64,
    events: Vec<Kevent>,
    /// The last of them: an event that is not later was printed twice.
    last: Option<(KernelTime, u8)>,
}

/// A kevent(2) call of a consumer returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallReturn {
    pub(super) at: KernelTime,
    pub(super) tid: u32,
    pub(super) fd: i32,
    pub(super) nevents: i32,
    /// How many events it returned.
    pub(super) event_count: i32,
}

impl ConsumerCalls {
    /// Tracker number `tracker` is this process from now on. The process that it was before stays as well, until its exit comes or a
    /// record of the new one: DTrace's records arrive later than this news.
    pub(super) fn set(&mut self, tracker: usize, pid: Pid) {
        if !self.running.contains(&(pid, tracker)) {
            if self.running.len() == MAX_CONSUMERS {
                self.running.remove(0);
            }
            self.running.push((pid, tracker));
        }
    }

    /// A record of the process `consumer` comes, so its tracker is this process alone from now on. Returns the number of the
    /// tracker and the process that it was until now, if that was another one.
    pub(super) fn replace_process(&mut self, consumer: Pid) -> Option<(usize, Pid)> {
        let place = self.running.iter().position(|(pid, _)| *pid == consumer)?;
        let tracker = self.running.get(place)?.1;
        let before = self.running.iter().take(place).filter(|(_, other)| *other == tracker);
        let (mut older, last) = before.fold((0, None), |(n, _), (pid, _)| (n + 1, Some(*pid)));
        self.running.retain(|(_, other)| {
            let goes = *other == tracker && older > 0;
            older -= usize::from(goes);
            !goes
        });
        if last.is_some() {
            self.threads.retain(|thread| thread.tracker != tracker);
        }
        last.map(|last| (tracker, last))
    }

    /// DTrace was started again: forgets the registrations and calls that were under way.
    pub(super) fn restart(&mut self) {
        self.threads.clear();
    }

    /// This process has ended: the number of its tracker, if it was a consumer.
    pub(super) fn ended(&mut self, pid: Pid) -> Option<usize> {
        let place = self.running.iter().position(|(running, _)| *running == pid)?;
        let (_, tracker) = self.running.remove(place);
        self.threads.retain(|thread| thread.tracker != tracker);
        Some(tracker)
    }

    /// The thread `tid` of a consumer. Pid 0 is the only one of the stream.
    fn thread(&mut self, consumer: Pid, tid: u32) -> Option<&mut ConsumerThread> {
        let only = self.running.len() == 1 && consumer.get() == 0;
        let tracker = self.running.iter().find(|(pid, _)| only || *pid == consumer)?.1;
        let is_it = |thread: &ConsumerThread| thread.tracker == tracker && thread.tid == tid;
        let place = self.threads.iter().position(is_it).unwrap_or_else(|| {
            if self.threads.len() == MAX_THREADS {
                self.threads.remove(0);
            }
            self.threads.push(ConsumerThread {
                tracker,
                tid,
                registering: None,
                idle_since: KernelTime(0),
                copied: 0,
                events: Vec::new(),
                last: None,
            });
            self.threads.len() - 1
        });
        self.threads.get_mut(place)
    }

    /// A registration begins. The kernel's own ones, in knote_fork, are none of the consumer's.
    pub(super) fn register(&mut self, register: &Register) {
        if register.own
            && let Some(thread) = self.thread(register.consumer, register.tid)
        {
            thread.registering = Some(*register);
        }
    }

    /// The registration of this thread that began last is done.
    pub(super) fn registered(
        &mut self,
        at: KernelTime,
        consumer: Pid,
        tid: u32,
        errno: i32,
    ) -> Option<Registration> {
        let thread = self.thread(consumer, tid)?;
        let register = thread.registering.take()?;
        thread.idle_since = thread.idle_since.max(at);
        Some(Registration {
            tracker: thread.tracker,
            queue: register.fd,
            kqueue: register.kqueue,
            entered: register.at,
            at,
            pid: Pid::new(register.ident).filter(|_| register.filter == filter::PROC),
            flags: register.flags.into(),
            notes: register.fflags,
            errno,
        })
    }

    /// An event is copied out.
    pub(super) fn copied(&mut self, copyout: &Copyout) {
        let Some(thread) = self.thread(copyout.consumer, copyout.tid) else { return };
        let this = (copyout.at, copyout.index);
        if thread.last.is_some_and(|last| last >= this) {
            return;
        }
        thread.last = Some(this);
        thread.copied += 1;
        if copyout.filter == filter::PROC && thread.events.len() < MAX_EVENTS {
            thread.events.push(Kevent {
                ident: copyout.ident,
                flags: copyout.flags.into(),
                fflags: copyout.fflags,
                data: copyout.data,
                udata: 0,
            });
        }
    }

    /// A call returns: fills in `call`. Returns whether events of it are missing, or `None` if it is not a consumer's.
    pub(super) fn complete_call(
        &mut self,
        consumer: Pid,
        call_return: &CallReturn,
        call: &mut Call,
    ) -> Option<bool> {
        let thread = self.thread(consumer, call_return.tid)?;
        call.entered = Some(std::mem::replace(&mut thread.idle_since, call_return.at));
        // Programs for FreeBSD 9 to 11 keep the arguments when a call begins: 0 for one that had begun before dtrace.
        let is_known = call_return.nevents >= call_return.event_count;
        let queue = if is_known { call_return.fd } else { Call::UNKNOWN_QUEUE };
        (call.tracker, call.queue, call.at) = (thread.tracker, queue, call_return.at);
        call.notes.append(&mut thread.events);
        let receipts = call.notes.iter().any(Kevent::is_receipt);
        call.drained =
            took_all(call_return.nevents.into(), call_return.event_count.into(), receipts);
        let copied = std::mem::take(&mut thread.copied);
        Some(copied < i64::from(call_return.event_count))
    }
}
