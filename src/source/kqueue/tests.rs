//! The reader against a scripted kernel that behaves as FreeBSD does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::reader::{BATCH_BUFFERS, IdlePace, KqueueReader, RootEvent, RootRequest};
use super::{KqueueApi, Notes, ProcessRow};
use crate::input::{Attach, Batch, Input};
use crate::model::{Kevent, Pid, TreeId, note};
use crate::source::inbox::{Inbox, inbox};

const TREE: TreeId = TreeId(0);

fn pid(number: u64) -> Pid {
    Pid::new(number).expect("a pid")
}

fn root(tree: u16, number: u64) -> RootRequest {
    RootRequest { tree: TreeId(tree), pid: pid(number), newborn: false }
}

/// Processes, who of them is tracked, and what is queued.
#[derive(Default)]
struct World {
    /// Pid to parent.
    processes: BTreeMap<u64, u64>,
    zombies: BTreeSet<u64>,
    tracked: BTreeMap<u64, u64>,
    queue: VecDeque<Kevent>,
    /// How often each pid was registered.
    registered: BTreeMap<u64, u32>,
    interrupt_next: bool,
    refuse: BTreeMap<u64, i64>,
    /// Forks that happen right after the next list of processes was made, as parent and child.
    forks_after_list: Vec<(u64, u64)>,
    /// Processes that are in the list a moment before their NOTE_CHILD is in the queue.
    late_notes: Vec<Kevent>,
}

impl World {
    fn fork(&mut self, parent: u64, child: u64) {
        self.processes.insert(child, parent);
        if let Some(note) = self.birth(parent, child) {
            self.queue.push_back(note);
        }
    }

    fn birth(&mut self, parent: u64, child: u64) -> Option<Kevent> {
        let udata = *self.tracked.get(&parent)?;
        self.tracked.insert(child, udata);
        let (flags, fflags, data) = (note::EV_CLEAR | note::EV_ONESHOT, note::CHILD, parent as i64);
        Some(Kevent { ident: child, flags, fflags, data, udata })
    }

    /// NOTE_EXIT is queued; the process stays in the list until it is reaped.
    fn exit(&mut self, number: u64) {
        if let Some(udata) = self.tracked.remove(&number) {
            let (flags, fflags) = (note::EV_EOF | note::EV_ONESHOT, note::EXIT);
            self.queue.push_back(Kevent { ident: number, flags, fflags, data: 0, udata });
        }
    }

    fn register(&mut self, change: &Attach) -> Result<(), i64> {
        let number = u64::from(change.pid.get());
        if let Some(errno) = self.refuse.get(&number) {
            return Err(*errno);
        }
        if !self.processes.contains_key(&number) {
            return Err(3);
        }
        *self.registered.entry(number).or_default() += 1;
        self.tracked.insert(number, change.tree.cookie());
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<World>>);

impl Scripted {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while it holds it")
    }
}

impl KqueueApi for Scripted {
    fn kevent(
        &mut self,
        changes: &[Attach],
        capacity: u32,
        _: Duration,
        events: &mut Vec<Kevent>,
    ) -> io::Result<()> {
        let mut world = self.world();
        for change in changes {
            if let Err(errno) = world.register(change) {
                let (ident, fflags) = (u64::from(change.pid.get()), change.notes);
                let (flags, udata) = (note::EV_ERROR, change.tree.cookie());
                events.push(Kevent { ident, flags, fflags, data: errno, udata });
            }
        }
        if !events.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut world.interrupt_next) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = world.queue.len().min(capacity as usize);
        events.extend(world.queue.drain(..n));
        let late = std::mem::take(&mut world.late_notes);
        world.queue.extend(late);
        Ok(())
    }

    fn processes(&mut self, list: &mut Vec<ProcessRow>) -> io::Result<()> {
        let mut world = self.world();
        list.extend(world.processes.iter().map(|(number, parent)| ProcessRow {
            pid: pid(*number),
            parent: pid(*parent),
            zombie: world.zombies.contains(number),
        }));
        for (parent, child) in std::mem::take(&mut world.forks_after_list) {
            world.fork(parent, child);
        }
        Ok(())
    }
}

/// A reader and both of its ends.
struct Rig {
    kernel: Scripted,
    reader: KqueueReader,
    requests: Sender<RootRequest>,
    events: Receiver<RootEvent>,
    batches: Inbox,
}

fn rig(processes: &[(u64, u64)]) -> Rig {
    let kernel = Scripted::default();
    kernel.world().processes.extend(processes.iter().copied());
    let ((requests, to_attach), (to_hear, events)) = (channel(), channel());
    let (to, batches) = inbox(0);
    let reader = KqueueReader::new(
        Box::new(kernel.clone()),
        Notes::default(),
        Duration::ZERO,
        to_attach,
        Box::new(move |event| to_hear.send(event).expect("it is read")),
        IdlePace::default(),
        to,
    );
    Rig { kernel, reader, requests, events, batches }
}

