//! A kernel that a test drives by hand, and both witnesses of it, on one clock.

use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::check::{Checker, Config};
use kqproc_exporter::input::{Attach, Batch};
use kqproc_exporter::model::{KernelTime, Kevent, MonoTime, Pid, TreeId, WaitStatus};
use kqproc_exporter::wire::record::{Mark, Record};

pub const MS: u64 = 1_000_000;
pub const ROOT: u32 = 50;

pub fn pid(number: u32) -> Pid {
    Pid::new(number.into()).expect("a pid")
}

/// The registration of the root of a tree.
pub fn root(tree: TreeId, root: u32, notes: u32) -> Attach {
    Attach { tree, pid: pid(root), root: true, errno: 0, notes }
}

/// What the checker has been given, and found.
pub struct ByHand {
    pub checker: Checker,
    pub findings: Vec<Finding>,
    seq: u64,
}

impl ByHand {
    pub fn new(config: Config) -> ByHand {
        ByHand { checker: Checker::new(config), findings: vec![], seq: 0 }
    }

    pub fn record(&mut self, record: Record) {
        self.checker.record(record, MonoTime(record.at().0), &mut self.findings);
        self.checker.publish();
    }

    pub fn tick(&mut self, at: u64) {
        self.record(Record::Tick { at: KernelTime(at), wall: 0 });
    }

    pub fn create(&mut self, at: u64, child: u32, forker: u32) {
        let (at, child, forker) = (KernelTime(at), pid(child), pid(forker));
        self.record(Record::Create { at, child, forker, parent: forker, flags: 0x14 });
    }

    pub fn exit(&mut self, at: u64, number: u32) {
        let (at, parent, status) = (KernelTime(at), pid(ROOT), WaitStatus(0));
        self.record(Record::Exit { at, pid: pid(number), parent, status });
    }

    /// How many events the next call has room for.
    pub fn capacity(&self) -> u32 {
        Batch::capacity_of(self.seq)
    }

    /// A kevent(2) call and DTrace's mark of it.
    pub fn call(&mut self, entered: u64, at: u64, attached: &[Attach], events: &[Kevent]) {
        let (seq, capacity) = (self.seq, self.capacity());
        self.seq += 1;
        let (before, after) = (MonoTime(entered), MonoTime(at));
        let batch = Batch { seq, capacity, before, after, attached, events };
        self.checker.batch(&batch, &mut self.findings);
        let (at, entered) = (KernelTime(at), KernelTime(entered));
        let returned = Some(events.len() as i32);
        self.record(Record::Mark(Mark { at, entered, capacity, seq: None, returned }));
    }
}
