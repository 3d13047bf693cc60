//! Detects jumps of the clocks: DTrace's, and that of the host that reads its output. Around a jump the order of the two
//! streams is not known: that time is reported as a [`Gap`](super::event::Gap), and what was known of the clocks is forgotten.

use super::event::Span;
use super::{BlindReason, ClockMap, STEP_NS, Timeline};
use crate::check::judge::UNORDERED_NS;
use crate::model::{KernelTime, MonoTime};
use crate::wire::record::Mark;

impl Timeline {
    // --- what shows a jump ------------------------------------------------------------------------------------------

    /// Something of dtrace(1) was read at `read`. If the clock of the host that reads it has stepped back, each waiting call
    /// may have been made before that or after it.
    pub(super) fn notice_step_back(&mut self, read: MonoTime) {
        if read.is_known() && read.0.saturating_add(STEP_NS) < self.last_read.0 {
            self.forget_clock(self.last_marked(), self.newest());
            self.clock.stepped_back();
            self.passes.forget();
        }
        self.last_read = read;
    }

    /// If a record is stamped long before the very first one, DTrace's clock has stepped back: the records from before that are
    /// mixed with those that come now.
    pub(super) fn notice_stamp_before_first(&mut self, at: KernelTime) {
        let newest = self.newest();
        if self.first.is_some_and(|first| at.plus(UNORDERED_NS) < first) && self.mixed < newest {
            self.mixed = newest;
            self.forget_clock(at, newest);
        }
    }

    /// Compares the clocks by the mark of a call that did not wait for it.
    pub(super) fn compare_clocks_by_late(&mut self, mark: &Mark) {
        if let Some(head) = self.calls.take_late(mark) {
            self.compare_clocks(head.before, head.after, mark.at);
        }
    }

    /// Compares the clocks by a call between these two readings of the reader's that returned at `at` by DTrace's. Reports a
    /// gap if one of them has jumped.
    pub(super) fn compare_clocks(&mut self, before: MonoTime, after: MonoTime, at: KernelTime) {
        if self.clock.is_of_before(before, at) {
            return;
        }
        if !self.clock.learn_from_mark(before, after, at) {
            // Records from before the jump and from after it may be mixed, up to the newest.
            let to = self.newest().max(at);
            self.report_clock_gap(self.place_of_last_marked.min(at), to);
        }
        self.compared_up_to = self.compared_up_to.max(Some(at));
    }

    // --- what is not known after it ---------------------------------------------------------------------------------

    /// A clock has jumped: forgets where the clocks stand, and reports a gap between these times. Until the next mark no call
    /// counts as passed.
    pub(super) fn forget_clock(&mut self, from: KernelTime, to: KernelTime) {
        self.clock = ClockMap::default();
        self.latest_plausible = None;
        self.report_clock_gap(from, to);
    }

    /// The wall clock has shown a jump: forgets where the clocks stand if that is known only from when records were read. If it
    /// is known from marks, the next mark shows a jump more precisely.
    pub(super) fn forget_clock_without_marks(&mut self) {
        if self.compared_up_to.is_none() {
            self.clock = ClockMap::default();
        }
    }

    /// DTrace's clock has jumped from `from` to `to`. What dtrace(1) reported last as dropped may have been dropped after the
    /// jump: its message is read from stderr, possibly before the records of its pass.
    pub(super) fn notice_jump_forward(&mut self, from: KernelTime, to: KernelTime) {
        self.forget_clock(from, to);
        if let Some(read) = self.dropped {
            self.missing.drops = Some((read, to));
            self.dtrace_gap(BlindReason::Drops, Span::Since(to));
        }
    }

    /// Reports a gap: between these times the order of the two streams is not known, nor how long a note was waited for.
    pub(super) fn report_clock_gap(&mut self, from: KernelTime, to: KernelTime) {
        let from = from.minus(self.config.settle_ns);
        self.dtrace_gap(BlindReason::Clock, Span::Between(from, to));
    }
}
