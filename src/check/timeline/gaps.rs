//! Reports when a witness may have missed something: a [`Gap`] as soon as its beginning is known. Gaps whose end is not known
//! yet wait in [`Missing`] for what ends them.

use super::calls::CallHead;
use super::event::{Gap, Next, Span};
use super::{BlindReason, Timeline};
use crate::model::{KernelTime, MonoTime, Witness};

/// The gaps whose end is not known yet.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// dtrace went away when the newest record was of this time. Ends with a record of this time or later.
    pub(super) outage: Option<KernelTime>,
    /// A line could not be decoded when the newest record was of this time. Ends with a record of this time or later.
    pub(super) line: Option<KernelTime>,
    /// When dtrace's message about drops was read. A mark tells what time that was on DTrace's clock, if it is not of before
    /// the second time: the origin, or where the clock has jumped to.
    pub(super) drops: Option<(MonoTime, KernelTime)>,
    /// Calls before this number were lost. Ends with the call of this number, or a later one.
    pub(super) calls: Option<u64>,
    /// Calls do not wait for their marks for want of room: the place of the first of them, and when the last had returned. Ends
    /// with a call that has its mark.
    pub(super) hurried: Option<(KernelTime, MonoTime)>,
}

impl Timeline {
    pub(super) fn gap(&mut self, witness: Witness, reason: BlindReason, span: Span) {
        self.out.push_back(Next::Gap(Gap { witness, reason, span }));
    }

    pub(super) fn dtrace_gap(&mut self, reason: BlindReason, span: Span) {
        self.gap(Witness::Dtrace, reason, span);
    }

    /// Ends the gaps that last until a call has its mark: `head` is that call, and `mark_at` is the time of its mark.
    pub(super) fn close_gaps(&mut self, head: &CallHead, mark_at: KernelTime) {
        if self.missing.calls.take_if(|next| head.seq >= *next).is_some() {
            self.gap(Witness::Kqueue, BlindReason::Overflow, Span::Until(mark_at));
        }
        if self.clock.is_of_before(head.before, mark_at) {
            return;
        }
        let drops = self.missing.drops.take_if(|(_, since)| *since <= mark_at);
        if let Some(to) = drops.and_then(|(read, _)| self.clock.latest(read)) {
            self.dtrace_gap(BlindReason::Drops, Span::Until(to));
        }
        if let Some((since, after)) = self.missing.hurried.take()
            && let lost @ Some(_) = self.clock.latest(after)
        {
            self.dtrace_gap(BlindReason::Overflow, Span::UntilDrained { since, lost });
        }
    }
}
