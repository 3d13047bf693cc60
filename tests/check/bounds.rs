//! Bounds of the cross-checker under extreme loads: memory stays bounded, evictions are counted, and every fact gets exactly
//! one verdict.

use kqproc_exporter::check::damage::Damage;
use kqproc_exporter::check::stats::{BlindReason, BoundedTable, Order, Stats};
use kqproc_exporter::check::{Checker, Config};
use kqproc_exporter::input::{Attach, Batch};
use kqproc_exporter::model::{KernelTime, Kevent, MonoTime, TreeId, Verdict, note};
use kqproc_exporter::wire::record::{Record, Register};

use super::by_hand::{ByHand, MS, ROOT, pid, root};

const EVFILT_PROC: i16 = -5;

/// A kernel whose time goes on with each event.
struct Kernel {
    both: ByHand,
    at: u64,
    /// How many lives the checker held at most.
    largest: u64,
}

impl Kernel {
    fn new(config: Config) -> Kernel {
        let mut kernel = Kernel { both: ByHand::new(config), at: 1000 * MS, largest: 0 };
        kernel.tick(0);
        kernel
    }

    fn stats(&self) -> &Stats {
        self.both.checker.stats()
    }

    /// A consumer that registers process `root`.
    fn consumer(&mut self, tree: TreeId, consumer: u32, root: u32) {
        let (consumer, tid) = (pid(consumer), 77);
        self.both.checker.tree(tree, "consumer");
        self.both.checker.consumer(tree, Some(consumer));
        self.at += 1000;
        self.both.record(Record::Register(Register {
            at: KernelTime(self.at),
            kqueue: 0xa1,
            ident: root.into(),
            tid,
            fd: 3,
            flags: 1,
            filter: EVFILT_PROC,
            fflags: note::TRACK | note::EXIT,
            own: true,
            consumer,
        }));
        self.at += 1000;
        self.both.record(Record::RegDone { at: KernelTime(self.at), tid, errno: 0, consumer });
        self.measure();
    }

    /// The processes of the first tree about which its tracker is wrong in this way.
    fn damage(&self, damage: Damage) -> u64 {
        self.stats().trees[0].damage[damage.index()]
    }

    /// A tree whose root has this pid.
    fn tree(&mut self, tree: TreeId, root: u32) {
        self.both.checker.tree(tree, &format!("tree{}", tree.0));
        self.call(&[self::root(tree, root, Attach::USUAL_NOTES)], &[]);
    }

    /// Notes how full the checker is.
    fn measure(&mut self) {
        self.largest = self.largest.max(self.stats().incarnations());
    }

    fn tick(&mut self, after: u64) {
        self.at += after;
        self.both.tick(self.at);
        self.measure();
    }

    fn create(&mut self, child: u32, forker: u32) {
        self.at += 1000;
        self.both.create(self.at, child, forker);
        self.measure();
    }

    fn exit(&mut self, number: u32) {
        self.at += 1000;
        self.both.exit(self.at, number);
        self.measure();
    }

    /// kevent(2) calls that return all these events.
    fn call(&mut self, attached: &[Attach], events: &[Kevent]) {
        let (mut rest, mut attached) = (events, attached);
        loop {
            let capacity = self.both.capacity() as usize;
            let (events, later) = rest.split_at(rest.len().min(capacity));
            let entered = self.at;
            self.at += 10_000;
            self.both.call(entered, self.at, attached, events);
            self.measure();
            (rest, attached) = (later, &[]);
            if events.len() < capacity {
                return;
            }
        }
    }

    /// Ends the input; returns the statistics.
    fn end(mut self) -> Stats {
        self.tick(2000 * MS);
        self.call(&[], &[]);
        self.tick(2000 * MS);
        let ByHand { checker, findings, .. } = &mut self.both;
        checker.end(findings);
        checker.publish();
        let stats = checker.stats().clone();
        stats.assert_conserved();
        let verdicts: u64 =
            stats.trees.iter().flat_map(|tree| tree.births.iter().chain(&tree.deaths)).sum();
        assert_eq!(verdicts, findings.len() as u64, "a finding for each verdict");
        assert_eq!(stats.trees.iter().map(|tree| tree.pending()).sum::<u64>(), 0);
        stats
    }
}

