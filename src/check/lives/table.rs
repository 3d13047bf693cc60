//! The lives in memory: a slab, and a chain for each pid from the newest life to the oldest. A life stays as long as a wait
//! or a child names it.

use super::life::Life;
use crate::model::{KernelTime, Pid};

/// Names a life, and outlives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle {
    slot: u32,
    generation: u32,
}

const NONE: u32 = u32::MAX;

/// A place for one life.
struct Slot {
    life: Life,
    /// How many waits and children still name it.
    pins: u32,
    generation: u32,
    older: u32,
}

pub(crate) struct LifeTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The newest life of each pid.
    newest: Vec<u32>,
}

impl LifeTable {
    pub(crate) fn new() -> LifeTable {
        LifeTable { slots: Vec::new(), free: Vec::new(), newest: vec![NONE; Pid::MAX as usize + 1] }
    }

    /// How many lives there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Begins a new life of `pid`, which is known to be there at `at`.
    pub(crate) fn begin(&mut self, pid: Pid, at: KernelTime) -> usize {
        let older = std::mem::replace(&mut self.newest[pid.get() as usize], NONE);
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(slot as usize).map_or(0, |old| old.generation + 1);
        let new = Slot { life: Life::new(pid, at), pins: 0, generation, older };
        match self.slots.get_mut(slot as usize) {
            Some(old) => *old = new,
            None => self.slots.push(new),
        }
        self.newest[pid.get() as usize] = slot;
        slot as usize
    }

    /// Something names this life, and will need it: it stays until [`LifeTable::unpin`].
    pub(crate) fn pin(&mut self, slot: usize) -> Handle {
        self.slots[slot].pins += 1;
        self.handle(slot)
    }

    /// Undoes one [`LifeTable::pin`]. Forgets the life if nothing will be reported of it any more.
    pub(crate) fn unpin(&mut self, slot: usize) {
        let Slot { life, pins, .. } = &mut self.slots[slot];
        *pins -= 1;
        if *pins == 0 && (life.tree.is_none() || life.death.is_final()) {
            self.end(slot);
        }
    }

    /// Forgets a life.
    fn end(&mut self, slot: usize) {
        let (pid, older) = (self.slots[slot].life.pid.get() as usize, self.slots[slot].older);
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

    /// The newest life of `pid`.
    pub(crate) fn newest(&self, pid: Pid) -> Option<usize> {
        let newest = self.newest[pid.get() as usize];
        (newest != NONE).then_some(newest as usize)
    }

    /// Every life.
    pub(crate) fn slots(&self) -> Vec<usize> {
        let newest = self.newest.iter().filter(|newest| **newest != NONE);
        let chains = newest.flat_map(|slot| self.chain(self.slots[*slot as usize].life.pid));
        chains.collect()
    }

    /// The lives of `pid`, newest first.
    pub(crate) fn chain(&self, pid: Pid) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.newest(pid), |slot| {
            let older = self.slots[*slot].older;
            (older != NONE).then_some(older as usize)
        })
    }

    /// The life that forked the one in `slot`, if it was known when that was created.
    pub(crate) fn forker_at_create(&self, slot: usize) -> Option<usize> {
        self.find(self.slots[slot].life.forker_life?)
    }

    /// The newest life of `pid` that satisfies `condition`.
    pub(crate) fn latest(&self, pid: Pid, condition: impl Fn(&Life) -> bool) -> Option<usize> {
        self.chain(pid).find(|slot| condition(&self.slots[*slot].life))
    }

    /// A name for the life in `slot` that outlives it.
    fn handle(&self, slot: usize) -> Handle {
        Handle { slot: slot as u32, generation: self.slots[slot].generation }
    }

    /// The slot that this handle names, if that life is still there.
    pub(crate) fn find(&self, handle: Handle) -> Option<usize> {
        let slot = handle.slot as usize;
        (self.slots[slot].generation == handle.generation).then_some(slot)
    }
}

impl std::ops::Index<usize> for LifeTable {
    type Output = Life;
    fn index(&self, slot: usize) -> &Life {
        &self.slots[slot].life
    }
}

impl std::ops::IndexMut<usize> for LifeTable {
    fn index_mut(&mut self, slot: usize) -> &mut Life {
        &mut self.slots[slot].life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_has_a_chain_of_lives_and_a_handle_outlives_its_own() {
        let mut table = LifeTable::new();
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
