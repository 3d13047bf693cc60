//! The reader's kevent(2) calls that wait for their marks, and which mark is whose.
//!
//! For each call the D program prints two `m` lines, one for the getpriority(2) right before it and one for that right after
//! it. `wire/records.rs` (`CallStarts::pair`) joins them into one [`Mark`], which has the times of both on DTrace's clock and
//! names the call by its number. In recordings of older versions the mark is one `M` line, which names the call by its
//! capacity: that differs among 1024 consecutive calls.

use std::collections::VecDeque;

use super::clock::ClockMap;
use super::event::Call;
use crate::input::{Attach, Batch};
use crate::model::{Kevent, MonoTime};
use crate::wire::record::Mark;

/// How far a mark may lie outside of its call's two clock readings before it must be another call's.
const SLACK_NS: u64 = 1_000_000;
/// After so many calls their capacities repeat.
const CAPACITIES: u64 = 1024;

/// A call without what it returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CallHead {
    pub(super) seq: u64,
    capacity: u32,
    pub(super) before: MonoTime,
    pub(super) after: MonoTime,
    attached: u32,
    events: u32,
    /// Registrations that failed: the call returned a receipt of each.
    failed: u32,
    pub(super) drained: bool,
    /// The reader's clock has stepped back since the call before, or during this one.
    stepped_back: bool,
}

impl CallHead {
    fn of(batch: &Batch<'_>, stepped_back: bool) -> CallHead {
        CallHead {
            seq: batch.seq,
            capacity: batch.capacity,
            before: batch.before,
            after: batch.after,
            attached: batch.attached.len() as u32,
            events: batch.events.len() as u32,
            failed: batch.attached.iter().filter(|attach| attach.errno != 0).count() as u32,
            drained: batch.drained(),
            stepped_back,
        }
    }
}

/// Which call a mark is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallOf {
    /// The first one that waits.
    First,
    /// A later one.
    Later,
    /// One that has not arrived yet.
    Ahead,
    /// One that did not wait for it, or was lost; or the mark is of another reader's.
    Gone,
}

#[derive(Debug, Default)]
pub(super) struct WaitingCalls {
    waiting: VecDeque<CallHead>,
    /// What these calls returned and registered, one call after the other.
    events: VecDeque<Kevent>,
    attached: VecDeque<Attach>,
    next_seq: u64,
    /// When the last call had returned, by the reader's clock.
    returned: MonoTime,
    /// One more than the number of the last call that was taken out.
    placed_seq: u64,
    /// The last calls that were taken out without their marks: no two with one capacity.
    unmarked: VecDeque<CallHead>,
}

impl WaitingCalls {
    /// Takes a call. `false` if its number is not a new one.
    pub(super) fn push(&mut self, batch: &Batch<'_>) -> bool {
        if batch.seq < self.next_seq {
            return false;
        }
        if self.next_seq == 0 {
            self.placed_seq = batch.seq;
        }
        self.next_seq = batch.seq.saturating_add(1);
        let stepped_back = batch.before < self.returned || batch.after < batch.before;
        self.returned = batch.after;
        self.waiting.push_back(CallHead::of(batch, stepped_back));
        self.events.extend(batch.events);
        self.attached.extend(batch.attached);
        true
    }

    /// The calls before `next_seq` that have not come are lost: their marks wait for nothing.
    pub(super) fn skip(&mut self, next_seq: u64) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// Whether the reader's clock has stepped back before the first call, so that what was known of it no longer holds. `true`
    /// once for each step.
    pub(super) fn take_step_back(&mut self) -> bool {
        self.waiting.front_mut().is_some_and(|head| std::mem::take(&mut head.stepped_back))
    }

    pub(super) fn first(&self) -> Option<&CallHead> {
        self.waiting.front()
    }

    /// How much room the waiting calls take, counted in events: as many as they have, or `least` for each call, whichever is
    /// more.
    pub(super) fn events_waiting(&self, least: usize) -> usize {
        self.events.len().max(self.waiting.len() * least)
    }

    /// Moves the first call, which has found its mark, into the empty `call`, all but its place.
    pub(super) fn move_marked(&mut self, call: &mut Call) -> Option<CallHead> {
        let head = self.waiting.pop_front()?;
        self.placed_seq = head.seq.saturating_add(1);
        (call.tracker, call.queue) = (0, Call::OWN_QUEUE);
        (call.seq, call.drained) = (head.seq, head.drained);
        call.registered.extend(self.attached.drain(..head.attached as usize));
        call.notes.extend(self.events.drain(..head.events as usize));
        Some(head)
    }

    /// Moves the first call, whose mark is missing, into the empty `call`, all but its place. Keeps its head, as the mark may
    /// still come too late.
    pub(super) fn move_unmarked(&mut self, call: &mut Call) -> Option<CallHead> {
        let head = self.move_marked(call)?;
        let again = |old: &CallHead| old.seq.saturating_add(CAPACITIES) <= head.seq;
        while self.unmarked.front().is_some_and(again) {
            self.unmarked.pop_front();
        }
        self.unmarked.push_back(head);
        Some(head)
    }

    /// Which call this mark is of: nearly always the first one. Capacities repeat after 1024 calls; then the clock tells them
    /// apart, and what was returned. If no call fits, it is the nearest call with this capacity, unless that was lost.
    pub(super) fn call_of(&self, mark: &Mark, clock: &ClockMap) -> CallOf {
        let named = |head: &CallHead| mark.is_of(head.seq, head.capacity);
        let fits = |head: &CallHead| {
            named(head)
                && mark
                    .returned
                    .is_none_or(|n| i64::from(head.events + head.failed) == i64::from(n))
                && clock.latest(head.after).is_none_or(|t| t.plus(SLACK_NS) >= mark.at)
                && clock.earliest(head.before).is_none_or(|t| t <= mark.at.plus(SLACK_NS))
        };
        let place = self.waiting.iter().position(fits).or_else(|| {
            let nearest = self.nearest(mark);
            self.waiting.iter().position(|head| named(head) && head.seq == nearest)
        });
        match place {
            Some(0) => CallOf::First,
            Some(_) => CallOf::Later,
            None if self.is_ahead(mark) => CallOf::Ahead,
            None => CallOf::Gone,
        }
    }

    /// Whether this mark names a call that has not arrived yet, rather than one that is gone.
    fn is_ahead(&self, mark: &Mark) -> bool {
        let ahead = self.next_seq == 0 || self.nearest(mark) >= self.next_seq;
        mark.capacity >= Batch::capacity_of(0) && ahead
    }

    /// The call of this mark among those that did not wait for theirs, if it is one of the latest.
    pub(super) fn take_late(&mut self, mark: &Mark) -> Option<CallHead> {
        let recent = self.placed_seq.saturating_sub(CAPACITIES);
        let named = |head: &CallHead| mark.is_of(head.seq, head.capacity) && head.seq >= recent;
        let place = self.unmarked.iter().position(named)?;
        // Marks come in order.
        self.unmarked.drain(..=place).next_back()
    }

    /// The call with this capacity that is nearest to the last one that has its place.
    fn nearest(&self, mark: &Mark) -> u64 {
        if let Some(seq) = mark.seq {
            let ahead = seq.wrapping_sub(self.placed_seq as u32) as i32;
            return self.placed_seq.saturating_add_signed(ahead.into());
        }
        let ahead = mark.capacity.wrapping_sub(Batch::capacity_of(self.placed_seq)) % 1024;
        let next = self.placed_seq.saturating_add(ahead.into());
        if ahead < 512 { next } else { next.saturating_sub(1024) }
    }
}