fn child(number: u32, forker: u32, tree: TreeId) -> Kevent {
    let (flags, fflags) = (note::EV_ONESHOT | note::EV_CLEAR, note::CHILD);
    Kevent { ident: number.into(), flags, fflags, data: forker.into(), udata: tree.cookie() }
}

fn exit(number: u32, tree: TreeId) -> Kevent {
    let (flags, fflags) = (note::EV_ONESHOT | note::EV_EOF, note::EXIT);
    Kevent { ident: number.into(), flags, fflags, data: 0, udata: tree.cookie() }
}

const TREE: TreeId = TreeId(0);

#[test]
fn a_hundred_thousand_live_processes_have_room() {
    let mut kernel = Kernel::new(Config::default());
    kernel.tree(TREE, ROOT);
    let all: Vec<u32> = (100..100_000).collect();
    for some in all.chunks(1000) {
        some.iter().for_each(|number| kernel.create(*number, ROOT));
        let notes: Vec<Kevent> = some.iter().map(|number| child(*number, ROOT, TREE)).collect();
        kernel.call(&[], &notes);
    }
    kernel.tick(1000 * MS);
    assert_eq!(kernel.largest, 99_901);
    for some in all.chunks(1000) {
        some.iter().for_each(|number| kernel.exit(*number));
        let notes: Vec<Kevent> = some.iter().map(|number| exit(*number, TREE)).collect();
        kernel.call(&[], &notes);
    }
    let stats = kernel.end();
    assert_eq!(stats.trees[0].births[Verdict::Agreed.index()], 99_900);
    assert_eq!(stats.trees[0].deaths[Verdict::Agreed.index()], 99_900);
    assert_eq!(stats.evictions, [0; BoundedTable::COUNT]);
    assert_eq!(stats.incarnations(), 1, "only the root is left");
}

#[test]
fn a_fork_bomb_that_is_never_drained_is_given_up_piece_by_piece() {
    let config = Config { capacity: 1 << 12, ..Config::default() };
    let mut kernel = Kernel::new(config);
    kernel.tree(TREE, ROOT);
    kernel.create(100, ROOT);
    for number in 100..90_100 {
        kernel.create(number + 1, number);
        kernel.exit(number);
    }
    let full = kernel.stats().tables[BoundedTable::Incarnations.index()];
    assert!(full.entries > full.capacity / 4 * 3, "{full:?}");
    kernel.tick(1000 * MS);
    assert!(kernel.largest <= config.capacity as u64, "{}", kernel.largest);
    let stats = kernel.end();
    assert!(stats.evictions[BoundedTable::Incarnations.index()] > 80_000);
    let lost: u64 =
        Verdict::ALL.iter().filter(|v| v.is_lost()).map(|v| stats.trees[0].births[v.index()]).sum();
    assert!(lost <= config.capacity as u64, "given up is not lost: {lost}");
}

#[test]
fn a_reader_that_stalled_into_65536_duplicates_counts_them() {
    let mut kernel = Kernel::new(Config::default());
    kernel.tree(TREE, ROOT);
    kernel.create(100, ROOT);
    let notes = vec![child(100, ROOT, TREE); 1 + (1 << 16)];
    kernel.call(&[], &notes);
    kernel.exit(100);
    kernel.call(&[], &[exit(100, TREE)]);
    kernel.tick(300 * MS);
    assert_eq!(kernel.largest, 2);
    let stats = kernel.end();
    assert_eq!(stats.trees[0].duplicate_child_notes, 1 << 16);
    assert_eq!(stats.trees[0].births[Verdict::Agreed.index()], 1);
    assert_eq!(stats.trees[0].deaths[Verdict::Agreed.index()], 1);
}

#[test]
fn events_whose_marks_never_come_wait_in_bounded_room() {
    let config = Config { capacity: 1 << 10, ..Config::default() };
    let mut checker = Checker::new(config);
    checker.tree(TREE, "tree");
    for seq in 0..10_000u64 {
        let (before, after) = (MonoTime(seq * MS), MonoTime(seq * MS + 10));
        let events = [child(100 + seq as u32, ROOT, TREE)];
        let capacity = Batch::capacity_of(seq);
        let batch = Batch { seq, capacity, before, after, attached: &[], events: &events };
        checker.batch(&batch, &mut ());
    }
    checker.publish();
    assert_eq!(checker.stats().evictions[BoundedTable::Events.index()], 10_000 - 1024);
    let full = checker.stats().tables[BoundedTable::Events.index()];
    assert_eq!(full.entries, full.capacity, "a full table counts as full");
    checker.end(&mut ());
    checker.publish();
    let stats = checker.stats();
    stats.assert_conserved();
    assert_eq!(stats.trees[0].births[Verdict::Undecided.index()], 10_000);
}

