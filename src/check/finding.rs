//! What the cross-checker says, fact by fact.

use serde::Serialize;

use crate::model::{Fact, KernelTime, Kevent, Pid, TreeId, Verdict, WaitStatus};

/// One fact with its verdict and both witnesses' words: the evidence.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Finding {
    /// The tree that the process belongs to.
    pub tree: TreeId,
    /// The process. With [`DtraceSaid::created`] it names the incarnation.
    pub pid: Pid,
    /// Which of its two facts.
    pub fact: Fact,
    /// What became of the fact.
    pub verdict: Verdict,
    /// What DTrace said of this incarnation.
    pub dtrace: DtraceSaid,
    /// What kqueue said of this incarnation.
    pub kqueue: KqueueSaid,
    /// Where the input had got to, on DTrace's clock, when the verdict fell.
    pub decided: KernelTime,
}

/// DTrace's words about one incarnation; `None` where it said nothing (yet).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DtraceSaid {
    /// proc:::create fired.
    pub created: Option<KernelTime>,
    /// Who forked it.
    pub forker: Option<Pid>,
    /// proc:::exit fired.
    pub exited: Option<KernelTime>,
    /// Its wait(2) status.
    pub status: Option<WaitStatus>,
}

/// kqueue's words about one incarnation; `None` where it said nothing (yet).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct KqueueSaid {
    /// The kevent with NOTE_CHILD, and when it was delivered.
    pub child: Option<Delivered>,
    /// The kevent with NOTE_EXIT, and when it was delivered.
    pub exit: Option<Delivered>,
    /// The forker's knote carried NOTE_TRACKERR when this process should have been announced.
    pub trackerr: bool,
}

/// A kevent and the batch that delivered it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Delivered {
    /// The event.
    pub event: Kevent,
    /// The kevent(2) call.
    pub batch: u64,
    /// When that call returned, on DTrace's clock (estimated where its mark is missing).
    pub at: KernelTime,
}

/// Who wants to hear every finding as it falls. The checker calls it and never waits for it.
pub trait Observer {
    /// A fact got its verdict: once for each fact.
    fn finding(&mut self, finding: &Finding);
}

/// For whoever needs the counters alone.
impl Observer for () {
    fn finding(&mut self, _: &Finding) {}
}

impl<T: Observer, U: Observer> Observer for (T, U) {
    fn finding(&mut self, finding: &Finding) {
        self.0.finding(finding);
        self.1.finding(finding);
    }
}

impl Observer for Vec<Finding> {
    fn finding(&mut self, finding: &Finding) {
        self.push(*finding);
    }
}
