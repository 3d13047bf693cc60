//! A table whose keys are numbers that are never used twice.

use std::collections::HashMap;

/// The number of a thing in its [`Arena`].
pub(super) type Id = u64;

/// Things under numbers. They are named in their order alone, so that of a hash table cannot leak into a run.
pub(super) struct Arena<T> {
    things: HashMap<Id, T>,
    next: Id,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { things: HashMap::new(), next: 0 }
    }
}

impl<T> Arena<T> {
    pub(super) fn insert(&mut self, thing: T) -> Id {
        let id = self.next;
        self.next += 1;
        self.things.insert(id, thing);
        id
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        self.things.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.things.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.things.remove(&id)
    }

    /// All numbers, in their order.
    pub(super) fn ids(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = self.things.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn len(&self) -> usize {
        self.things.len()
    }
}