impl Rig {
    fn request(&self, request: RootRequest) {
        self.requests.send(request).expect("the reader listens");
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.reader.turn().expect("kevent works");
        }
    }

    /// What was pushed since the last call, batches as sequence number, registrations and number of events.
    fn pushed(&self) -> Vec<String> {
        let mut pushed = Vec::new();
        for message in self.batches.queued() {
            let _ = message.deliver(&mut |input: Input<'_>| {
                pushed.push(match input {
                    Input::Batch(batch) => batch_text(&batch),
                    Input::BatchesLost { first, count, .. } => format!("lost {first}+{count}"),
                    Input::TreeGone { id } => format!("gone {}", id.0),
                    other => format!("{other:?}"),
                });
                std::ops::ControlFlow::Continue(())
            });
        }
        pushed
    }

    fn events(&self) -> Vec<RootEvent> {
        self.events.try_iter().collect()
    }
}

fn batch_text(batch: &Batch<'_>) -> String {
    let attached: Vec<String> = batch
        .attached
        .iter()
        .map(|Attach { pid, root, errno, .. }| match (root, errno) {
            (true, 0) => format!("root {pid}"),
            (false, 0) => format!("{pid}"),
            (_, errno) => format!("{pid} errno {errno}"),
        })
        .collect();
    format!("{} [{}] {}", batch.seq, attached.join(", "), batch.events.len())
}

#[test]
fn a_running_tree_is_registered_once_each_and_none_that_kqueue_announced() {
    let mut rig = rig(&[(1, 0), (10, 1), (11, 10), (12, 11), (13, 12), (20, 1), (21, 20)]);
    rig.kernel.world().zombies.insert(13);
    // 14 is born tracked after the list was made and before the queue was read.
    rig.kernel.world().forks_after_list = vec![(10, 14)];
    rig.request(root(0, 10));
    rig.turns(8);
    let world = rig.kernel.world();
    assert_eq!(world.registered, BTreeMap::from([(10, 1), (11, 1), (12, 1)]));
    assert_eq!(world.tracked.keys().copied().collect::<Vec<_>>(), [10, 11, 12, 14]);
    drop(world);
    let attached = RootEvent::Attached { tree: TREE, pid: pid(10) };
    assert_eq!(rig.events(), [attached, RootEvent::Searched { tracked: 4 }]);
    let pushed = rig.pushed();
    assert_eq!(pushed[0], "0 [root 10] 0");
    assert!(pushed.iter().any(|p| p.contains("[11, 12]")), "{pushed:?}");
}

#[test]
fn a_process_whose_note_is_late_is_not_registered() {
    let mut rig = rig(&[(1, 0), (10, 1)]);
    rig.request(root(0, 10));
    rig.turns(1);
    {
        let mut world = rig.kernel.world();
        world.processes.insert(11, 10);
        let note = world.birth(10, 11).expect("10 is tracked");
        world.late_notes.push(note);
    }
    rig.turns(8);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1)]));
}

#[test]
fn a_process_whose_exit_was_reported_is_not_registered_again() {
    let mut rig = rig(&[(1, 0), (10, 1), (11, 10)]);
    rig.request(root(0, 10));
    rig.turns(3);
    // Another one keeps the search going.
    rig.kernel.world().processes.insert(12, 10);
    rig.turns(1);
    assert_eq!(rig.kernel.world().registered.get(&11), Some(&1));
    // It stays in the list, as a process does that is exiting.
    rig.kernel.world().exit(11);
    rig.turns(8);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1), (11, 1), (12, 1)]));
    assert!(rig.events().contains(&RootEvent::Searched { tracked: 2 }));
}

#[test]
fn a_refused_descendant_costs_itself_and_ends_no_search() {
    let mut rig = rig(&[(1, 0), (10, 1), (11, 10), (12, 10)]);
    rig.kernel.world().refuse.insert(11, 1);
    rig.request(root(0, 10));
    rig.turns(10);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1), (12, 1)]));
    assert!(rig.events().contains(&RootEvent::Searched { tracked: 2 }));
    assert!(rig.pushed().iter().any(|p| p.contains("11 errno 1, 12]")));
}

#[test]
fn a_dead_root_is_reported_and_its_call_did_not_drain_the_queue() {
    let mut rig = rig(&[(1, 0)]);
    rig.request(root(0, 10));
    rig.turns(1);
    assert_eq!(rig.events(), [RootEvent::Refused { tree: TREE, pid: pid(10), errno: 3 }]);
    assert_eq!(rig.pushed(), ["0 [10 errno 3] 0", "gone 0"]);
    let refused =
        Attach { tree: TREE, pid: pid(10), root: true, errno: 3, notes: Attach::USUAL_NOTES };
    let at = crate::model::MonoTime(0);
    let batch =
        Batch { seq: 0, capacity: 1024, before: at, after: at, attached: &[refused], events: &[] };
    assert!(!batch.drained());
}

