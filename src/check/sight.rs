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
    /// For each tracker: up to when something was given up whose notes its kqueues may still deliver.
    undelivered: Vec<Option<KernelTime>>,
    /// Calls of the mirror have places earlier than those of older records; up to when is not known yet.
    is_overtaken: bool,
}

impl Sight {
    pub(crate) fn new(settle_ns: u64) -> Sight {
        let (dtrace, kqueue) = (Windows::default(), Windows::default());
        let rounds = Rounds::default();
        Sight { dtrace, kqueue, rounds, settle_ns, undelivered: vec![], is_overtaken: false }
    }

    /// DTrace has shown, in order, that a process was created.
    pub(crate) fn created(&mut self, at: KernelTime, child: Pid) {
        self.rounds.created(at, child);
    }

    // Whether a pid may be another process's at `to` than at `from`. With `round` for "DTrace showed that the kernel began a
    // new round of pids" and `blind` for "DTrace may have missed something", both between the two times:
    //
    // | question                   | answer             |
    // |----------------------------|--------------------|
    // | `pids_came_round`          | `round`            |
    // | `pids_came_round_unseen`   | `round && blind`   |
    // | `pids_may_have_come_round` | `round || blind`   |

    /// Whether pids came round between `from` and `to`.
    pub(crate) fn pids_came_round(&self, from: KernelTime, to: KernelTime) -> bool {
        self.rounds.overlap(from, to)
    }

    /// Whether pids came round, and DTrace may have missed the end of a process and the next life of its pid.
    pub(crate) fn pids_came_round_unseen(&self, from: KernelTime, to: KernelTime) -> bool {
        self.dtrace.overlap(from, to) && self.rounds.overlap(from, to)
    }

    /// Whether pids came round, or DTrace may have missed that.
    pub(crate) fn pids_may_have_come_round(&self, from: KernelTime, to: KernelTime) -> bool {
        self.dtrace.overlap(from, to) || self.rounds.overlap(from, to)
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
            Span::Before(at) => {
                windows.begin(at);
                // What kqueue lacks of the time before is not looked for either.
                self.kqueue.cut_open(at);
            }
            // What sysctl counted and DTrace did not show is news only if nothing else explains it.
            Span::Between(from, to)
                if reason == BlindReason::Reconcile && windows.overlap(from, to) => {}
            Span::Between(from, to) => windows.add(from, to, reason),
            Span::Since(since) => windows.open(since, reason),
            Span::Until(to) => windows.close(to, reason),
            Span::UntilDrained { since, lost } => {
                self.is_overtaken = lost.is_none();
                match lost {
                    Some(lost) => self.given_up(0, since, lost),
                    None => self.dtrace.open(since, reason),
                }
            }
            Span::Anywhere => windows.anywhere(),
        }
    }

    /// Something of `since` was given up for want of room, at `now`. Its notes may still come from this tracker's kqueues, and
    /// would be taken for those of another life of its pid.
    pub(crate) fn given_up(&mut self, tracker: usize, since: KernelTime, now: KernelTime) {
        self.dtrace.open(since, BlindReason::Overflow);
        if self.undelivered.len() <= tracker {
            self.undelivered.resize(tracker + 1, None);
        }
        let lost = &mut self.undelivered[tracker];
        *lost = (*lost).max(Some(now));
    }

    /// This tracker's kqueues were drained by a call that began at `entered`: every note of what happened the settle time
    /// before that, or earlier, has been delivered.
    pub(crate) fn drained(&mut self, tracker: usize, entered: KernelTime) {
        let settle_ns = self.settle_ns;
        self.end_given_up(tracker, entered, |lost| lost.plus(settle_ns) <= entered);
    }

    /// This tracker's kqueues are gone at `now`: they will deliver nothing of what was given up.
    pub(crate) fn gone(&mut self, tracker: usize, now: KernelTime) {
        self.end_given_up(tracker, now, |_| true);
    }

    /// Closes the window of what was given up at `to`, if all that this tracker has given up is over, and nothing of another
    /// tracker's is left.
    fn end_given_up(
        &mut self,
        tracker: usize,
        to: KernelTime,
        is_over: impl Fn(KernelTime) -> bool,
    ) {
        let given_up = self.undelivered.get_mut(tracker);
        let ends = given_up.and_then(|lost| lost.take_if(|lost| is_over(*lost))).is_some();
        if ends && !self.is_overtaken && self.undelivered.iter().all(Option::is_none) {
            self.dtrace.close(to, BlindReason::Overflow);
        }
    }

    /// The input has ended: closes what is open, for the counts. DTrace's records are of `first` to `last`.
    pub(crate) fn finish(&mut self, first: KernelTime, last: KernelTime) {
        self.dtrace.finish(first, last);
        self.kqueue.finish(first, last);
    }

    /// Brings the counts of blind time up to date.
    pub(crate) fn publish(&self, stats: &mut Stats) {
        stats.dtrace_blind_ns = self.dtrace.ns;
        stats.kqueue_blind_ns = self.kqueue.ns;
        stats.dtrace_blind_now = self.dtrace.is_open();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE_NS: u64 = 500;

    fn t(ns: u64) -> KernelTime {
        KernelTime(ns)
    }

    fn gap(sight: &mut Sight, span: Span) {
        sight.gap(Gap { witness: Witness::Dtrace, reason: BlindReason::Overflow, span });
    }

    /// Calls that do not wait for their marks have places earlier than those of older records, until a call has its
    /// mark.
    #[test]
    fn a_drain_of_a_consumer_does_not_end_what_calls_without_marks_began() {
        let mut sight = Sight::new(SETTLE_NS);
        gap(&mut sight, Span::UntilDrained { since: t(1000), lost: None });
        sight.given_up(1, t(900), t(1100));
        sight.drained(1, t(2000));
        assert!(sight.missed(Witness::Dtrace, t(2001), t(2002)));
        gap(&mut sight, Span::UntilDrained { since: t(1000), lost: Some(t(3000)) });
        sight.drained(0, t(3000 + SETTLE_NS - 1));
        assert!(sight.missed(Witness::Dtrace, t(3600), t(3600)));
        sight.drained(0, t(3000 + SETTLE_NS));
        assert!(!sight.missed(Witness::Dtrace, t(3600), t(3600)));
    }
}
