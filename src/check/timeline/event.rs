//! What the timeline hands on: the evidence of both witnesses in one order, on DTrace's clock.

use crate::check::stats::BlindReason;
use crate::input::Attach;
use crate::model::{KernelTime, Kevent, Pid, WaitStatus, Witness};

/// How far the timeline has come. An event is of this time, and what comes next is of this time, or later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) at: KernelTime,
    /// Up to here dtrace(1) has reported what it dropped.
    pub(crate) complete: KernelTime,
    /// DTrace's clock was compared with the reader's here: if it had jumped before that, a gap has said so.
    pub(crate) compared: KernelTime,
    /// DTrace's clock was compared with the wall clock here: if it had jumped before that, a gap has said so.
    pub(crate) ticked: KernelTime,
}

/// One event of the timeline. The stages after it do not see when something was read.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// Time has passed; nothing happened that is of interest here.
    Passed,
    /// proc:::create fired. `newest_stamp` is the greatest time stamp among this record and those printed before it. If it is later
    /// than `at`, a clock may have stepped back: only a call that began after it has surely begun after the fork.
    Create { at: KernelTime, newest_stamp: KernelTime, child: Pid, forker: Pid },
    /// proc:::exit fired.
    Exit { at: KernelTime, pid: Pid, status: WaitStatus },
    /// A kevent(2) call returned.
    Call(Call),
    /// A consumer has registered a knote, or changed one.
    Registration(Registration),
    /// This process is no longer the consumer of this tracker: it has ended, or another process has taken its place.
    ConsumerEnded { tracker: usize, consumer: Pid },
}

/// What the timeline hands on next.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Next {
    /// The next event in DTrace's order.
    Event(Event),
    /// A witness may have missed something. It comes as soon as it is known, out of order: it may be of any time.
    Gap(Gap),
}

/// A kevent(2) call at its place, with all that it returned.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Call {
    /// Whose call it is: 0 is the exporter's own reader, the others are consumers.
    pub tracker: usize,
    /// The descriptor of its kqueue, or `Call::OWN_QUEUE`, or `Call::UNKNOWN_QUEUE`.
    pub queue: i32,
    /// Its number: see [`crate::input::Batch::seq`]. The calls of consumers are counted by the timeline.
    pub seq: u64,
    /// When it returned; the latest possible time if its mark is missing.
    pub at: KernelTime,
    /// When it began, or earlier. `None` if its mark is missing: then nothing is known to be drained.
    pub entered: Option<KernelTime>,
    /// It took all there was: see `input::took_all`.
    pub drained: bool,
    /// What was registered by this call.
    pub registered: Vec<Attach>,
    /// What it returned, in the kernel's order.
    pub notes: Vec<Kevent>,
}

impl Call {
    /// Stands for the descriptor of the exporter's own kqueue.
    pub(crate) const OWN_QUEUE: i32 = -1;
    /// DTrace has not seen how the call began, so its arguments are not known.
    pub(crate) const UNKNOWN_QUEUE: i32 = i32::MIN;
}

/// A change of a consumer's changelist.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Registration {
    pub(crate) tracker: usize,
    /// The descriptor of the kqueue, and its address in the kernel: another address is another kqueue.
    pub(crate) queue: i32,
    pub(crate) kqueue: u64,
    pub(crate) entered: KernelTime,
    pub(crate) at: KernelTime,
    /// The process to be watched; `None` for other filters.
    pub(crate) pid: Option<Pid>,
    /// EV_* bits.
    pub(crate) flags: u32,
    /// NOTE_* bits: what is asked for.
    pub(crate) notes: u32,
    /// 0, or why it was refused.
    pub(crate) errno: i32,
}

impl Registration {
    /// Whether it carries any of these EV_* bits.
    pub(crate) fn has(&self, bits: u32) -> bool {
        self.flags & bits != 0
    }
}

/// A time in which a witness may have missed something.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Gap {
    pub(crate) witness: Witness,
    pub(crate) reason: BlindReason,
    pub(crate) span: Span,
}

/// When something may have been missed. Both ends are included.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Span {
    /// Before the witness was there. Not counted as blind time.
    Before(KernelTime),
    Between(KernelTime, KernelTime),
    /// From then on, until [`Span::Until`] comes for the same reason.
    Since(KernelTime),
    Until(KernelTime),
    /// From `since` on, until all notes of what happened up to `lost` have been delivered; `None` as long as that is not known.
    UntilDrained {
        since: KernelTime,
        lost: Option<KernelTime>,
    },
    /// At a time that is not known.
    Anywhere,
}
