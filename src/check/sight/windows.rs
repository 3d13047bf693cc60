//! The blind windows of one witness: spans of DTrace's time in which it may have missed something.

use std::collections::VecDeque;

use crate::check::stats::BlindReason;
use crate::model::KernelTime;

/// More windows than this are not kept apart: all before the oldest one counts as blind.
const MAX_WINDOWS: usize = 256;

#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    /// Disjoint, in order.
    windows: VecDeque<(KernelTime, KernelTime)>,
    /// Everything before this counts as blind: the witness was not there yet, or its windows of that time are not kept apart.
    blind_before: KernelTime,
    /// For each reason the beginning of the window whose end is not known yet.
    open: [Option<KernelTime>; BlindReason::COUNT],
    /// The earliest of those.
    open_since: Option<KernelTime>,
    /// Something was missed at a time that is not known.
    anywhere: bool,
    /// Nanoseconds that the windows cover, by the reason that covered them first.
    pub(super) ns: [u64; BlindReason::COUNT],
}

impl Windows {
    /// The witness saw nothing before `at`. Not counted: nothing was asked of it then.
    pub(super) fn begin(&mut self, at: KernelTime) {
        self.blind_before = at;
        self.cut_open(at);
    }

    /// What is open counts from `at` on at the earliest.
    pub(super) fn cut_open(&mut self, at: KernelTime) {
        self.open.iter_mut().flatten().for_each(|since| *since = at.max(*since));
        self.open_since = self.open_since.map(|since| at.max(since));
    }

    /// The witness may have missed something between `from` and `to`, both included.
    pub(super) fn add(&mut self, from: KernelTime, to: KernelTime, reason: BlindReason) {
        let (mut from, mut to) = (from, to.max(from));
        let mut fresh = to.since(from).saturating_add(1);
        let at = self.windows.partition_point(|w| w.1 < from);
        while let Some(w) = self.windows.get(at).copied().filter(|w| w.0 <= to) {
            fresh -= common((from, to), w).min(fresh);
            (from, to) = (from.min(w.0), to.max(w.1));
            self.windows.remove(at);
        }
        self.windows.insert(at, (from, to));
        let ns = &mut self.ns[reason.index()];
        *ns = ns.saturating_add(fresh);
        while self.windows.len() > MAX_WINDOWS
            && let Some((_, end)) = self.windows.pop_front()
        {
            self.blind_before = self.blind_before.max(end);
        }
    }

    /// Something is missed from `since` on, until [`Windows::close`] for the same reason.
    pub(super) fn open(&mut self, since: KernelTime, reason: BlindReason) {
        let (since, slot) = (since.max(self.blind_before), &mut self.open[reason.index()]);
        *slot = Some(slot.map_or(since, |earlier| earlier.min(since)));
        self.open_since = self.open.iter().flatten().min().copied();
    }

    /// What was missed for this reason was missed before `to`.
    pub(super) fn close(&mut self, to: KernelTime, reason: BlindReason) {
        if let Some(from) = self.open[reason.index()].take() {
            self.open_since = self.open.iter().flatten().min().copied();
            self.add(from, to, reason);
        }
    }

    /// Something was missed at a time that is not known: nothing can be held against the other witness any more.
    pub(super) fn anywhere(&mut self) {
        self.anywhere = true;
    }

    /// Closes what is open. Counts everything from `first` to `last` as blind if something was missed at a time that is not
    /// known.
    pub(super) fn finish(&mut self, first: KernelTime, last: KernelTime) {
        for reason in BlindReason::ALL {
            let since = self.open[reason.index()];
            if since.is_some_and(|since| since <= last || *reason != BlindReason::Outage) {
                self.close(last, *reason);
            }
        }
        (self.open, self.open_since) = ([None; BlindReason::COUNT], None);
        if self.anywhere {
            self.add(first, last, BlindReason::Drops);
        }
    }

    /// Whether the witness may have missed something between `from` and `to`, both included.
    pub(super) fn overlap(&self, from: KernelTime, to: KernelTime) -> bool {
        if self.anywhere
            || from < self.blind_before
            || self.open_since.is_some_and(|since| to >= since)
        {
            return true;
        }
        let at = self.windows.partition_point(|w| w.1 < from);
        self.windows.get(at).is_some_and(|w| w.0 <= to)
    }

    /// Whether the witness may be missing something at this moment.
    pub(super) fn is_open(&self) -> bool {
        self.anywhere || self.open_since.is_some()
    }
}

/// How many nanoseconds two spans have in common.
fn common(a: (KernelTime, KernelTime), b: (KernelTime, KernelTime)) -> u64 {
    let (from, to) = (a.0.max(b.0), a.1.min(b.1));
    if from > to { 0 } else { to.since(from).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BlindReason::{BadLine, Drops, Outage};

    fn t(ns: u64) -> KernelTime {
        KernelTime(ns)
    }

    #[test]
    fn windows_merge_and_count_each_nanosecond_once() {
        let mut windows = Windows::default();
        windows.add(t(10), t(19), Drops);
        windows.add(t(30), t(39), Drops);
        windows.add(t(15), t(34), BadLine);
        assert_eq!(windows.windows, [(t(10), t(39))]);
        assert_eq!(windows.ns[Drops.index()], 20);
        assert_eq!(windows.ns[BadLine.index()], 10);
        assert!(windows.overlap(t(39), t(50)) && windows.overlap(t(0), t(10)));
        assert!(!windows.overlap(t(40), t(50)) && !windows.overlap(t(0), t(9)));
    }

    #[test]
    fn an_open_window_has_no_end_until_the_witness_is_back() {
        let mut windows = Windows::default();
        windows.begin(t(5));
        assert!(windows.overlap(t(4), t(4)));
        windows.open(t(100), Outage);
        assert!(
            windows.overlap(t(1000), t(2000)) && !windows.overlap(t(6), t(99)) && windows.is_open()
        );
        windows.close(t(199), Outage);
        assert!(!windows.overlap(t(1000), t(2000)) && windows.overlap(t(150), t(150)));
        assert_eq!(windows.ns[Outage.index()], 100);
    }

    #[test]
    fn each_reason_ends_on_its_own() {
        let mut windows = Windows::default();
        windows.open(t(100), BlindReason::Overflow);
        windows.open(t(50), Drops);
        assert!(
            windows.overlap(t(50), t(50)) && !windows.overlap(t(0), t(49)) && windows.is_open()
        );
        windows.close(t(60), Drops);
        assert!(windows.overlap(t(100), t(200)) && !windows.overlap(t(61), t(99)));
        windows.close(t(120), BlindReason::Overflow);
        assert!(!windows.overlap(t(121), t(200)) && !windows.is_open());
        assert_eq!(
            (windows.ns[Drops.index()], windows.ns[BlindReason::Overflow.index()]),
            (11, 21)
        );
    }

    #[test]
    fn what_is_forgotten_counts_as_blind() {
        let mut windows = Windows::default();
        for i in 0..1000 {
            windows.add(t(i * 10), t(i * 10 + 1), Drops);
        }
        assert_eq!(windows.windows.len(), MAX_WINDOWS);
        assert!(windows.overlap(t(5), t(6)));
        assert!(!windows.overlap(t(9995), t(9996)));
    }
}
