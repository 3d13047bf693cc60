//! The reading loop: one numbered kevent(2) call after the other, and nothing else that could wait.
//!
//! Right before and right after each call it calls getpriority(2), which DTrace records as marks. What the call returned goes
//! as a batch over the inbox to the pipeline, which gives it to the cross-checker.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::family::Family;
use super::{KqueueApi, MarkPlace, Notes};
use crate::input::{Attach, Batch, Input, OwnedBatch, took_all};
use crate::model::{Kevent, MonoTime, Pid, TreeId, note};
use crate::source::clock;
use crate::source::inbox::MessageSender;
use crate::source::message::Message;
use crate::source::pool::Pool;
use crate::source::signals;
use crate::source::stop::Stop;

/// How many batches may be ahead of the pipeline: a second or two of single events.
pub(crate) const BATCH_BUFFERS: usize = 2048;

/// The `nevents` of every call.
pub(super) const CAPACITY: u32 = 1024;
/// An idle call returns after this time: its mark tells the checker that the queue was empty. The verdict on a
/// missing note waits for up to two such calls.
const TIMEOUT: Duration = Duration::from_secs(1);
/// An idle call returns after this time until every tree has begun: a call has marks only if DTrace traced before it began.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(200);
/// An idle call returns after this time while descendants are searched.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(10);
/// How long the queue is read on at the end.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Registrations in one call: fewer than its capacity, so that each failure has room in the eventlist.
const MOST_CHANGES: usize = 512;

/// A process that is to be the root of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RootRequest {
    pub(crate) tree: TreeId,
    pub(crate) pid: Pid,
    /// It has not run yet: it has no descendants.
    pub(crate) newborn: bool,
}

/// How long idle calls take. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdlePace(Arc<AtomicBool>);

