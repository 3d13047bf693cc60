//! The incarnations that are alive or not yet settled: a slab, and a chain for each pid from the newest to the oldest.

use std::collections::VecDeque;

use super::finding::{Delivered, DtraceSaid, KqueueSaid};
use super::latest::keep_latest;
use super::ledger::UNORDERED_NS;
use crate::model::{KernelTime, Kevent, Pid, TreeId, Verdict, WaitStatus, note};

/// How far the time stamps of one moment lie apart in practice.
const CLOSE_NS: u64 = 20_000;
/// How long a forker may be held up between knote_fork and its probe.
const HELD_UP_NS: u64 = 10_000_000;
/// How long it needs from the one to the other otherwise.
const PROBE_NS: u64 = 200_000;

/// Names a slot for as long as the same incarnation lives in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle {
    slot: u32,
    generation: u32,
}

/// A kevent about an incarnation, and the batch that delivered it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) flags: u32,
    pub(crate) fflags: u32,
    pub(crate) data: i64,
    pub(crate) batch: u64,
    pub(crate) at: KernelTime,
    /// The queue had been drained at this time, before the note was in it.
    pub(crate) not_before: KernelTime,
}

impl Said {
    /// NOTE_CHILD and NOTE_EXIT in one kevent.
    pub(crate) fn is_collision(&self) -> bool {
        self.fflags & (note::CHILD | note::EXIT) == note::CHILD | note::EXIT
    }
}

/// A batch with NOTE_TRACKERR. Batches are counted from 1.
#[derive(Clone, Copy, Debug)]
struct Report {
    batch: u64,
    at: KernelTime,
    /// The drain before it that did not bring the note.
    not_before: KernelTime,
    /// The last batch up to this one whose mark is missing: it may have drained the queue, nobody knows when.
    unmarked: u64,
}

/// What NOTE_TRACKERR on the forker's knote says of a birth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Reported {
    /// Nothing.
    #[default]
    No,
    /// The note in this batch speaks of it.
    By(u64),
    /// A note may speak of it, but marks are missing.
    Unclear,
}

/// The latest NOTE_TRACKERR about one process. Hardly any process has one: the others take no room for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Option<Box<Latest>>);

#[derive(Clone, Debug, Default)]
struct Latest {
    latest: VecDeque<Report>,
    /// The last batch that has explained a loss.
    explained: u64,
}

impl Reports {
    pub(crate) fn add(&mut self, batch: u64, said: &Said, unmarked: u64) {
        self.0.get_or_insert_default().add(batch, said, unmarked);
    }

    /// What they say of the birth of `child`.
    pub(crate) fn about(&self, child: &Incarnation) -> Reported {
        self.0.as_ref().map_or(Reported::No, |latest| latest.about(child))
    }

    /// This has explained a loss.
    pub(crate) fn explain(&mut self, reported: Reported) {
        if let (Some(latest), Reported::By(batch)) = (&mut self.0, reported) {
            latest.explained = latest.explained.max(batch);
        }
    }
}

impl Latest {
    /// More than a reader gets between the fork and the drain that settles it, unless marks are missing.
    const KEPT: usize = 64;

    fn add(&mut self, batch: u64, said: &Said, unmarked: u64) {
        if self.latest.back().is_some_and(|last| last.batch == batch) {
            return;
        }
        let (at, not_before) = (said.at, said.not_before);
        keep_latest(&mut self.latest, Self::KEPT, Report { batch, at, not_before, unmarked });
    }

    fn about(&self, child: &Incarnation) -> Reported {
        match child.child {
            Some(said) => self.about_announced(child, &said),
            None => self.about_missed(child),
        }
    }

    /// The knote for its exit may have failed right after the one that announced it was queued: the note came after the
    /// create, or since NOTE_CHILD; or with the call before that, where the forker's knote was just being read.
    fn about_announced(&self, child: &Incarnation, said: &Said) -> Reported {
        let first = child.announced_by.min(child.created_after + 1);
        // With many copies of the forker's knotes the failure may be long after the first NOTE_CHILD.
        let last = child.created.unwrap_or_default().max(said.at);
        let since = |report: &&Report| report.batch >= first && report.not_before <= last;
        let just_before = |report: &&Report| report.batch + 1 == first;
        let report = self.latest.iter().find(since);
        match report.or_else(|| self.latest.iter().find(just_before)) {
            None => Reported::No,
            Some(report) if report.unmarked >= first => Reported::Unclear,
            Some(report) => Reported::By(report.batch),
        }
    }

