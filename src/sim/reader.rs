//! The simulated reader of the mirror: kevent(2) call by call, kqueue_scan knote by knote.

use super::arena::Id;
use super::dtrace::Traced;
use super::kernel::{Kernel, KernelEvent, MIRROR, MS, US};
use super::kqueue::Head;
use super::procs::Attached;
use super::truth::Fault;
use crate::input::{Attach, Batch, Input};
use crate::model::{KernelTime, Kevent, MonoTime, TreeId, note};

/// The timeout of every call: that of the live reader until all of its trees have begun. The live reader then waits for a second;
/// a simulated run is hardly longer than that.
const TIMEOUT: u64 = 200 * MS;

/// The reader's state inside and between its calls.
#[derive(Debug, Default)]
pub(super) struct SimReader {
    /// What it asks for.
    notes: u32,
    seq: u64,
    cpu: u32,
    before: MonoTime,
    /// When the call began, on the true clock, and on DTrace's.
    entered: u64,
    entered_at: KernelTime,
    /// It sleeps until something is queued.
    sleeping: bool,
    timed_out: bool,
    /// How many queued knotes lie before the scan's marker.
    left: usize,
    events: Vec<Kevent>,
    attached: Vec<Attach>,
    /// How far the reading host's clock has jumped.
    pub(super) step: i64,
}

impl SimReader {
    pub(super) fn new(cpu: u32, notes: u32) -> SimReader {
        SimReader { cpu, notes, ..SimReader::default() }
    }
}

