//! The simulated kqueue: EVFILT_PROC knotes, as `kern_event.c` moves them (13.2, and 10.1 for the merged regimes).

mod changes;

use std::collections::{HashMap, VecDeque};

use super::arena::{Arena, Id};
use super::truth::LifeId;
use crate::model::{Kevent, Pid, Regime, TreeId, note};

pub(super) use changes::{Change, ChangeTarget, Changed};

#[derive(Debug)]
struct Knote {
    ident: Pid,
    life: Option<LifeId>,
    /// kn_sfflags: what it waits for.
    wanted: u32,
    /// kn_fflags: what has happened since it was read last.
    fflags: u32,
    data: i64,
    flags: u32,
    queued: bool,
    /// KN_DISABLED: it is never queued; and whether something has happened meanwhile (KN_ACTIVE).
    disabled: bool,
    active: bool,
    /// knote_fork has it in flux with the list lock dropped.
    in_flux: bool,
    /// A kevent(2) call is copying it out (KN_SCAN).
    scanning: bool,
    /// Bits that knote_fork set without the list lock while it was being copied out: they vanish (PR 291005).
    racing: u32,
    /// EV_DROP: freed without a word when it is scanned.
    drop: bool,
    /// Its process ended while it was being scanned: it yields nothing any more, and is never freed.
    emptied: bool,
}

/// A process whose forker's knotes are being followed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newborn {
    pub(super) pid: Pid,
    pub(super) life: Option<LifeId>,
    pub(super) standing: ChildState,
}

/// What the registration finds under the child's pid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChildState {
    /// A living process: always so if the child runs only after knote_fork.
    Alive,
    /// It has exited or is about to; its p_xstat now.
    Exiting(u32),
    /// It has been reaped.
    Gone,
}

/// How knote_fork finds a knote of the forker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KnoteTurn {
    /// Nothing to do: freed meanwhile, or it does not track.
    Nothing,
    /// Skipped without a word: another thread's knote_fork has it in flux.
    SkippedInFlux,
    /// Skipped without a word: a kevent(2) call is reading it.
    SkippedScan,
    /// In flux now; the child is to be registered.
    Register,
}

/// What came of registering a child for one knote of the forker.
#[derive(Clone, Debug, Default)]
pub(super) struct ChildRegistration {
    /// Knotes to be put on the child's list, in this order.
    pub(super) attached: Vec<Id>,
    /// What they wait for.
    pub(super) asked: u32,
    /// There is a NOTE_CHILD.
    pub(super) child: bool,
    /// There will be a NOTE_EXIT.
    pub(super) exit: bool,
    /// The knote for NOTE_CHILD, or the only one, found no memory.
    pub(super) no_child_memory: bool,
    /// The knote for NOTE_EXIT found no memory.
    pub(super) no_track_memory: bool,
    /// The pid was reaped already (ESRCH).
    pub(super) no_process: bool,
    /// An undelivered knote of an earlier life of the pid was updated in its place.
    pub(super) reused: bool,
}

impl ChildRegistration {
    /// Why kqueue_register failed.
    pub(super) fn errno(&self) -> Option<i32> {
        const ESRCH: i32 = 3;
        const ENOMEM: i32 = 12;
        self.has_failed().then_some(if self.no_process { ESRCH } else { ENOMEM })
    }

    /// Whether a knote could not be made: the forker's is marked with NOTE_TRACKERR.
    pub(super) fn has_failed(&self) -> bool {
        self.no_child_memory || self.no_track_memory || self.no_process
    }
}

/// A knote that has been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) life: Option<LifeId>,
    pub(super) event: Option<Kevent>,
    /// The knote was freed, or disabled (EV_DISPATCH).
    pub(super) used_up: bool,
    /// A NOTE_TRACKERR vanished in the copying.
    pub(super) trackerr_lost: bool,
}

/// What the knotes of a child take over from a knote of its forker.
#[derive(Clone, Copy)]
struct Inherited {
    wanted: u32,
    flags: u32,
    ppid: i64,
}

/// The notes of a process that ends: those that are lost with a knote, and those that are reported.
#[derive(Clone, Copy, Default)]
pub(super) struct ExitNotes {
    pub(super) lost: u32,
    pub(super) kept: u32,
}

/// What is at the head of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// A knote in flux: the reader waits for it.
    Blocked,
    /// A knote that was freed, or disabled: nothing.
    Freed,
    /// A knote, dequeued and being copied from now on.
    Scan(Id),
}

/// A kqueue: of the exporter's reader, or of a consumer.
pub(super) struct Kqueue {
    /// Whose it is: 0 is the exporter's own reader, the others are consumers.
    pub(super) tracker: usize,
    regime: Regime,
    max_knotes: usize,
    knotes: Arena<Knote>,
    /// The (ident, filter) lookup: the knotes of each pid, the newest last. Merged regimes register through it.
    by_pid: HashMap<Pid, Vec<Id>>,
    active: VecDeque<Id>,
    /// How many kevent(2) calls are between their marker and the last knote before that.
    pub(super) scans: u32,
}