#[test]
fn an_interrupted_call_keeps_its_number_and_registers_nobody_twice() {
    let mut rig = rig(&[(1, 0), (10, 1)]);
    rig.kernel.world().interrupt_next = true;
    rig.request(RootRequest { newborn: true, ..root(0, 10) });
    rig.turns(1);
    assert!(rig.pushed().is_empty());
    rig.turns(2);
    assert_eq!(rig.pushed(), ["0 [root 10] 0", "1 [] 0"]);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1)]));
}

#[test]
fn a_root_that_ends_is_gone_and_another_one_may_follow() {
    let mut rig = rig(&[(1, 0), (10, 1), (30, 1)]);
    rig.request(RootRequest { newborn: true, ..root(0, 10) });
    rig.turns(1);
    rig.kernel.world().exit(10);
    rig.turns(1);
    assert_eq!(rig.pushed(), ["0 [root 10] 0", "1 [] 1", "gone 0"]);
    rig.request(RootRequest { newborn: true, ..root(0, 30) });
    rig.turns(1);
    assert_eq!(rig.pushed(), ["2 [root 30] 0"]);
    let attached = |number| RootEvent::Attached { tree: TREE, pid: pid(number) };
    assert_eq!(rig.events(), [attached(10), RootEvent::Ended { tree: TREE }, attached(30)]);
}

#[test]
fn a_tracked_process_becomes_a_root_without_a_second_registration() {
    let mut rig = rig(&[(1, 0), (10, 1)]);
    rig.request(RootRequest { newborn: true, ..root(0, 10) });
    rig.turns(1);
    rig.kernel.world().fork(10, 11);
    rig.turns(1);
    rig.request(root(0, 11));
    rig.request(root(1, 10));
    rig.turns(1);
    let taken = RootEvent::Taken { tree: TreeId(1), pid: pid(10), by: TREE };
    assert_eq!(rig.events()[1..], [RootEvent::Attached { tree: TREE, pid: pid(11) }, taken]);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1)]));
    assert!(rig.pushed().contains(&"gone 1".to_owned()));
}

#[test]
fn two_trees_that_name_one_process_register_it_once() {
    let mut rig = rig(&[(1, 0), (10, 1)]);
    rig.request(root(0, 10));
    rig.request(root(1, 10));
    rig.turns(8);
    let taken = RootEvent::Taken { tree: TreeId(1), pid: pid(10), by: TREE };
    let events = rig.events();
    assert_eq!(events[..2], [taken, RootEvent::Attached { tree: TREE, pid: pid(10) }]);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1)]));
}

#[test]
fn a_descendant_that_is_about_to_be_registered_becomes_a_root_without_a_second_registration() {
    let mut rig = rig(&[(1, 0), (10, 1), (11, 10)]);
    rig.request(root(0, 10));
    rig.turns(3);
    assert_eq!(rig.kernel.world().registered.get(&11), None, "it was found and is planned");
    rig.request(root(0, 11));
    rig.turns(8);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1), (11, 1)]));
    assert!(rig.events().contains(&RootEvent::Attached { tree: TREE, pid: pid(11) }));
}

#[test]
fn a_full_ring_costs_batches_that_are_counted_and_no_registration() {
    let mut rig = rig(&[(1, 0), (10, 1)]);
    rig.turns(BATCH_BUFFERS);
    rig.request(RootRequest { newborn: true, ..root(0, 10) });
    rig.turns(3);
    assert_eq!(rig.pushed().len(), BATCH_BUFFERS);
    rig.turns(1);
    let n = BATCH_BUFFERS;
    assert_eq!(rig.pushed(), [format!("lost {n}+3"), format!("{} [root 10] 0", n + 3)]);
}

#[test]
fn a_queue_longer_than_a_call_is_not_taken_for_drained() {
    let mut rig = rig(&[(1, 0), (10, 1), (11, 10)]);
    rig.request(root(0, 10));
    rig.turns(1);
    // More births than a call returns: what is missing may be among those that were not read yet.
    let births: Vec<(u64, u64)> = (100..3000).map(|child| (10, child)).collect();
    rig.kernel.world().forks_after_list = births;
    rig.turns(12);
    assert_eq!(rig.kernel.world().registered, BTreeMap::from([(10, 1), (11, 1)]));
    assert!(rig.events().contains(&RootEvent::Searched { tracked: 2902 }));
}
