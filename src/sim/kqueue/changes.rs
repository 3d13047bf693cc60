//! Changes to a simulated kqueue by its user: kqueue_register for each entry of a changelist (13.2 `kern_event.c:1480-1690`;
//! 10.1 has the same for EVFILT_PROC), and close(2).

use super::{ChildState, Id, Kqueue};
use crate::model::{Pid, note};
use crate::sim::truth::LifeId;

const ENOENT: i32 = 2;
const ESRCH: i32 = 3;

/// An entry of a changelist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) struct Change {
    pub(in crate::sim) pid: Pid,
    pub(in crate::sim) flags: u32,
    pub(in crate::sim) notes: u32,
}

/// The process that has this pid now.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct ChangeTarget {
    pub(in crate::sim) life: Option<LifeId>,
    pub(in crate::sim) standing: ChildState,
    pub(in crate::sim) zombie: bool,
}

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Changed {
    /// The knote is in flux: the caller waits for it.
    Blocked,
    /// With this errno.
    Refused(i32),
    /// Done; a knote to be put on the list of the process, if there is a new one.
    Done(Option<Id>),
}

impl Kqueue {
    /// Makes a change. `target` is the process with its pid, if there is one.
    pub(in crate::sim) fn change(
        &mut self,
        change: &Change,
        target: Option<ChangeTarget>,
    ) -> Changed {
        let Some(id) = self.find(change.pid) else {
            return match (change.flags & note::EV_ADD, target) {
                (0, _) => Changed::Refused(ENOENT),
                (_, None) => Changed::Refused(ESRCH),
                (_, Some(target)) => self.add(change, target),
            };
        };
        let Some(knote) = self.knotes.get_mut(id) else { return Changed::Refused(ENOENT) };
        if knote.in_flux || knote.scanning {
            return Changed::Blocked;
        }
        if change.flags & note::EV_DELETE != 0 {
            self.free(id);
            return Changed::Done(None);
        }
        if change.flags & note::EV_ENABLE != 0 {
            knote.disabled = false;
        } else if change.flags & note::EV_DISABLE != 0 {
            knote.disabled = true;
        }
        // In any change: what it does not ask for again is not asked for any more.
        knote.wanted = change.notes;
        if knote.active || (knote.fflags != 0 && !knote.disabled) {
            self.activate(id);
        }
        Changed::Done(None)
    }

    /// filt_procattach: a zombie is found only if its NOTE_EXIT is asked for, and reports it at once.
    fn add(&mut self, change: &Change, target: ChangeTarget) -> Changed {
        const KEPT: u32 = note::EV_ONESHOT | note::EV_DISPATCH | note::EV_RECEIPT;
        if target.standing == ChildState::Gone || target.zombie && change.notes & note::EXIT == 0 {
            return Changed::Refused(ESRCH);
        }
        let flags = change.flags & KEPT | note::EV_CLEAR;
        let id = self.insert(change.pid, target.life, change.notes, flags);
        if change.flags & note::EV_DISABLE != 0
            && let Some(knote) = self.knotes.get_mut(id)
        {
            knote.disabled = true;
        }
        if let ChildState::Exiting(xstat) = target.standing {
            self.exit_one(id, xstat);
            return Changed::Done(None);
        }
        Changed::Done(Some(id))
    }

    /// What this knote reports.
    pub(in crate::sim) fn asked(&self, id: Id) -> u32 {
        self.knotes.get(id).filter(|knote| !knote.disabled).map_or(0, |knote| knote.wanted)
    }

    /// Whose knotes there are, and what each reports.
    pub(in crate::sim) fn watched(&self) -> impl Iterator<Item = (LifeId, u32)> + '_ {
        let knotes =
            self.knotes.ids().into_iter().filter_map(|id| Some((id, self.knotes.get(id)?)));
        knotes.filter_map(|(id, knote)| Some((knote.life?, self.asked(id))))
    }

    /// close(2): all knotes are freed.
    pub(in crate::sim) fn close(&mut self) {
        for id in self.knotes.ids() {
            self.free(id);
        }
        self.active.clear();
    }
}