    /// A note speaks of it that came after the create; or before it, because the forker was held up between knote_fork
    /// and the probe, but after the forker's previous fork, if it has explained no other loss. One bit may hide many
    /// failures, and several threads may fork at once: an older note, or one that has explained a loss, may mean this one.
    fn about_missed(&self, child: &Incarnation) -> Reported {
        let created = child.created.unwrap_or_default();
        let before = |report: &&Report| report.batch <= child.created_after;
        let held_up = |report: &&Report| {
            before(report) && report.batch > child.reported_after && report.batch > self.explained
        };
        let later =
            |report: &&Report| !before(report) && report.not_before <= created.plus(CLOSE_NS);
        let perhaps = |report: &&Report| {
            let may_lag = if report.batch > self.explained { HELD_UP_NS } else { PROBE_NS };
            before(report)
                && (report.batch > child.reported_after || created.since(report.at) <= may_lag)
        };
        let report = self.latest.iter().find(held_up).or_else(|| self.latest.iter().find(later));
        match report {
            Some(report) if report.unmarked > child.created_after.min(report.batch - 1) => {
                Reported::Unclear
            }
            // A drain that began about when it was created did not bring the note.
            Some(report) if report.not_before > created => Reported::Unclear,
            Some(report) => Reported::By(report.batch),
            None if self.latest.iter().any(|r| perhaps(&r)) => Reported::Unclear,
            None => Reported::No,
        }
    }
}

/// The kevent(2) call that registered a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) entered: KernelTime,
    pub(crate) returned: KernelTime,
    /// The fflags that it asked for.
    pub(crate) notes: u32,
}

/// One life of a pid. Most lie untouched until they are settled and forgotten: what that needs is in the first of four
/// cache lines, so that the others stay where they are.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Incarnation {
    pub(crate) pid: Pid,
    /// The tree that it belongs to, once that is known. Most processes belong to none.
    pub(crate) tree: Option<TreeId>,
    /// The verdicts, once they fell.
    pub(crate) birth: Option<Verdict>,
    pub(crate) death: Option<Verdict>,
    /// A witness reported the fact, so it is owed a verdict.
    pub(crate) birth_owed: bool,
    pub(crate) death_owed: bool,
    /// Its tree's gauges count it: as a process that kqueue believes alive, as one that is lost and alive.
    pub(crate) in_tracked: bool,
    pub(crate) in_lost_alive: bool,
    /// The queue was drained after its creation: a further NOTE_CHILD announces another incarnation.
    pub(crate) closed: bool,
    /// How many queues still name it.
    pub(crate) pins: u32,
    generation: u32,
    older: u32,
    /// The forker's incarnation, if it was known when this one was created; pinned until the birth is settled.
    pub(crate) forker_handle: Option<Handle>,
    /// The latest time at which this pid was certainly still this incarnation.
    pub(crate) proven: KernelTime,
    /// Registered by us, not by the kernel: its birth is no fact of ours. So few are that the others take no room for it.
    pub(crate) attached: Option<Box<Registration>>,
    /// NOTE_TRACKERR about this process.
    pub(crate) trackerr: Reports,
    /// DTrace's words.
    pub(crate) created: Option<KernelTime>,
    pub(crate) exited: Option<KernelTime>,
    pub(crate) forker: Option<Pid>,
    pub(crate) status: Option<WaitStatus>,
    /// How many batches had been placed when it was created.
    pub(crate) created_after: u64,
    /// The number of the batch with its first NOTE_CHILD.
    pub(crate) announced_by: u64,
    /// kqueue's words.
    pub(crate) child: Option<Said>,
    /// Whether its forker's knote carried NOTE_TRACKERR when it was to be announced.
    pub(crate) reported: Reported,
    pub(crate) exit: Option<Said>,
    /// How many had been placed when its forker forked before.
    pub(crate) reported_after: u64,
    /// How many batches had been placed when its own latest child was created.
    pub(crate) forked_after: u64,
}

impl Incarnation {
    /// Whether kqueue ever said anything of it, or was asked to watch it.
    pub(crate) fn known_to_kqueue(&self) -> bool {
        self.child.is_some() || self.exit.is_some() || self.attached.is_some()
    }

    /// Whether kqueue's consumer has it among its processes.
    pub(crate) fn tracked(&self) -> bool {
        self.child.is_some() || self.attached.is_some()
    }

    /// Whether DTrace's words allow that it ran at this time.
    pub(crate) fn may_run_at(&self, at: KernelTime) -> bool {
        self.exited.is_none_or(|exited| exited.plus(UNORDERED_NS) > at)
    }

    pub(crate) fn dtrace_said(&self) -> DtraceSaid {
        DtraceSaid {
            created: self.created,
            forker: self.forker,
            exited: self.exited,
            status: self.status,
        }
    }

    pub(crate) fn kqueue_said(&self) -> KqueueSaid {
        let delivered = |said: Said| Delivered {
            event: Kevent {
                ident: self.pid.get().into(),
                flags: said.flags,
                fflags: said.fflags,
                data: said.data,
                udata: self.tree.map_or(0, TreeId::cookie),
            },
            batch: said.batch,
            at: said.at,
        };
        KqueueSaid {
            child: self.child.map(delivered),
            exit: self.exit.map(delivered),
            trackerr: matches!(self.reported, Reported::By(_)),
        }
    }
}

