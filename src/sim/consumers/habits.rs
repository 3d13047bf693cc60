//! How a consumer uses its kqueues: what it asks for, how it reads, and what else it does with them.

use super::{Consumer, OpenKqueue};
use crate::model::{Pid, note};
use crate::sim::kernel::{CONSUMED, MS, SECOND};
use crate::sim::kqueue::Change;
use crate::sim::rng::Rng;

/// What a consumer keeps doing.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    /// It registers the root of the tree, to be followed; otherwise processes that it comes to know, each by itself.
    pub(super) follows: bool,
    /// What each of its kqueues asks for.
    pub(super) notes: Vec<u32>,
    /// EV_* bits of its registrations, besides EV_ADD.
    pub(super) flags: u32,
    /// How many threads read each kqueue.
    pub(super) threads: u32,
    /// How many events a call has room for.
    pub(super) room: usize,
    /// How long a call waits: `None` for ever.
    pub(super) timeout: Option<u64>,
    /// What lies between two of its calls, in nanoseconds.
    pub(super) pause: u64,
    /// The chance that a call registers something for no good reason: deletes, disables, enables or asks anew.
    pub(super) meddles: f64,
    /// The chance that an event of another filter comes between.
    pub(super) others: f64,
    /// It registers and reads in different calls.
    pub(super) apart: bool,
    /// When it begins, since the start of the run.
    pub(super) begins: u64,
    /// When it closes a kqueue and opens another, which gets the same descriptor.
    pub(super) closes: Option<u64>,
    /// When it ends, and how long it is gone before another process takes its place.
    pub(super) ends: Option<u64>,
    pub(super) returns: Option<u64>,
}

impl Habits {
    pub(super) fn new(rng: &mut Rng) -> Habits {
        let rng = std::cell::RefCell::new(rng);
        let below = |n: u64| rng.borrow_mut().below(n);
        let one_in = |n: u64| below(n) == 0;
        let follows = !one_in(3);
        let usual = note::TRACK | note::EXIT;
        let asks = || match (follows, below(8)) {
            (true, 0) => usual | note::FORK,
            (true, 1) => usual | note::EXEC,
            (true, 2) => usual | note::FORK | note::EXEC,
            (true, 3) => note::TRACK,
            (true, _) => usual,
            (false, 0) => note::EXEC,
            (false, 1) => note::EXIT | note::EXEC | note::FORK,
            (false, _) => note::EXIT,
        };
        let two = one_in(4);
        let timeout = [Some(100 * MS), Some(100 * MS), Some(0), None][below(4) as usize];
        let pause = [MS / 100, MS / 100, 5 * MS, 40 * MS, 400 * MS, 2 * SECOND][below(6) as usize];
        Habits {
            follows,
            notes: if two { vec![asks(), asks()] } else { vec![asks()] },
            flags: [0, note::EV_CLEAR, note::EV_RECEIPT, note::EV_ONESHOT, note::EV_DISPATCH]
                [below(14).saturating_sub(9) as usize],
            threads: if one_in(4) { 2 } else { 1 },
            room: [1, 3, 8, 16, 64, 256][below(6) as usize],
            timeout,
            // One that does not wait inside its calls does so between them.
            pause: if timeout == Some(0) { pause.max(5 * MS) } else { pause },
            meddles: if one_in(4) { 0.1 } else { 0.0 },
            others: if one_in(3) { 0.2 } else { 0.0 },
            apart: one_in(2),
            begins: match below(8) {
                0 => 10 * MS,
                1 => CONSUMED + below(20) * MS,
                _ => CONSUMED - MS - below(300) * MS,
            },
            closes: one_in(6).then(|| CONSUMED + below(300 * MS)),
            ends: one_in(5).then(|| CONSUMED + below(700 * MS)),
            returns: one_in(2).then(|| 100 * MS + below(SECOND)),
        }
    }
}

impl Consumer {
    /// What a thread registers with the next call on the kqueue at this place. `reported` had events in the call before.
    pub(super) fn changes(&mut self, place: usize, reported: &[Pid]) -> Vec<Change> {
        let Consumer { habits, rng, kqueues, .. } = self;
        let Some(OpenKqueue { known, registered, .. }) = kqueues.get_mut(place) else {
            return vec![];
        };
        let notes = habits.notes[place];
        let mut changes = vec![];
        for pid in known.drain(..) {
            changes.push(Change { pid, flags: note::EV_ADD | habits.flags, notes });
            registered.push(pid);
        }
        if habits.flags & note::EV_DISPATCH != 0 {
            let enable = |pid: &Pid| Change { pid: *pid, flags: note::EV_ENABLE, notes };
            changes.extend(reported.iter().map(enable));
        }
        if !registered.is_empty() && rng.chance(habits.meddles) {
            let place = rng.below(registered.len() as u64) as usize;
            changes.extend(meddle(rng, registered, place, notes));
        }
        changes
    }
}

/// A change for no good reason.
fn meddle(rng: &mut Rng, registered: &mut Vec<Pid>, place: usize, notes: u32) -> Vec<Change> {
    let pid = registered[place];
    let change = |flags, notes| Change { pid, flags, notes };
    let forgets = if rng.below(3) == 0 { 0 } else { notes };
    match rng.below(6) {
        0 => {
            registered.swap_remove(place);
            vec![change(note::EV_DELETE, 0)]
        }
        1 => vec![change(note::EV_DELETE, 0), change(note::EV_ADD, notes)],
        2 => vec![change(note::EV_DISABLE, forgets)],
        3 => vec![change(note::EV_ENABLE, forgets)],
        4 => vec![change(note::EV_ADD, note::EXIT)],
        _ => vec![change(note::EV_ADD, notes)],
    }
}
