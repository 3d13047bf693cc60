//! Stage 2: the blind windows of both witnesses, in which they may have missed something. The only owner of blindness: every
//! gap comes here, and every question whether evidence may be missing is answered here.

mod pids;
mod windows;

use super::stats::{BlindReason, Stats};
use super::timeline::event::{Gap, Span};
use crate::model::{KernelTime, Pid, Witness};
use pids::Rounds;
use windows::Windows;

/// The blind windows of both witnesses.
#[derive(Debug)]
pub(crate) struct Sight {
    dtrace: Windows,
    kqueue: Windows,
    rounds: Rounds,
    settle_ns: u64,
    /// For each kqueue: up to when something was given up whose notes it may still deliver.
    undelivered: Vec<Option<KernelTime>>,
}

impl Sight {
    pub(crate) fn new(settle_ns: u64) -> Sight {
        let (dtrace, kqueue) = (Windows::default(), Windows::default());
        let rounds = Rounds::default();
        Sight { dtrace, kqueue, rounds, settle_ns, undelivered: vec![] }
    }

    /// DTrace has shown, in order, that a process was created.
    pub(crate) fn created(&mut self, at: KernelTime, child: Pid) {
        self.rounds.created(at, child);
    }

    /// Whether DTrace may have missed, between `from` and `to`, the end of a process and the next life of its pid.
    pub(crate) fn missed_a_life(&self, from: KernelTime, to: KernelTime) -> bool {
        self.dtrace.overlap(from, to) && self.rounds.overlap(from, to)
    }

    /// Whether a pid that was in use at `from` may have been another process at `to`.
    pub(crate) fn pids_returned(&self, from: KernelTime, to: KernelTime) -> bool {
        self.rounds.overlap(from, to)
    }

    /// The same, or DTrace may have missed that.
    pub(crate) fn may_be_reused(&self, from: KernelTime, to: KernelTime) -> bool {
        self.pids_returned(from, to) || self.dtrace.overlap(from, to)
    }

    /// Whether this witness may have missed something between `from` and `to`.
    pub(crate) fn missed(&self, witness: Witness, from: KernelTime, to: KernelTime) -> bool {
        match witness {
            Witness::Dtrace => self.dtrace.overlap(from, to),
            Witness::Kqueue => self.kqueue.overlap(from, to),
        }
    }

    /// Takes in a gap.
    pub(crate) fn gap(&mut self, gap: Gap) {
        let Gap { witness, reason, span } = gap;
        let windows = match witness {
            Witness::Dtrace => &mut self.dtrace,
            Witness::Kqueue => &mut self.kqueue,
        };
        match span {
            Span::Before(at) => windows.begin(at),
            // What sysctl counted and DTrace did not show is news only if nothing else explains it.
            Span::Between(from, to)
                if reason == BlindReason::Reconcile && windows.overlap(from, to) => {}
            Span::Between(from, to) => windows.add(from, to, reason),
            Span::Since(since) => windows.open(since, reason),
            Span::Until(to) => windows.close(to, reason),
            Span::UntilDrained { since, lost } => self.given_up(0, since, lost),
            Span::Anywhere => windows.anywhere(),
        }
    }

    /// Something of `since` was given up for want of room, at `now`. Its notes may still come from this kqueue, and would be
    /// taken for those of another life of its pid.
    pub(crate) fn given_up(&mut self, kqueue: usize, since: KernelTime, now: KernelTime) {
        self.dtrace.open(since, BlindReason::Overflow);
        if self.undelivered.len() <= kqueue {
            self.undelivered.resize(kqueue + 1, None);
        }
        let lost = &mut self.undelivered[kqueue];
        *lost = (*lost).max(Some(now));
    }

    /// This kqueue was drained by a call that began at `entered`: every note of the settle time before has been delivered.
    pub(crate) fn drained(&mut self, kqueue: usize, entered: KernelTime) {
        let settle_ns = self.settle_ns;
        let lost = self.undelivered.get_mut(kqueue);
        let delivered =
            lost.and_then(|lost| lost.take_if(|lost| lost.plus(settle_ns) <= entered)).is_some();
        if delivered && self.undelivered.iter().all(Option::is_none) {
            self.dtrace.close(entered, BlindReason::Overflow);
        }
    }

    /// The input has ended: closes what is open, for the counts. DTrace's records are of `first` to `last`.
    pub(crate) fn finish(&mut self, first: KernelTime, last: KernelTime) {
        self.dtrace.finish(first, last);
    }

    /// Brings the counts of blind time up to date.
    pub(crate) fn publish(&self, stats: &mut Stats) {
        stats.dtrace_blind_ns = self.dtrace.ns;
        stats.kqueue_blind_ns = self.kqueue.ns;
        stats.dtrace_blind_now = self.dtrace.is_open();
    }
}
