//! Blind windows: spans of DTrace's time in which a witness may have missed something.

use std::collections::VecDeque;

use super::stats::BlindReason;
use crate::model::KernelTime;

/// More windows than this are not kept apart: what came before the oldest one counts as blind.
const MAX_WINDOWS: usize = 256;

/// One witness's blind windows, as far back as any fact still asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blind {
    /// Disjoint, in order.
    windows: VecDeque<(KernelTime, KernelTime)>,
    /// The witness saw nothing before this.
    dawn: KernelTime,
    /// A window whose end is not known yet.
    open: Option<(KernelTime, BlindReason)>,
    /// For each reason since when something was missed of which nobody can say yet when it ended.
    unsure: [Option<KernelTime>; BlindReason::COUNT],
    /// The earliest of those.
    unsure_since: Option<KernelTime>,
    /// Something was missed and nobody knows when.
    everywhere: bool,
    /// Nanoseconds that the windows cover, by the reason that covered them first.
    pub(crate) ns: [u64; BlindReason::COUNT],
}

impl Blind {
    /// The witness saw nothing before `at`. Not counted: nobody was asked then.
    pub(crate) fn begins(&mut self, at: KernelTime) {
        self.dawn = at;
        self.unsure.iter_mut().flatten().for_each(|since| *since = at.max(*since));
        self.unsure_since = self.unsure_since.map(|since| at.max(since));
    }

    /// The witness may have missed something between `from` and `to`, both included.
    pub(crate) fn add(&mut self, from: KernelTime, to: KernelTime, reason: BlindReason) {
        let (mut from, mut to) = (from, to.max(from));
        let mut fresh = to.since(from).saturating_add(1);
        let mut at = self.windows.partition_point(|w| w.1 < from);
        while let Some(w) = self.windows.get(at).copied().filter(|w| w.0 <= to) {
            fresh -= overlap((from, to), w).min(fresh);
            (from, to) = (from.min(w.0), to.max(w.1));
            self.windows.remove(at);
        }
        self.windows.insert(at, (from, to));
        let ns = &mut self.ns[reason.index()];
        *ns = ns.saturating_add(fresh);
        while self.windows.len() > MAX_WINDOWS {
            at = 0;
            self.dawn = self.dawn.max(self.windows.remove(at).map_or(self.dawn, |w| w.1));
        }
    }

    /// The witness went away at `from`, until [`Blind::close`].
    pub(crate) fn open(&mut self, from: KernelTime, reason: BlindReason) {
        self.open.get_or_insert((from, reason));
    }

    /// The witness is back since `to`.
    #[inline]
    pub(crate) fn close(&mut self, to: KernelTime) {
        if let Some((from, reason)) = self.open.filter(|(from, _)| *from <= to) {
            self.open = None;
            self.add(from, to, reason);
        }
    }

    /// Something was missed after `since`, until [`Blind::sure`] for the same reason.
    pub(crate) fn unsure(&mut self, since: KernelTime, reason: BlindReason) {
        let (since, slot) = (since.max(self.dawn), &mut self.unsure[reason.index()]);
        *slot = Some(slot.map_or(since, |earlier| earlier.min(since)));
        self.unsure_since = self.unsure.iter().flatten().min().copied();
    }

    /// What was missed for this reason was missed before `to`.
    pub(crate) fn sure(&mut self, to: KernelTime, reason: BlindReason) {
        if let Some(from) = self.unsure[reason.index()].take() {
            self.unsure_since = self.unsure.iter().flatten().min().copied();
            self.add(from, to, reason);
        }
    }

    /// Something was missed and nobody can say when: nothing can be held against the other witness any more.
    pub(crate) fn everywhere(&mut self) {
        self.everywhere = true;
    }

    /// Counts the whole span as blind where something was missed at a time that nobody knows.
    pub(crate) fn finish(&mut self, first: KernelTime, last: KernelTime) {
        self.close(last);
        self.open = None;
        for reason in BlindReason::ALL {
            self.sure(last, *reason);
        }
        if self.everywhere {
            self.add(first, last, BlindReason::Drops);
        }
    }

    /// Whether the witness may have missed something at any time from `from` to `to`.
    pub(crate) fn overlaps(&self, from: KernelTime, to: KernelTime) -> bool {
        let reaches = |since: Option<KernelTime>| since.is_some_and(|since| to >= since);
        let open = self.open.map(|(since, _)| since);
        if self.everywhere || from < self.dawn || reaches(open) || reaches(self.unsure_since) {
            return true;
        }
        let at = self.windows.partition_point(|w| w.1 < from);
        self.windows.get(at).is_some_and(|w| w.0 <= to)
    }

    /// Whether the witness may be missing something at this moment.
    pub(crate) fn now(&self) -> bool {
        self.everywhere || self.open.is_some() || self.unsure_since.is_some()
    }
}

fn overlap(a: (KernelTime, KernelTime), b: (KernelTime, KernelTime)) -> u64 {
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
        let mut blind = Blind::default();
        blind.add(t(10), t(19), Drops);
        blind.add(t(30), t(39), Drops);
        blind.add(t(15), t(34), BadLine);
        assert_eq!(blind.windows, [(t(10), t(39))]);
        assert_eq!(blind.ns[Drops.index()], 20);
        assert_eq!(blind.ns[BadLine.index()], 10);
        assert!(blind.overlaps(t(39), t(50)) && blind.overlaps(t(0), t(10)));
        assert!(!blind.overlaps(t(40), t(50)) && !blind.overlaps(t(0), t(9)));
    }

    #[test]
    fn an_open_window_has_no_end_until_the_witness_is_back() {
        let mut blind = Blind::default();
        blind.begins(t(5));
        assert!(blind.overlaps(t(4), t(4)));
        blind.open(t(100), Outage);
        assert!(blind.overlaps(t(1000), t(2000)) && !blind.overlaps(t(6), t(99)) && blind.now());
        blind.close(t(199));
        assert!(!blind.overlaps(t(1000), t(2000)) && blind.overlaps(t(150), t(150)));
        assert_eq!(blind.ns[Outage.index()], 100);
    }

    #[test]
    fn each_reason_to_be_unsure_ends_on_its_own() {
        let mut blind = Blind::default();
        blind.unsure(t(100), BlindReason::Overflow);
        blind.unsure(t(50), Drops);
        assert!(blind.overlaps(t(50), t(50)) && !blind.overlaps(t(0), t(49)) && blind.now());
        blind.sure(t(60), Drops);
        assert!(blind.overlaps(t(100), t(200)) && !blind.overlaps(t(61), t(99)));
        blind.sure(t(120), BlindReason::Overflow);
        assert!(!blind.overlaps(t(121), t(200)) && !blind.now());
        assert_eq!((blind.ns[Drops.index()], blind.ns[BlindReason::Overflow.index()]), (11, 21));
    }

    #[test]
    fn what_is_forgotten_counts_as_blind() {
        let mut blind = Blind::default();
        for i in 0..1000 {
            blind.add(t(i * 10), t(i * 10 + 1), Drops);
        }
        assert_eq!(blind.windows.len(), MAX_WINDOWS);
        assert!(blind.overlaps(t(5), t(6)));
        assert!(!blind.overlaps(t(9995), t(9996)));
    }
}