#[test]
fn a_thousand_trees_are_kept_apart() {
    let mut kernel = Kernel::new(Config::default());
    let root = |tree: TreeId| 100 + u32::from(tree.0);
    let trees: Vec<TreeId> = (0..1000).map(TreeId).collect();
    trees.iter().for_each(|tree| kernel.tree(*tree, root(*tree)));
    for round in 0..5 {
        let number = |tree: TreeId| 2000 + round * 1000 + u32::from(tree.0);
        trees.iter().for_each(|tree| kernel.create(number(*tree), root(*tree)));
        let notes: Vec<_> = trees.iter().map(|t| child(number(*t), root(*t), *t)).collect();
        kernel.call(&[], &notes);
        trees.iter().for_each(|tree| kernel.exit(number(*tree)));
        let notes: Vec<_> = trees.iter().map(|tree| exit(number(*tree), *tree)).collect();
        kernel.call(&[], &notes);
    }
    let stats = kernel.end();
    assert_eq!(stats.trees.len(), 1000);
    for tree in &stats.trees {
        assert_eq!(tree.births[Verdict::Agreed.index()], 5, "{}", tree.name);
        assert_eq!(tree.deaths[Verdict::Agreed.index()], 5, "{}", tree.name);
    }
}

#[test]
fn pids_that_are_used_again_and_again_need_no_more_room() {
    let mut kernel = Kernel::new(Config::default());
    kernel.tree(TREE, ROOT);
    for round in 0..200u32 {
        let numbers = (0..500).map(|i| 100 + (round * 500 + i) % 2000);
        let numbers: Vec<u32> = numbers.collect();
        numbers.iter().for_each(|number| kernel.create(*number, ROOT));
        numbers.iter().for_each(|number| kernel.exit(*number));
        let notes: Vec<Kevent> =
            numbers.iter().flat_map(|n| [child(*n, ROOT, TREE), exit(*n, TREE)]).collect();
        kernel.call(&[], &notes);
        kernel.tick(300 * MS);
    }
    assert!(kernel.largest < 2500, "{}", kernel.largest);
    let stats = kernel.end();
    assert_eq!(stats.trees[0].births[Verdict::Agreed.index()], 100_000);
    assert_eq!(stats.trees[0].deaths[Verdict::Agreed.index()], 100_000);
}

#[test]
fn ends_that_were_not_asked_for_need_no_room() {
    let capacity = 64;
    let mut kernel = Kernel::new(Config { capacity, ..Config::default() });
    kernel.call(&[root(TREE, ROOT, note::TRACK)], &[]);
    for number in 100..1100 {
        kernel.create(number, ROOT);
        kernel.call(&[], &[child(number, ROOT, TREE)]);
        kernel.exit(number);
    }
    assert!(kernel.largest <= capacity as u64 + 1, "{} lives", kernel.largest);
    let stats = kernel.end();
    assert_eq!((stats.trees[0].tracked, stats.incarnations()), (1, 1));
    assert_eq!(stats.trees[0].deaths_reported, 0);
}

#[test]
fn a_lost_process_is_not_alive_when_its_pid_is_used_again() {
    let mut kernel = Kernel::new(Config::default());
    kernel.call(&[root(TREE, ROOT, note::TRACK)], &[]);
    kernel.tick(100 * MS);
    kernel.create(60, ROOT);
    kernel.create(61, ROOT);
    kernel.call(&[], &[child(61, ROOT, TREE)]);
    kernel.tick(2000 * MS);
    kernel.call(&[], &[]);
    kernel.tick(2000 * MS);
    let lost_alive = |kernel: &Kernel| kernel.stats().trees[0].lost_alive;
    assert_eq!(lost_alive(&kernel), 1);
    kernel.create(60, 61);
    kernel.call(&[], &[child(60, 61, TREE)]);
    kernel.tick(2000 * MS);
    kernel.call(&[], &[]);
    kernel.tick(2000 * MS);
    assert_eq!(lost_alive(&kernel), 0);
    assert_eq!(kernel.end().trees[0].births[Verdict::LostSilent.index()], 1);
}