impl Kqueue {
    pub(super) fn new(tracker: usize, regime: Regime, max_knotes: usize) -> Kqueue {
        Kqueue {
            tracker,
            regime,
            max_knotes,
            knotes: Arena::default(),
            by_pid: HashMap::new(),
            active: VecDeque::new(),
            scans: 0,
        }
    }

    /// EV_ADD|EV_CLEAR by the reader.
    pub(super) fn attach(&mut self, pid: Pid, life: Option<LifeId>, notes: u32) -> Id {
        self.insert(pid, life, notes, note::EV_CLEAR)
    }

    fn insert(&mut self, ident: Pid, life: Option<LifeId>, wanted: u32, flags: u32) -> Id {
        let knote = Knote {
            ident,
            life,
            wanted,
            fflags: 0,
            data: 0,
            flags,
            queued: false,
            disabled: false,
            active: false,
            in_flux: false,
            scanning: false,
            racing: 0,
            drop: false,
            emptied: false,
        };
        let id = self.knotes.insert(knote);
        self.by_pid.entry(ident).or_default().push(id);
        id
    }

    /// Makes a knote that reports NOTE_CHILD.
    fn insert_child(&mut self, child: Newborn, from: Inherited, wanted: u32, flags: u32) -> Id {
        let id = self.insert(child.pid, child.life, wanted, flags);
        if let Some(knote) = self.knotes.get_mut(id) {
            (knote.fflags, knote.data) = (note::CHILD, from.ppid);
        }
        self.activate(id);
        id
    }

    pub(super) fn len(&self) -> usize {
        self.knotes.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.active.len()
    }

    fn activate(&mut self, id: Id) {
        let Some(knote) = self.knotes.get_mut(id) else { return };
        knote.active = true;
        if !knote.queued && !knote.disabled {
            knote.queued = true;
            self.active.push_back(id);
        }
    }

    fn free(&mut self, id: Id) {
        let Some(knote) = self.knotes.remove(id) else { return };
        if let Some(knotes) = self.by_pid.get_mut(&knote.ident) {
            knotes.retain(|other| *other != id);
        }
    }

    /// The knote that the lookup finds: the newest.
    fn find(&self, pid: Pid) -> Option<Id> {
        self.by_pid.get(&pid)?.last().copied()
    }

    /// knote_fork comes to this knote of the forker.
    pub(super) fn begin_fork(&mut self, id: Id) -> KnoteTurn {
        let merged = self.regime != Regime::Split;
        let Some(knote) = self.knotes.get_mut(id) else { return KnoteTurn::Nothing };
        if knote.in_flux {
            KnoteTurn::SkippedInFlux
        } else if knote.scanning && merged {
            KnoteTurn::SkippedScan
        } else if knote.wanted & note::TRACK == 0 {
            KnoteTurn::Nothing
        } else {
            knote.in_flux = true;
            KnoteTurn::Register
        }
    }

    /// Registers the child for knote `parent` of its forker; `memory` says whether an allocation succeeds.
    pub(super) fn register(
        &mut self,
        parent: Id,
        child: Newborn,
        mut memory: impl FnMut() -> bool,
    ) -> ChildRegistration {
        let Some(knote) = self.knotes.get(parent) else { return ChildRegistration::default() };
        let (wanted, flags, ppid) = (knote.wanted, knote.flags, i64::from(knote.ident.get()));
        let from = Inherited { wanted, flags, ppid };
        let max = self.max_knotes;
        let mut allocate = |kqueue: &Kqueue| kqueue.len() < max && memory();
        let done = match self.regime {
            Regime::Split => self.register_two(child, from, &mut allocate),
            _ => self.register_one(child, from, &mut allocate),
        };
        if done.has_failed() {
            self.set_on_forker(parent, note::TRACKERR);
        }
        ChildRegistration { asked: wanted, ..done }
    }

    /// 13.2 `kern_event.c:581-602`: a oneshot knote for NOTE_CHILD, then one for everything else. The first keeps
    /// NOTE_TRACK and sits on the child's list until it is read: hence the duplicates.
    fn register_two(
        &mut self,
        child: Newborn,
        from: Inherited,
        allocate: &mut impl FnMut(&Kqueue) -> bool,
    ) -> ChildRegistration {
        let Inherited { wanted, flags, .. } = from;
        let mut done = ChildRegistration::default();
        if allocate(self) {
            let only_track = wanted & !(note::EXIT | note::EXEC | note::FORK);
            let id = self.insert_child(child, from, only_track, flags | note::EV_ONESHOT);
            done.attached.push(id);
            done.child = true;
        } else {
            done.no_child_memory = true;
        }
        if allocate(self) {
            let id = self.insert(child.pid, child.life, wanted, flags);
            done.attached.push(id);
            done.exit = wanted & note::EXIT != 0;
        } else {
            done.no_track_memory = true;
        }
        done
    }

