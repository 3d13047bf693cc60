//! The clock map: the reading host's monotonic clock on DTrace's time line.
//!
//! Both count the same nanoseconds from different origins (kernel-side: amd64 rdtsc; measured on 13.2 and 15.1 as one
//! constant offset). Each marked batch brackets that offset: the call returned between the reader's two clock readings.

use crate::model::{KernelTime, MonoTime};

/// Bounds of `mono - kernel`, in nanoseconds, from the marks seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClockMap {
    bounds: Option<Bounds>,
    /// The reading host's clock has stepped back while dtrace's output was read, and no call was marked since: the most that
    /// it can be ahead of DTrace's by now.
    stepped_back: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    low: i64,
    high: i64,
    at: KernelTime,
    /// They are from a mark, and not only from when a record was read.
    from_mark: bool,
}

impl Bounds {
    /// The latest that `mono` can be on DTrace's clock.
    fn latest(&self, mono: MonoTime) -> KernelTime {
        KernelTime(mono.0.saturating_add_signed(self.low.saturating_neg()))
    }

    /// How far the clocks may have drifted apart between the mark that these bounds are of and `at`, in nanoseconds.
    fn drift(&self, at: KernelTime) -> i64 {
        (at.distance(self.at) >> DRIFT_SHIFT) as i64
    }
}

/// How fast the clocks may drift apart: 1/4096, about 244 ppm.
const DRIFT_SHIFT: u32 = 12;
/// A record cannot be read before it happened, and dtrace hands it over within this time unless it hangs.
const READ_DELAY_NS: i64 = 5_000_000_000;
/// Without marks, the bounds are renewed by the first record this much later.
const RENEWED_NS: u64 = 1_000_000_000;

/// A clock that jumps by less than this does no harm.
pub(super) const STEP_NS: u64 = 20_000_000;

impl ClockMap {
    /// Narrows the bounds by a mark: a call between these two readings of the clock returned at `at`. `false` if a clock has
    /// jumped since the last mark.
    pub(crate) fn learn_from_mark(
        &mut self,
        before: MonoTime,
        after: MonoTime,
        at: KernelTime,
    ) -> bool {
        let (low, high) = (diff(before, at), diff(after, at));
        self.stepped_back = None;
        if low > high {
            // It has stepped back during the call.
            self.bounds = None;
            return false;
        }
        let fits = self.bounds.filter(|old| old.from_mark).is_none_or(|old| {
            let off = STEP_NS as i64 + old.drift(at);
            low <= old.high.saturating_add(off) && high >= old.low.saturating_sub(off)
        });
        self.narrow(Bounds { low, high, at, from_mark: true });
        fits
    }

    /// A record of time `at` was read at `read`. Counts only as long as there was no mark. The bounds move as fast as clocks
    /// may drift apart, and no faster: a stream may be read at any pace, so what is read later says nothing about the clocks.
    pub(crate) fn record_read(&mut self, at: KernelTime, read: MonoTime) {
        if !read.is_known() {
            return;
        }
        if let Some(most) = &mut self.stepped_back {
            *most = diff(read, at).min(*most);
        }
        let is_due = |old: Bounds| !old.from_mark && at.distance(old.at) >= RENEWED_NS;
        if !self.bounds.is_none_or(is_due) {
            return;
        }
        let seen = diff(read, at);
        let high = self.bounds.map_or(seen, |old| {
            let drift = old.drift(at);
            seen.clamp(old.high.saturating_sub(drift), old.high.saturating_add(drift))
        });
        let low = high.saturating_sub(READ_DELAY_NS);
        self.bounds = Some(Bounds { low, high, at, from_mark: false });
    }

    /// The reading host's clock has stepped back: what was known of it no longer holds.
    pub(crate) fn stepped_back(&mut self) {
        *self = ClockMap { bounds: None, stepped_back: Some(i64::MAX) };
    }

    /// Whether a call that began at this reading, and returned at `at`, was made before the clock stepped back: after that the
    /// records that were read would have been read before they happened.
    pub(crate) fn is_of_before(&self, before: MonoTime, at: KernelTime) -> bool {
        let most = self.stepped_back.map(|most| most.saturating_add(STEP_NS as i64));
        most.is_some_and(|most| diff(before, at) > most)
    }

    fn narrow(&mut self, new: Bounds) {
        let merged = self.bounds.map(|old| {
            let drift = old.drift(new.at);
            let low = new.low.max(old.low.saturating_sub(drift));
            let high = new.high.min(old.high.saturating_add(drift));
            Bounds { low, high, ..new }
        });
        // Bounds that contradict each other mean that a clock was set anew: believe the latest.
        self.bounds = Some(merged.filter(|b| b.low <= b.high).unwrap_or(new));
    }

