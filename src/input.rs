//! What every source yields and every recording holds: the evidence of both witnesses, in the order of reading.
//!
//! Live, replay and simulation differ only in who makes these; everything behind them is the same code.

use std::ops::{ControlFlow, RangeInclusive};
use std::time::Duration;

use crate::model::{Kevent, MonoTime, Pid, TreeId, note};

/// A host has no more consumers than these: a predicate of the D program names each, and each takes as much memory as the
/// mirror.
pub(crate) const MOST_CONSUMERS: usize = 64;

/// One piece of evidence, or news about how it is gathered. Borrows the source's buffers: nothing is allocated per event.
/// `at` is when it was read or noticed.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs, reason = "a field without a comment is what its name and its variant say")]
pub enum Input<'a> {
    /// The cross-checker's configuration during the run. Counts only as the very first input.
    Config(Config),
    /// A tree to be watched. Comes before anything else about it. The first number is 0 and they are dense; the name is the
    /// value of the `tree` label.
    Tree { id: TreeId, name: &'a str },
    /// One kevent(2) call of the reader.
    Batch(Batch<'a>),
    /// Bytes of dtrace's stdout as read, cut anywhere.
    Stdout { at: MonoTime, bytes: &'a [u8] },
    /// Bytes of dtrace's stderr as read, cut anywhere.
    Stderr { at: MonoTime, bytes: &'a [u8] },
    /// dtrace was started (again). It is blind until its first record.
    DtraceUp { at: MonoTime },
    /// dtrace is gone, or is taken for dead: blind until the next [`Input::DtraceUp`] has its first record.
    DtraceDown { at: MonoTime },
    /// Batches `first..first + count` were read from kqueue and could not be kept (a full ring).
    BatchesLost {
        first: u64,
        count: u64,
        /// Before the first missing kevent(2) call.
        from: MonoTime,
        /// After the last missing kevent(2) call.
        to: MonoTime,
    },
    /// The third witness: vm.stats.vm.v_forks + v_vforks + v_rforks, summed since boot.
    Forks { at: MonoTime, total: u64 },
    /// A tree has no process to watch (its root is gone, or could not be attached).
    TreeGone { id: TreeId },
    /// A tree in consumer mode: from now on it is what this process, a user's own tracker, gets from kevent(2). `None`: it has
    /// ended, and the next one is waited for.
    Consumer { id: TreeId, pid: Option<Pid> },
    /// Nothing more will come: decide what can be decided.
    End,
}

/// An [`Input`] that owns its data: tests and benchmarks keep it, change it and play it again.
#[derive(Clone, PartialEq, Debug)]
pub enum OwnedInput {
    /// [`Input::Tree`].
    Tree(TreeId, String),
    /// [`Input::Batch`].
    Batch(OwnedBatch),
    /// [`Input::Stdout`].
    Stdout(MonoTime, Vec<u8>),
    /// [`Input::Stderr`].
    Stderr(MonoTime, Vec<u8>),
    /// Any of the inputs that borrow nothing.
    Other(Input<'static>),
}

impl From<Input<'_>> for OwnedInput {
    fn from(input: Input<'_>) -> OwnedInput {
        let other = match input {
            Input::Tree { id, name } => return OwnedInput::Tree(id, name.to_owned()),
            Input::Stdout { at, bytes } => return OwnedInput::Stdout(at, bytes.to_vec()),
            Input::Stderr { at, bytes } => return OwnedInput::Stderr(at, bytes.to_vec()),
            Input::Batch(batch) => {
                let head = Batch { attached: &[], events: &[], ..batch };
                let (attached, events) = (batch.attached.to_vec(), batch.events.to_vec());
                return OwnedInput::Batch(OwnedBatch { head, attached, events });
            }
            Input::Config(config) => Input::Config(config),
            Input::DtraceUp { at } => Input::DtraceUp { at },
            Input::DtraceDown { at } => Input::DtraceDown { at },
            Input::BatchesLost { first, count, from, to } => {
                Input::BatchesLost { first, count, from, to }
            }
            Input::Forks { at, total } => Input::Forks { at, total },
            Input::TreeGone { id } => Input::TreeGone { id },
            Input::Consumer { id, pid } => Input::Consumer { id, pid },
            Input::End => Input::End,
        };
        OwnedInput::Other(other)
    }
}

impl OwnedInput {
    /// The input, which borrows this data.
    pub fn as_input(&self) -> Input<'_> {
        match self {
            OwnedInput::Tree(id, name) => Input::Tree { id: *id, name },
            OwnedInput::Batch(batch) => Input::Batch(batch.as_batch()),
            OwnedInput::Stdout(at, bytes) => Input::Stdout { at: *at, bytes },
            OwnedInput::Stderr(at, bytes) => Input::Stderr { at: *at, bytes },
            OwnedInput::Other(input) => *input,
        }
    }
}

/// One kevent(2) call of the reader and what it returned.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Batch<'a> {
    /// Number of the call, from 0. A call that failed (EINTR) keeps its number for the next try.
    pub seq: u64,
    /// The call's `nevents`: 1024 for a live reader. A recording of an older version has [`Batch::capacity_of`] the number,
    /// by which an `M` record names its call; so has the simulator.
    pub capacity: u32,
    /// Just before the call.
    pub before: MonoTime,
    /// Just after the call.
    pub after: MonoTime,
    /// What was registered by this very call (its changelist).
    pub attached: &'a [Attach],
    /// What it returned, in the kernel's order, without the receipts of the changelist.
    pub events: &'a [Kevent],
}

impl Batch<'_> {
    /// The `nevents` by which older readers numbered their calls: 1024 consecutive calls differ, so an `M` record names its
    /// call even after drops.
    pub const fn capacity_of(seq: u64) -> u32 {
        1024 + (seq % 1024) as u32
    }

    /// Whether the call took all there was: see `took_all`.
    pub fn drained(&self) -> bool {
        let receipts = self.attached.iter().any(|attach| attach.errno != 0)
            || self.events.iter().any(Kevent::is_receipt);
        took_all(i64::from(self.capacity), self.events.len() as i64, receipts)
    }
}

