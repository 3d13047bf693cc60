//! Jumps of the clocks: what shows one, and what is not known any more after it. Up to where it may have happened, the order of
//! the two streams is not known, which is a [`Gap`](super::event::Gap).

use super::event::Span;
use super::{BlindReason, ClockMap, STEP_NS, Timeline};
use crate::check::judge::UNORDERED_NS;
use crate::model::{KernelTime, MonoTime};
use crate::wire::record::Mark;

impl Timeline {
    // --- what shows a jump ------------------------------------------------------------------------------------------

    /// Something of dtrace(1) was read at `read`. If the clock of the host that reads it has stepped back, the calls that wait may
    /// be of before or of after that.
    pub(super) fn notice_step_back(&mut self, read: MonoTime) {
        if read.is_known() && read.0.saturating_add(STEP_NS) < self.last_read.0 {
            self.forget_clock(self.last_marked(), self.newest());
            self.clock.stepped_back();
            self.passes.forget();
        }
        self.last_read = read;
    }

    /// A record that comes after the first one is stamped long before it: DTrace's clock has stepped back. What came before that
    /// stands among what comes now.
    pub(super) fn stepped_before_first(&mut self, at: KernelTime) {
        let newest = self.newest();
        if self.first.is_some_and(|first| at.plus(UNORDERED_NS) < first) && self.mixed < newest {
            self.mixed = newest;
            self.forget_clock(at, newest);
        }
    }

    /// The mark of a call that did not wait for it: the clocks were not where they were thought to be.
    pub(super) fn learn_from_late(&mut self, mark: &Mark) {
        if let Some(head) = self.calls.take_late(mark) {
            self.learn(head.before, head.after, mark.at);
        }
    }

    /// A call between these two clock readings returned at `at`.
    pub(super) fn learn(&mut self, before: MonoTime, after: MonoTime, at: KernelTime) {
        if self.clock.is_of_before(before, at) {
            return;
        }
        if !self.clock.marked(before, after, at) {
            // Records from before the jump and from after it may be mixed, up to the newest.
            let to = self.newest().max(at);
            self.jumped(self.marked.min(at), to);
        }
        self.compared_up_to = self.compared_up_to.max(Some(at));
    }

    // --- what is not known after it ---------------------------------------------------------------------------------

    /// DTrace's clock has jumped from one of these times to the other. The next marks say where it is now; until then no call
    /// is thought to have been passed.
    pub(super) fn forget_clock(&mut self, from: KernelTime, to: KernelTime) {
        self.clock = ClockMap::default();
        self.horizon = None;
        self.jumped(from, to);
    }

    /// The clocks are not where they seemed to be by when records were read. If marks come, they tell that better.
    pub(super) fn forget_clock_without_marks(&mut self) {
        if self.compared_up_to.is_none() {
            self.clock = ClockMap::default();
        }
    }

    /// DTrace's clock has jumped to `to`. What dtrace(1) reported last as dropped may have been dropped since then: it comes before
    /// the records of its pass.
    pub(super) fn jumped_forward(&mut self, from: KernelTime, to: KernelTime) {
        self.forget_clock(from, to);
        if let Some(read) = self.dropped {
            self.missing.drops = Some((read, to));
            self.dtrace_gap(BlindReason::Drops, Span::Since(to));
        }
    }

    /// Between these times the order of the two streams is not known, nor how long a note was waited for.
    pub(super) fn jumped(&mut self, from: KernelTime, to: KernelTime) {
        let from = from.minus(self.config.settle_ns);
        self.dtrace_gap(BlindReason::Clock, Span::Between(from, to));
    }
}