impl Kernel<'_> {
    /// Userland calls kevent(2). The first call registers the root and does not wait, so that the root can be let go.
    pub(super) fn call(&mut self) {
        self.reader.before = self.mono();
        let (seq, cpu) = (self.reader.seq, self.reader.cpu);
        self.trace(cpu, Traced::CallMark { returned: false, seq }, None);
        self.reader.entered_at = KernelTime(self.dtrace.stamp(self.now, cpu));
        self.now += self.rng.around(US);
        self.reader.entered = self.now;
        self.reader.timed_out = seq == 0;
        if seq == 0 {
            self.attach_root();
            return self.after(US, KernelEvent::Wake);
        }
        self.after(TIMEOUT, KernelEvent::Timeout(seq));
        if self.queues[MIRROR].queued() > 0 {
            self.after(US / 2, KernelEvent::Wake);
        } else {
            self.reader.sleeping = true;
        }
    }

    fn attach_root(&mut self) {
        let Some(root) = self.procs.table.get_mut(self.root) else { return };
        let knote = self.queues[MIRROR].attach(root.pid, root.life, self.reader.notes);
        root.klist.push(Attached { queue: MIRROR, knote });
        let notes = self.reader.notes;
        self.reader.attached.push(Attach {
            tree: TreeId(0),
            pid: root.pid,
            root: true,
            errno: 0,
            notes,
        });
        if let Some(life) = root.life.and_then(|life| self.truth.life(life)) {
            life.asked = notes;
        }
    }

    /// After every event: something may have been queued for a sleeping reader.
    pub(super) fn wake_reader(&mut self) {
        if self.reader.sleeping && self.queues[MIRROR].queued() > 0 {
            self.reader.sleeping = false;
            let delay = self.rng.latency(self.options.reader_us * US);
            self.after(delay, KernelEvent::Wake);
        }
    }

    pub(super) fn timeout(&mut self, seq: u64) {
        if seq != self.reader.seq {
            return;
        }
        self.reader.timed_out = true;
        if std::mem::take(&mut self.reader.sleeping) {
            self.after(US, KernelEvent::Return);
        }
    }

    /// kqueue_scan puts its marker behind what is queued now.
    pub(super) fn wake(&mut self) {
        self.reader.left = self.queues[MIRROR].queued();
        self.queues[MIRROR].scans += 1;
        self.scan();
    }

    pub(super) fn scan(&mut self) {
        let full = self.reader.events.len() >= Batch::capacity_of(self.reader.seq) as usize;
        if self.reader.left == 0 || full {
            return self.scanned();
        }
        match self.queues[MIRROR].head() {
            Some(Head::Blocked) => {
                let delay = self.rng.around(US);
                self.after(delay, KernelEvent::Scan);
            }
            Some(Head::Freed) => {
                self.reader.left -= 1;
                self.after(0, KernelEvent::Scan);
            }
            Some(Head::Scan(knote)) => {
                self.reader.left -= 1;
                let delay = self.rng.around(self.options.scan_ns.max(1));
                self.after(delay, KernelEvent::Copied(knote));
            }
            None => self.scanned(),
        }
    }

    pub(super) fn copied(&mut self, knote: Id) {
        if let Some(read) = self.queues[MIRROR].read(knote) {
            if read.trackerr_lost {
                let who = read.life.and_then(|l| self.truth.life(l)).map_or(0, |l| l.pid.get());
                self.truth.fault(self.now, Fault::LostUpdate, who);
            }
            if let Some(mut event) = read.event {
                self.scribble(&mut event);
                if let Some(life) = read.life {
                    self.truth.delivered(life, &event, self.reader.seq);
                }
                self.reader.events.push(event);
            }
        }
        self.scan();
    }

    /// A fault that no kernel is known to have: data that is neither a pid nor a status.
    pub(super) fn scribble(&mut self, event: &mut Kevent) {
        let carries = event.fflags & (note::CHILD | note::EXIT) != 0;
        if carries && self.rng.chance(self.options.corrupt) {
            event.data += 1_000_000;
            self.truth.fault(self.now, Fault::Scribble, event.ident as u32);
        }
    }

    /// The marker, or the end of the reader's array, has been reached.
    fn scanned(&mut self) {
        self.queues[MIRROR].scans -= 1;
        if !self.reader.events.is_empty() || self.reader.timed_out {
            let delay = self.rng.around(US);
            return self.after(delay, KernelEvent::Return);
        }
        // Everything that was queued turned out to be nothing: it sleeps on.
        if self.queues[MIRROR].queued() > 0 {
            self.after(US / 2, KernelEvent::Wake);
        } else {
            self.reader.sleeping = true;
        }
    }

    pub(super) fn return_batch(&mut self) {
        let (seq, cpu, returned) = (self.reader.seq, self.reader.cpu, self.reader.events.len());
        let capacity = Batch::capacity_of(seq);
        self.trace(cpu, Traced::CallMark { returned: true, seq }, None);
        let at = self.dtrace.stamp(self.now, cpu);
        let drained = returned < capacity as usize;
        self.truth.returned(KernelTime(at));
        if drained {
            self.truth.drained(self.reader.entered, self.reader.entered_at);
        }
        self.now += 300;
        let events = std::mem::take(&mut self.reader.events);
        let attached = std::mem::take(&mut self.reader.attached);
        let (before, after) = (self.reader.before, self.mono());
        self.push(Input::Batch(Batch {
            seq,
            capacity,
            before,
            after,
            attached: &attached,
            events: &events,
        }));
        if !attached.is_empty() && self.consumers.is_empty() {
            self.after(50 * US, KernelEvent::Attached);
        }
        self.reader.seq += 1;
        if returned == 0 {
            self.nothing_queued();
        }
        let pause = self.pause(returned as u64);
        self.after(pause, KernelEvent::Call);
    }

    /// What the reader does between two calls: its bookkeeping, and a stall if one is due.
    fn pause(&mut self, returned: u64) -> u64 {
        let work = self.rng.around(5 * US + returned * 200);
        let stalls = self.options.stall_ms > 0
            && self.reader.seq.is_multiple_of(self.options.stall_every.max(1));
        if stalls { work + self.rng.around(self.options.stall_ms * MS) } else { work }
    }
}