/// A [`Batch`] that owns its data.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct OwnedBatch {
    /// The numbers and times of the call; its slices are empty.
    pub head: Batch<'static>,
    /// What it registered.
    pub attached: Vec<Attach>,
    /// What it returned.
    pub events: Vec<Kevent>,
}

impl OwnedBatch {
    /// The batch, which borrows this data.
    pub(crate) fn as_batch(&self) -> Batch<'_> {
        Batch { attached: &self.attached, events: &self.events, ..self.head }
    }
}

/// Whether a kevent(2) call took all there was: everything queued before it began was returned by it or by an earlier call.
///
/// kqueue_scan puts a marker at the end of the queue and stops at it, or when `nevents` are full (13.2 `kern_event.c`,
/// `kqueue_scan`). If a change failed or asked for a receipt, the kernel returns without a look at the queue
/// (`kqueue_kevent`). `returned` is below 0 if the call failed.
pub(crate) const fn took_all(nevents: i64, returned: i64, receipts: bool) -> bool {
    !receipts && 0 <= returned && returned < nevents
}

/// A registration (EV_ADD) of a process that is not tracked yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attach {
    /// The tree that it belongs to.
    pub tree: TreeId,
    /// The process.
    pub pid: Pid,
    /// Whether it is the root or a descendant that was born before we came. Neither's birth is a fact of ours.
    pub root: bool,
    /// 0, or why kevent(2) refused (ESRCH: it was gone already).
    pub errno: i32,
    /// The fflags of the registration (`NOTE_*`): an event that was not asked for is never missing.
    pub notes: u32,
}

impl Attach {
    /// What was asked for unless something else is known: births and deaths.
    pub const USUAL_NOTES: u32 = note::TRACK | note::EXIT;
}

/// How patient the cross-checker is, and how much it may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// How long after a fact, in nanoseconds of DTrace's clock, its note may still be on its way inside the kernel.
    pub settle_ns: u64,
    /// How far out of order, in nanoseconds, DTrace's records may arrive.
    pub reorder_ns: u64,
    /// The D program's switchrate as a period in nanoseconds: a drop lies at most so long before its message.
    pub switch_ns: u64,
    /// How many incarnations, and how many records, may be held at once; of events four times as many.
    pub capacity: usize,
}

impl Default for Config {
    /// Settle time: on an emulated 13.2 every NOTE_EXIT came with the first drain after proc:::exit; half a second is
    /// many times that. Capacity: more than there are pids.
    fn default() -> Self {
        Config {
            settle_ns: 500_000_000,
            reorder_ns: 200_000_000,
            switch_ns: 100_000_000,
            capacity: 1 << 17,
        }
    }
}

impl Config {
    /// The capacities that can be asked for.
    pub const CAPACITY: RangeInclusive<usize> = 1 << 10..=1 << 24;
}

/// Where a source puts its inputs. `Break` tells it to stop.
pub trait Sink {
    /// Takes the next input.
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()>;

    /// A source in real time has no input to push for now. It calls this again with the next one, and after the time that it
    /// gives back if none comes by then.
    fn idle(&mut self) -> Option<Duration> {
        None
    }
}

impl<F: FnMut(Input<'_>) -> ControlFlow<()>> Sink for F {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        self(input)
    }
}