    /// The latest time stamp that a record can have that was read at `read`: a later one lies in the future. `None` as long as
    /// no mark has come.
    pub(crate) fn latest_plausible(&self, read: MonoTime) -> Option<KernelTime> {
        let bounds = self.bounds.filter(|bounds| bounds.from_mark && read.is_known())?;
        let latest = bounds.latest(read);
        Some(latest.plus(STEP_NS + bounds.drift(latest) as u64))
    }

    /// The latest that `mono` can be on DTrace's clock. `None` as long as nothing is known.
    pub(crate) fn latest(&self, mono: MonoTime) -> Option<KernelTime> {
        self.bounds.map(|bounds| bounds.latest(mono))
    }

    /// The earliest that `mono` can be on DTrace's clock. `None` as long as nothing is known.
    pub(crate) fn earliest(&self, mono: MonoTime) -> Option<KernelTime> {
        self.bounds.map(|b| KernelTime(mono.0.saturating_add_signed(b.high.saturating_neg())))
    }
}

fn diff(mono: MonoTime, kernel: KernelTime) -> i64 {
    (mono.0 as i64).wrapping_sub(kernel.0 as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_narrow_and_a_contradiction_starts_anew() {
        let mut map = ClockMap::default();
        let mut marked = |before, after, at| {
            map.learn_from_mark(MonoTime(before), MonoTime(after), KernelTime(at));
            map
        };
        assert_eq!(ClockMap::default().latest(MonoTime(5)), None);
        assert_eq!(marked(1000, 1100, 500).latest(MonoTime(2000)), Some(KernelTime(1500)));
        let map = marked(1250, 1900, 700);
        assert_eq!(map.latest(MonoTime(2000)), Some(KernelTime(1450)));
        assert_eq!(map.earliest(MonoTime(2000)), Some(KernelTime(1400)));
        assert_eq!(marked(9000, 9010, 800).latest(MonoTime(9000)), Some(KernelTime(800)));
    }

    /// Streams without marks: bounds of the last record that is read, after `ticks` of 5 s each by the reader's clock.
    fn after(ticks: u64, read_ns: impl Fn(u64) -> u64, kernel_ns: impl Fn(u64) -> u64) -> [u64; 2] {
        let mut map = ClockMap::default();
        for tick in 0..=ticks {
            map.record_read(KernelTime(kernel_ns(tick)), MonoTime(read_ns(tick)));
        }
        let bounds = [map.earliest(MonoTime(read_ns(ticks))), map.latest(MonoTime(read_ns(ticks)))];
        bounds.map(|at| at.map_or(0, |at| at.0))
    }

    #[test]
    fn clocks_that_drift_apart_for_a_day_are_followed() {
        const DAY: u64 = 24 * 720;
        let right = |tick: u64| 1_000_000_000_000 + tick * 5_000_000_000;
        let fast = |tick: u64| right(tick) + tick * 500_000;
        let slow = |tick: u64| right(tick) - tick * 500_000;
        for kernel in [&fast as &dyn Fn(u64) -> u64, &slow] {
            let [earliest, latest] = after(DAY, |tick| right(tick) + 100_000_000, kernel);
            let at = kernel(DAY);
            assert!(earliest <= at && at <= latest, "{earliest} {at} {latest}");
            assert!(at - earliest <= 200_000_000, "{}", at - earliest);
        }
    }

    #[test]
    fn a_stream_that_is_read_faster_than_it_was_printed_does_not_move_the_clock() {
        let [_, latest] = after(720, |tick| 1_000_000_000 + tick, |tick| 1 + tick * 5_000_000_000);
        assert!(latest < 10_000_000_000, "{latest}");
    }

    #[test]
    fn a_call_of_before_the_clock_stepped_back_is_known_by_what_was_read_since() {
        let (mut map, second) = (ClockMap::default(), 1_000_000_000);
        map.learn_from_mark(MonoTime(9 * second), MonoTime(9 * second), KernelTime(second));
        map.stepped_back();
        assert!(!map.is_of_before(MonoTime(9 * second), KernelTime(second)), "nothing was read");
        map.record_read(KernelTime(2 * second), MonoTime(3 * second));
        assert!(map.is_of_before(MonoTime(9 * second), KernelTime(second)));
        assert!(!map.is_of_before(MonoTime(2 * second), KernelTime(2 * second)));
        map.learn_from_mark(MonoTime(2 * second), MonoTime(2 * second), KernelTime(2 * second));
        assert!(!map.is_of_before(MonoTime(9 * second), KernelTime(second)), "it is known again");
    }
}
