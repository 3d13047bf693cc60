//! knote_fork on a simulated kqueue: how it finds a knote of the forker, and what it registers for the child.

use super::{Id, Kqueue};
use crate::model::{Pid, Regime, note};
use crate::sim::truth::LifeId;

/// A process whose forker's knotes are being followed.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Newborn {
    pub(in crate::sim) pid: Pid,
    pub(in crate::sim) life: Option<LifeId>,
    pub(in crate::sim) standing: ChildState,
}

/// What the registration finds under the child's pid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum ChildState {
    /// A living process: always so if the child runs only after knote_fork.
    Alive,
    /// It has exited or is about to; its p_xstat now.
    Exiting(u32),
    /// It has been reaped.
    Gone,
}

/// How knote_fork finds a knote of the forker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum KnoteTurn {
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
pub(in crate::sim) struct ChildRegistration {
    /// Knotes to be put on the child's list, in this order.
    pub(in crate::sim) attached: Vec<Id>,
    /// What they wait for.
    pub(in crate::sim) asked: u32,
    /// There is a NOTE_CHILD.
    pub(in crate::sim) child: bool,
    /// There will be a NOTE_EXIT.
    pub(in crate::sim) exit: bool,
    /// The knote for NOTE_CHILD, or the only one, found no memory.
    pub(in crate::sim) no_child_memory: bool,
    /// The knote for NOTE_EXIT found no memory.
    pub(in crate::sim) no_track_memory: bool,
    /// The pid was reaped already (ESRCH).
    pub(in crate::sim) no_process: bool,
    /// An undelivered knote of an earlier life of the pid was updated in its place.
    pub(in crate::sim) reused: bool,
}

impl ChildRegistration {
    /// Why kqueue_register failed.
    pub(in crate::sim) fn errno(&self) -> Option<i32> {
        const ESRCH: i32 = 3;
        const ENOMEM: i32 = 12;
        self.has_failed().then_some(if self.no_process { ESRCH } else { ENOMEM })
    }

    /// Whether a knote could not be made: the forker's is marked with NOTE_TRACKERR.
    pub(in crate::sim) fn has_failed(&self) -> bool {
        self.no_child_memory || self.no_track_memory || self.no_process
    }
}

/// What the knotes of a child take over from a knote of its forker.
#[derive(Clone, Copy)]
struct Inherited {
    wanted: u32,
    flags: u32,
    ppid: i64,
}

impl Kqueue {
    /// knote_fork comes to this knote of the forker.
    pub(in crate::sim) fn begin_fork(&mut self, id: Id) -> KnoteTurn {
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
    pub(in crate::sim) fn register(
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
    pub(in crate::sim) fn end_fork(&mut self, id: Id) {
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

    /// Makes a knote that reports NOTE_CHILD.
    fn insert_child(&mut self, child: Newborn, from: Inherited, wanted: u32, flags: u32) -> Id {
        let id = self.insert(child.pid, child.life, wanted, flags);
        if let Some(knote) = self.knotes.get_mut(id) {
            (knote.fflags, knote.data) = (note::CHILD, from.ppid);
        }
        self.activate(id);
        id
    }
}
