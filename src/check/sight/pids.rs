//! When the kernel began a new round of pids. It gives them out in turn and begins again after the highest (13.2
//! `kern_fork.c`, `fork_findpid`), so a pid comes back only after that: two records of one pid without a new round
//! between them are about one process.

use std::collections::VecDeque;

use crate::check::latest::keep_latest;
use crate::model::{KernelTime, Pid};

/// Threads that fork at the same time report their children in any order: a pid that is lower by less is of the same round.
const IN_FLIGHT: u32 = 32;
/// More rounds than these are not remembered: with so many, pids always come back.
const KEPT: usize = 64;
/// A round whose first pids DTrace missed may have begun so long after the one before it.
const SHORTEST_NS: u64 = 1_000_000_000;

/// When rounds began.
#[derive(Debug)]
pub(super) struct Rounds {
    /// The last process that was seen.
    last: Option<(KernelTime, Pid)>,
    /// Between which two processes each of the latest rounds began.
    began: VecDeque<(KernelTime, KernelTime)>,
}

impl Default for Rounds {
    fn default() -> Rounds {
        Rounds { last: None, began: VecDeque::with_capacity(KEPT + 1) }
    }
}

impl Rounds {
    pub(super) fn created(&mut self, at: KernelTime, child: Pid) {
        if let Some((before, last)) = self.last.replace((at, child))
            && child.get().saturating_add(IN_FLIGHT) < last.get()
        {
            keep_latest(&mut self.began, KEPT, (before, at));
        }
    }

    /// Whether a pid may have come back between `from` and `to`.
    pub(super) fn overlap(&self, from: KernelTime, to: KernelTime) -> bool {
        let from = from.minus(SHORTEST_NS);
        self.began.iter().any(|(before, at)| *before <= to && from <= *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_begins_when_pids_fall_by_more_than_forks_at_the_same_time_explain() {
        let mut rounds = Rounds::default();
        for (ms, number) in [(1000, 290), (1010, 292), (1020, 291), (1030, 299), (3000, 101)] {
            rounds.created(KernelTime(ms * 1_000_000), Pid::new(number).expect("a pid"));
        }
        let overlap = |from: u64, to: u64| {
            rounds.overlap(KernelTime(from * 1_000_000), KernelTime(to * 1_000_000))
        };
        assert!(!overlap(0, 1029), "1030 is the last before it");
        assert!(overlap(1030, 1031) && overlap(2999, 3001));
        assert!(overlap(3999, 5000) && !overlap(4001, 5000), "a second later it is over");
    }
}