impl IdlePace {
    /// Every tree has begun: idle calls may take their time.
    pub(crate) fn all_begun(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether every tree has begun.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn timeout(&self) -> Duration {
        if self.is_idle() { TIMEOUT } else { BEGIN_TIMEOUT }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RootEvent {
    Attached {
        tree: TreeId,
        pid: Pid,
    },
    Refused {
        tree: TreeId,
        pid: Pid,
        errno: i32,
    },
    /// Another tree has it.
    Taken {
        tree: TreeId,
        pid: Pid,
        by: TreeId,
    },
    Ended {
        tree: TreeId,
    },
    /// The descendants that were there before us are registered; so many are tracked in all.
    Searched {
        tracked: usize,
    },
}

/// The reader. It is run on a thread of its own.
pub(crate) struct KqueueReader {
    kernel: Box<dyn KqueueApi>,
    stall: Duration,
    requests: Receiver<RootRequest>,
    notify: Box<dyn Fn(RootEvent) + Send>,
    pace: IdlePace,
    family: Family,
    /// To be registered by the next calls.
    planned: Vec<Attach>,
    /// Those of them that have not run yet, and so have no descendants.
    newborn: HashSet<Pid>,
    call: NumberedCall,
    /// The last call took all there was.
    drained: bool,
    out: Outbox,
    returned: Vec<Kevent>,
}

/// The numbered call under way: more than one system call if it is interrupted.
#[derive(Debug, Default)]
struct NumberedCall {
    seq: u64,
    registered: Vec<Attach>,
    before: Option<MonoTime>,
}

impl KqueueReader {
    /// A reader of `kernel` that asks for `notes`, sleeps for `stall` before each call, and calls `notify` with what becomes of
    /// the roots.
    pub(crate) fn new(
        kernel: Box<dyn KqueueApi>,
        notes: Notes,
        stall: Duration,
        requests: Receiver<RootRequest>,
        notify: Box<dyn Fn(RootEvent) + Send>,
        pace: IdlePace,
        to: MessageSender,
    ) -> KqueueReader {
        KqueueReader {
            kernel,
            stall,
            requests,
            notify,
            pace,
            family: Family::new(notes.fflags()),
            planned: Vec::new(),
            newborn: HashSet::new(),
            call: NumberedCall::default(),
            drained: false,
            out: Outbox::new(BATCH_BUFFERS, to),
            returned: Vec::new(),
        }
    }

    /// Reads until `stop`. Gives the kernel back: on FreeBSD 10.4 and older the queue must not be closed while a
    /// tracked process forks.
    pub(crate) fn run(mut self, stop: &Stop) -> (Box<dyn KqueueApi>, io::Result<()>) {
        // An interrupted call would have to be made again.
        if let Err(errno) = signals::leave_to_other_threads() {
            tracing::warn!("the kqueue reader cannot block signals: {errno}");
        }
        let mut result = Ok(());
        while result.is_ok() && !stop.is_requested() {
            result = self.turn();
        }
        if result.is_ok() {
            result = self.read_rest();
        }
        self.out.report_loss();
        (self.kernel, result)
    }

    /// What is queued when the end is asked for: a slow consumer may be some calls behind.
    fn read_rest(&mut self) -> io::Result<()> {
        self.stall = Duration::ZERO;
        let begun = Instant::now();
        while !self.drained && begun.elapsed() < LONGEST_REST {
            self.turn()?;
        }
        Ok(())
    }

    /// One kevent(2) call and what follows from it.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.take_requests();
        if let Err(error) = self.family.list(&mut *self.kernel) {
            tracing::warn!("cannot list processes, so those born before us stay unknown: {error}");
        }
        if !self.stall.is_zero() {
            std::thread::sleep(self.stall);
        }
        // An `m` record has the lower 32 bits of the number alone, which are enough to tell calls apart.
        let call = self.call.seq as u32;
        let before = *self.call.before.get_or_insert_with(|| {
            let now = clock::now();
            self.kernel.mark(MarkPlace::Before, call);
            now
        });
        let any_refused = match self.read() {
            Ok(any_refused) => any_refused,
            // It is made again, under the same number.
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        self.kernel.mark(MarkPlace::After, call);
        let after = clock::now();
        self.call.before = None;
        self.drained = took_all(CAPACITY.into(), self.returned.len() as i64, any_refused);
        self.follow_registrations();
        self.follow_events();
        self.plan_descendants();
        let (seq, capacity) = (self.call.seq, CAPACITY);
        let head = Batch { seq, capacity, before, after, attached: &[], events: &[] };
        self.out.post(head, &mut self.returned);
        self.call.seq += 1;
        Ok(())
    }

    /// The call itself. Whether a registration of it was refused.
    fn read(&mut self) -> io::Result<bool> {
        let count = self.planned.len().min(MOST_CHANGES);
        let changes = &self.planned[..count];
        let timeout = match self.family.is_searching() {
            true => SEARCH_TIMEOUT,
            false => self.pace.timeout(),
        };
        self.returned.clear();
        let result = self.kernel.kevent(changes, CAPACITY, timeout, &mut self.returned);
        // An interrupted call has registered all of them: none must be registered twice.
        self.call.registered.extend(self.planned.drain(..count));
        result?;
        Ok(count > 0 && self.take_receipts())
    }

    /// Takes the failed registrations out of what was returned. Whether there were any.
    fn take_receipts(&mut self) -> bool {
        let registered = &mut self.call.registered;
        let mut any = false;
        self.returned.retain(|event| {
            let failed = event.flags & note::EV_ERROR != 0;
            if failed {
                any = true;
                let is_its = |attach: &&mut Attach| u64::from(attach.pid.get()) == event.ident;
                if let Some(attach) = registered.iter_mut().find(is_its) {
                    attach.errno = i32::try_from(event.data).unwrap_or(i32::MAX);
                }
            }
            !failed
        });
        any
    }

    /// Who is tracked by the registrations of the call.
    fn follow_registrations(&mut self) {
        for attach in std::mem::take(&mut self.call.registered) {
            self.family.registered(&attach);
            self.out.attached.push(attach);
            let Attach { tree, pid, root, errno, .. } = attach;
            if !root {
                continue;
            }
            let is_newborn = self.newborn.remove(&pid);
            if errno == 0 {
                (self.notify)(RootEvent::Attached { tree, pid });
                if !is_newborn {
                    self.family.search();
                }
            } else {
                self.out.gone.push(tree);
                (self.notify)(RootEvent::Refused { tree, pid, errno });
            }
        }
    }

    /// Who is tracked by the events of the call.
    fn follow_events(&mut self) {
        for tree in self.returned.iter().filter_map(|event| self.family.event(event)) {
            self.out.gone.push(tree);
            (self.notify)(RootEvent::Ended { tree });
        }
    }

    /// Takes the search for descendants one step further, if there is one.
    fn plan_descendants(&mut self) {
        if self.drained && self.family.is_searching() {
            self.planned.extend(self.family.missing());
            if !self.family.is_searching() {
                let tracked = self.family.len();
                (self.notify)(RootEvent::Searched { tracked });
            }
        }
    }

    /// Plans the registrations that were asked for. A process that is tracked, or about to be, is not registered again.
    fn take_requests(&mut self) {
        while let Ok(RootRequest { tree, pid, newborn }) = self.requests.try_recv() {
            let mut planned = self.planned.iter_mut().chain(&mut self.call.registered);
            let planned = planned.find(|attach| attach.pid == pid);
            let by = planned.as_ref().map(|attach| attach.tree);
            match (by.or(self.family.tree_of(pid)), planned) {
                (None, _) => {
                    self.planned.push(self.family.root(tree, pid));
                    if newborn {
                        self.newborn.insert(pid);
                    }
                }
                (Some(by), _) if by != tree => {
                    self.out.gone.push(tree);
                    (self.notify)(RootEvent::Taken { tree, pid, by });
                }
                (_, Some(attach)) => attach.root = true,
                (_, None) => {
                    self.family.set_root(tree, pid);
                    (self.notify)(RootEvent::Attached { tree, pid });
                }
            }
        }
    }
}

/// See [`Input::BatchesLost`].
struct LostBatches {
    first: u64,
    count: u64,
    from: MonoTime,
    to: MonoTime,
}

/// Batches on their way to the pipeline, and what is sent behind the next one.
struct Outbox {
    pool: Arc<Pool<OwnedBatch>>,
    to: MessageSender,
    lost: Option<LostBatches>,
    attached: Vec<Attach>,
    gone: Vec<TreeId>,
}

impl Outbox {
    fn new(buffers: usize, to: MessageSender) -> Outbox {
        Outbox { pool: Pool::new(buffers), to, lost: None, attached: Vec::new(), gone: Vec::new() }
    }

    /// Sends a batch of these events, or counts it as lost. Leaves an empty buffer in their place.
    fn post(&mut self, head: Batch<'static>, events: &mut Vec<Kevent>) {
        match self.pool.take() {
            Some(mut batch) => {
                self.report_loss();
                batch.head = head;
                batch.attached.clear();
                batch.attached.append(&mut self.attached);
                batch.events.clear();
                std::mem::swap(&mut batch.events, events);
                match batch.attached.is_empty() && batch.events.is_empty() {
                    true => self.to.post_quietly(Message::Batch(batch)),
                    false => self.to.post(Message::Batch(batch)),
                }
            }
            None => {
                let Batch { seq: first, before: from, after: to, .. } = head;
                let lost = self.lost.get_or_insert(LostBatches { first, count: 0, from, to });
                lost.count += 1;
                lost.to = to;
            }
        }
        for id in self.gone.drain(..) {
            self.to.post(Message::Plain(Input::TreeGone { id }));
        }
    }

    fn report_loss(&mut self) {
        if let Some(LostBatches { first, count, from, to }) = self.lost.take() {
            self.to.post(Message::Plain(Input::BatchesLost { first, count, from, to }));
        }
    }
}