    /// 10.1 `kern_event.c:497-510` with its lookup (`:1060`) and the immediate exit at attach (`:348-377`).
    fn register_one(
        &mut self,
        child: Newborn,
        from: Inherited,
        allocate: &mut impl FnMut(&Kqueue) -> bool,
    ) -> ChildRegistration {
        let Inherited { wanted, flags, .. } = from;
        let mut done = ChildRegistration::default();
        if let Some(old) = self.find(child.pid).and_then(|id| self.knotes.get_mut(id)) {
            old.wanted = wanted;
            done.reused = true;
        } else if !allocate(self) {
            done.no_child_memory = true;
        } else if child.standing == ChildState::Gone {
            done.no_process = true;
        } else {
            let id = self.insert_child(child, from, wanted, flags);
            match child.standing {
                ChildState::Exiting(xstat) => self.exit_one(id, xstat),
                ChildState::Alive | ChildState::Gone => done.attached.push(id),
            }
            (done.child, done.exit) = (true, wanted & note::EXIT != 0);
        }
        done
    }

    /// knote_fork is done with this knote of the forker.
    pub(super) fn end_fork(&mut self, id: Id) {
        self.set_on_forker(id, note::FORK);
        if let Some(knote) = self.knotes.get_mut(id) {
            knote.in_flux = false;
        }
    }

    fn set_on_forker(&mut self, id: Id, bit: u32) {
        let Some(knote) = self.knotes.get_mut(id) else { return };
        if bit == note::TRACKERR || knote.wanted & bit != 0 {
            if knote.scanning {
                knote.racing |= bit & !knote.fflags;
            }
            knote.fflags |= bit;
        }
        if knote.fflags != 0 {
            self.activate(id);
        }
    }

    /// KNOTE(NOTE_EXEC) comes to this knote of the process.
    pub(super) fn exec(&mut self, id: Id) {
        let Some(knote) = self.knotes.get_mut(id) else { return };
        knote.fflags |= knote.wanted & note::EXEC;
        if knote.fflags != 0 {
            self.activate(id);
        }
    }

    /// KNOTE(NOTE_EXIT) comes to this knote, and takes it off the list of the process.
    ///
    /// A knote loses all its notes if kevent(2) has taken it off the queue because of another note, and waits for the
    /// lock that the dying process holds: filt_proc then finds no process and reports nothing (13.2 `kern_event.c:519-547`,
    /// `2234-2250`). A knote with EV_ONESHOT is copied without that lock. `scanned` says whether it happens to a knote.
    pub(super) fn exit(
        &mut self,
        id: Id,
        status: u32,
        mut scanned: impl FnMut() -> bool,
    ) -> ExitNotes {
        let Some(knote) = self.knotes.get_mut(id) else { return ExitNotes::default() };
        let pending = knote.queued || knote.scanning;
        let notes = knote.fflags | knote.wanted & note::EXIT;
        if pending && knote.fflags != 0 && knote.flags & note::EV_ONESHOT == 0 && scanned() {
            knote.emptied = true;
            return ExitNotes { lost: notes, kept: 0 };
        }
        self.exit_one(id, status);
        ExitNotes { lost: 0, kept: notes }
    }

    fn exit_one(&mut self, id: Id, status: u32) {
        let status_wins = self.regime != Regime::MergedPpid;
        let Some(knote) = self.knotes.get_mut(id) else { return };
        knote.fflags |= knote.wanted & note::EXIT;
        if knote.fflags & note::EXIT != 0 && status_wins {
            knote.data = i64::from(status);
        }
        knote.flags |= note::EV_EOF | note::EV_ONESHOT;
        knote.drop = knote.fflags == 0;
        self.activate(id);
    }

    /// Takes the head of the queue for reading.
    pub(super) fn head(&mut self) -> Option<Head> {
        let id = *self.active.front()?;
        let Some(knote) = self.knotes.get_mut(id) else {
            self.active.pop_front();
            return Some(Head::Freed);
        };
        if knote.in_flux || knote.scanning {
            return Some(Head::Blocked);
        }
        self.active.pop_front();
        knote.queued = false;
        if knote.disabled {
            return Some(Head::Freed);
        }
        (knote.scanning, knote.active) = (true, false);
        Some(Head::Scan(id))
    }

    /// The copy of the knote is made: what the reader gets.
    pub(super) fn read(&mut self, id: Id) -> Option<Read> {
        let knote = self.knotes.get_mut(id)?;
        let fflags = if knote.emptied { 0 } else { knote.fflags & !knote.racing };
        let event = (fflags != 0).then_some(Kevent {
            ident: u64::from(knote.ident.get()),
            flags: knote.flags,
            fflags,
            data: knote.data,
            udata: TreeId(0).cookie(),
        });
        let trackerr_lost = knote.racing & note::TRACKERR != 0;
        let life = knote.life;
        let freed = knote.drop || (event.is_some() && knote.flags & note::EV_ONESHOT != 0);
        let used_up = freed || (event.is_some() && knote.flags & note::EV_DISPATCH != 0);
        if freed {
            self.free(id);
        } else {
            (knote.fflags, knote.data, knote.racing, knote.scanning) = (0, 0, 0, false);
            knote.disabled |= used_up;
        }
        Some(Read { life, event, used_up, trackerr_lost })
    }
}