const _: () = assert!(size_of::<Incarnation>() == 4 * 64);

const NONE: u32 = u32::MAX;

pub(crate) struct Table {
    slots: Vec<Incarnation>,
    free: Vec<u32>,
    /// The newest incarnation of each pid.
    newest: Vec<u32>,
}

impl Table {
    pub(crate) fn new() -> Table {
        Table { slots: Vec::new(), free: Vec::new(), newest: vec![NONE; Pid::MAX as usize + 1] }
    }

    /// How many incarnations there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Begins a new incarnation of `pid`, proven since `at`.
    pub(crate) fn begin(&mut self, pid: Pid, at: KernelTime) -> usize {
        let older = std::mem::replace(&mut self.newest[pid.get() as usize], NONE);
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(slot as usize).map_or(0, |old| old.generation + 1);
        let new = Incarnation {
            pid,
            tree: None,
            created: None,
            exited: None,
            forker: None,
            status: None,
            child: None,
            exit: None,
            attached: None,
            birth: None,
            death: None,
            birth_owed: false,
            death_owed: false,
            in_tracked: false,
            in_lost_alive: false,
            closed: false,
            reported: Reported::No,
            forker_handle: None,
            created_after: 0,
            announced_by: 0,
            proven: at,
            trackerr: Reports::default(),
            reported_after: 0,
            forked_after: 0,
            pins: 0,
            generation,
            older,
        };
        match self.slots.get_mut(slot as usize) {
            Some(old) => *old = new,
            None => self.slots.push(new),
        }
        self.newest[pid.get() as usize] = slot;
        slot as usize
    }

    /// Forgets an incarnation.
    pub(crate) fn end(&mut self, slot: usize) {
        let (pid, older) = (self.slots[slot].pid.get() as usize, self.slots[slot].older);
        if self.newest[pid] == slot as u32 {
            self.newest[pid] = older;
        } else {
            let mut at = self.newest[pid] as usize;
            while self.slots[at].older != slot as u32 {
                at = self.slots[at].older as usize;
            }
            self.slots[at].older = older;
        }
        self.slots[slot].generation += 1;
        self.free.push(slot as u32);
    }

    /// The newest incarnation of `pid`.
    #[inline]
    pub(crate) fn newest(&self, pid: Pid) -> Option<usize> {
        let newest = self.newest[pid.get() as usize];
        (newest != NONE).then_some(newest as usize)
    }

    /// The incarnations of `pid`, newest first.
    pub(crate) fn chain(&self, pid: Pid) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.newest(pid), |slot| {
            let older = self.slots[*slot].older;
            (older != NONE).then_some(older as usize)
        })
    }

    /// The newest incarnation of `pid` that satisfies `condition`.
    pub(crate) fn latest(
        &self,
        pid: Pid,
        condition: impl Fn(&Incarnation) -> bool,
    ) -> Option<usize> {
        self.chain(pid).find(|slot| condition(&self.slots[*slot]))
    }

    /// A name for the incarnation in `slot` that outlives it.
    pub(crate) fn handle(&self, slot: usize) -> Handle {
        Handle { slot: slot as u32, generation: self.slots[slot].generation }
    }

    /// The slot that this handle names, if that incarnation is still there.
    pub(crate) fn find(&self, handle: Handle) -> Option<usize> {
        let slot = handle.slot as usize;
        (self.slots[slot].generation == handle.generation).then_some(slot)
    }
}

impl std::ops::Index<usize> for Table {
    type Output = Incarnation;
    fn index(&self, slot: usize) -> &Incarnation {
        &self.slots[slot]
    }
}

impl std::ops::IndexMut<usize> for Table {
    fn index_mut(&mut self, slot: usize) -> &mut Incarnation {
        &mut self.slots[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_has_a_chain_of_lives_and_a_handle_outlives_its_own() {
        let mut table = Table::new();
        let pid = Pid::new(7).expect("a pid");
        let (a, b) = (table.begin(pid, KernelTime(1)), table.begin(pid, KernelTime(2)));
        let (ha, hb) = (table.handle(a), table.handle(b));
        assert_eq!(table.chain(pid).collect::<Vec<_>>(), [b, a]);
        table.end(a);
        assert_eq!((table.find(ha), table.find(hb)), (None, Some(b)));
        assert_eq!(table.chain(pid).collect::<Vec<_>>(), [b]);
        let c = table.begin(pid, KernelTime(3));
        assert_eq!((c, table.find(ha)), (a, None));
        assert_eq!(table.len(), 2);
    }
}
