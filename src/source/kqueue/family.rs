//! Which processes the mirror tracks, and the search for descendants of a root that were born before the root was
//! registered.
//!
//! A tracked pid must never be registered again (one of its two knotes would be changed: 13.2 `kern_event.c:1586`).
//! Therefore the search lists the processes first and reads the queue empty after that: a process that is in the list
//! and was born tracked has been announced by then. And since a process is in the list a moment before its NOTE_CHILD
//! is in the queue, it must be missing twice in a row before it is registered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use super::{KqueueApi, ProcessRow};
use crate::input::Attach;
use crate::model::{Kevent, Pid, TreeId, note};

/// A tree that grows faster than it can be listed is watched as far as it was found.
const MOST_ROUNDS: u32 = 100;

/// The tracked processes; there are at most as many as there are pids.
#[derive(Debug)]
pub(super) struct Family {
    /// The fflags that each is registered with.
    notes: u32,
    tracked: HashMap<Pid, TreeId>,
    roots: HashMap<TreeId, Pid>,
    search: Option<Search>,
}

#[derive(Debug, Default)]
struct Search {
    list: Vec<ProcessRow>,
    /// The list is fresh, and the queue has not been read empty since.
    listed: bool,
    /// Who was missing in the round before.
    missing: HashSet<Pid>,
    /// Who has ended, or could not be registered, since the search began.
    left: HashSet<Pid>,
    rounds: u32,
}

impl Family {
    /// No process yet; each will be registered with the fflags `notes`.
    pub(super) fn new(notes: u32) -> Family {
        Family { notes, tracked: HashMap::new(), roots: HashMap::new(), search: None }
    }

    /// The registration of the root of `tree`.
    pub(super) fn root(&self, tree: TreeId, pid: Pid) -> Attach {
        Attach { tree, pid, root: true, errno: 0, notes: self.notes }
    }

    pub(super) fn tree_of(&self, pid: Pid) -> Option<TreeId> {
        self.tracked.get(&pid).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.tracked.len()
    }

    /// This process is the root of this tree now, and tracked.
    pub(super) fn set_root(&mut self, tree: TreeId, pid: Pid) {
        self.roots.insert(tree, pid);
        self.tracked.insert(pid, tree);
    }

    /// A registration was made or refused.
    pub(super) fn registered(&mut self, attach: &Attach) {
        if attach.errno != 0 {
            if let Some(search) = &mut self.search {
                search.left.insert(attach.pid);
            }
        } else if attach.root {
            self.set_root(attach.tree, attach.pid);
        } else {
            self.tracked.insert(attach.pid, attach.tree);
        }
    }

    /// Takes an event. The tree whose root has ended with it.
    pub(super) fn event(&mut self, event: &Kevent) -> Option<TreeId> {
        let tree = TreeId::from_cookie(event.udata)?;
        let pid = Pid::new(event.ident)?;
        if event.fflags & note::EXIT != 0 {
            self.tracked.remove(&pid);
            if let Some(search) = &mut self.search {
                search.left.insert(pid);
            }
            let was_root = self.roots.get(&tree) == Some(&pid);
            if was_root {
                self.roots.remove(&tree);
            }
            return was_root.then_some(tree);
        }
        if event.fflags & note::CHILD != 0 {
            self.tracked.insert(pid, tree);
            if let Some(search) = &mut self.search {
                search.left.remove(&pid);
            }
        }
        None
    }

    /// Begins to look for descendants, again from the start if a search is under way.
    pub(super) fn search(&mut self) {
        self.search = Some(Search::default());
    }

    pub(super) fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Lists the processes, if the search needs it.
    pub(super) fn list(&mut self, kernel: &mut dyn KqueueApi) -> io::Result<()> {
        let Some(search) = self.search.as_mut().filter(|search| !search.listed) else {
            return Ok(());
        };
        search.list.clear();
        let result = kernel.processes(&mut search.list);
        if result.is_err() {
            self.search = None;
        } else {
            search.listed = true;
        }
        result
    }

    /// The queue was read empty after the list was made: which processes are to be registered. The search ends when none is
    /// missing.
    pub(super) fn missing(&mut self) -> Vec<Attach> {
        let Some(search) = self.search.as_mut().filter(|search| search.listed) else {
            return Vec::new();
        };
        search.listed = false;
        search.rounds += 1;
        let found = descendants(&self.tracked, search, self.notes);
        let mut twice = Vec::new();
        let mut once = HashSet::new();
        for attach in found {
            match search.missing.contains(&attach.pid) {
                true => twice.push(attach),
                false => drop(once.insert(attach.pid)),
            }
        }
        let over = twice.is_empty() && once.is_empty();
        search.missing = once;
        if over || search.rounds >= MOST_ROUNDS {
            self.search = None;
        }
        twice
    }
}

/// Those in the list that descend from a tracked process, live, and are not tracked.
fn descendants(tracked: &HashMap<Pid, TreeId>, search: &Search, notes: u32) -> Vec<Attach> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for process in search.list.iter().filter(|p| !p.zombie && p.pid != p.parent) {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut found = Vec::new();
    let mut queue: VecDeque<(Pid, TreeId)> = tracked.iter().map(|(p, t)| (*p, *t)).collect();
    while let Some((pid, tree)) = queue.pop_front() {
        // Taken out: a loop in a list that changed while it was made ends here.
        for child in children.remove(&pid).unwrap_or_default() {
            if !tracked.contains_key(&child) && !search.left.contains(&child) {
                found.push(Attach { tree, pid: child, root: false, errno: 0, notes });
                queue.push_back((child, tree));
            }
        }
    }
    found
}