#[test]
fn a_death_that_is_settled_before_its_birth_has_a_verdict() {
    let mut kernel = Kernel::new(Config { settle_ns: 10 * MS, ..Config::default() });
    kernel.tree(TREE, ROOT);
    kernel.tick(100 * MS);
    kernel.create(60, ROOT);
    kernel.exit(60);
    kernel.create(61, ROOT);
    kernel.call(&[], &[child(61, ROOT, TREE)]);
    kernel.tick(20 * MS);
    // It ends the wait for an exit of its time, and not yet that for a birth.
    kernel.call(&[], &[exit(61, TREE)]);
    kernel.exit(61);
    let stats = kernel.end();
    let lost = Verdict::LostSilent.index();
    assert_eq!((stats.trees[0].births[lost], stats.trees[0].deaths[lost]), (1, 1));
    assert_eq!(stats.incarnations(), 1, "the root");
}

#[test]
fn a_consumer_that_ends_takes_only_its_own_processes_from_its_tree() {
    let mut kernel = Kernel::new(Config::default());
    kernel.tree(TREE, ROOT);
    kernel.both.checker.consumer(TREE, Some(pid(70)));
    kernel.exit(70);
    kernel.tick(2000 * MS);
    assert_eq!(kernel.stats().trees[0].tracked, 1);
    kernel.exit(ROOT);
    kernel.call(&[], &[exit(ROOT, TREE)]);
    assert_eq!(kernel.end().trees[0].tracked, 0);
}

/// What its full table had given up counted as missed by DTrace for ever, in the mirror's trees too.
#[test]
fn a_consumer_that_ends_with_a_full_table_leaves_dtrace_its_sight() {
    let mut kernel = Kernel::new(Config { capacity: 1 << 10, ..Config::default() });
    kernel.tree(TREE, ROOT);
    kernel.create(80, 1);
    kernel.consumer(TreeId(1), 70, 80);
    for number in 1000..3000 {
        kernel.create(number, 80);
        if number % 100 == 0 {
            kernel.tick(100 * MS);
            kernel.call(&[], &[]);
        }
    }
    assert!(kernel.stats().evictions[BoundedTable::Incarnations.index()] > 0);
    kernel.exit(70);
    kernel.tick(1000 * MS);
    kernel.call(&[], &[]);
    kernel.create(4000, ROOT);
    kernel.call(&[], &[child(4000, ROOT, TREE)]);
    kernel.tick(100 * MS);
    kernel.create(4001, ROOT);
    let lasted = kernel.at;
    let stats = kernel.end();
    assert_eq!(stats.trees[0].births[Verdict::LostSilent.index()], 1);
    assert!(stats.dtrace_blind_ns[BlindReason::Overflow.index()] < lasted, "{stats:?}");
}

/// The tracker knows then what it did not know.
#[test]
fn a_late_note_ends_the_damage_that_its_loss_was() {
    let mut kernel = Kernel::new(Config::default());
    kernel.tree(TREE, ROOT);
    kernel.tick(100 * MS);
    kernel.create(60, ROOT);
    kernel.create(61, ROOT);
    kernel.call(&[], &[child(60, ROOT, TREE)]);
    kernel.exit(60);
    for _ in 0..2 {
        kernel.tick(2000 * MS);
        kernel.call(&[], &[]);
    }
    kernel.tick(300 * MS);
    assert_eq!((kernel.damage(Damage::Ghost), kernel.damage(Damage::Unknown)), (1, 1));
    kernel.call(&[], &[exit(60, TREE), child(61, ROOT, TREE)]);
    kernel.tick(300 * MS);
    assert_eq!((kernel.damage(Damage::Ghost), kernel.damage(Damage::Unknown)), (0, 0));
    let tree = &kernel.end().trees[0];
    assert_eq!(tree.order_violations[Order::Late.index()], 2);
    let lost = Verdict::LostSilent.index();
    assert_eq!((tree.births[lost], tree.deaths[lost]), (1, 1), "a verdict stays");
}
