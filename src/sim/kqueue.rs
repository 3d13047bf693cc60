//! The simulated kqueue: EVFILT_PROC knotes, as `kern_event.c` moves them (13.2, and 10.1 for the merged regimes).

mod changes;
mod knote_fork;

use std::collections::{HashMap, VecDeque};

use super::arena::{Arena, Id};
use super::truth::LifeId;
use crate::model::{Kevent, Pid, Regime, TreeId, note};

pub(super) use changes::{Change, ChangeTarget, Changed};
pub(super) use knote_fork::{ChildRegistration, ChildState, KnoteTurn, Newborn};

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
