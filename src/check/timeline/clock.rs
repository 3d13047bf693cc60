//! The clock map: the reading host's monotonic clock on DTrace's time line.
//!
//! Both count the same nanoseconds from different origins (kernel-side: amd64 rdtsc; measured on 13.2 and 15.1 as one
//! constant offset). Each marked batch brackets that offset: the call returned between the reader's two clock readings.

use crate::model::{KernelTime, MonoTime};

/// Bounds of `mono - kernel`, in nanoseconds, from the marks seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClockMap {
    bounds: Option<Bounds>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    low: i64,
    high: i64,
    at: KernelTime,
    /// They are from a mark, and not only from when a record was read.
    marked: bool,
}

impl Bounds {
    /// The latest that `mono` can be on DTrace's clock.
    fn latest(&self, mono: MonoTime) -> KernelTime {
        KernelTime(mono.0.saturating_add_signed(self.low.saturating_neg()))
    }

    /// How far the clocks may have drifted apart between the mark that these bounds are of and `at`, in nanoseconds.
    fn drift(&self, at: KernelTime) -> i64 {
        (at.since(self.at).max(self.at.since(at)) >> DRIFT_SHIFT) as i64
    }
}

/// How fast the clocks may drift apart: 1/4096, about 244 ppm.
const DRIFT_SHIFT: u32 = 12;
/// A record cannot be read before it happened, and dtrace hands it over within this time unless it hangs.
const READ_DELAY_NS: i64 = 5_000_000_000;

/// A clock that jumps by less than this does no harm.
pub(super) const STEP_NS: u64 = 20_000_000;

impl ClockMap {
    /// A call between these two readings of the clock returned at `at`. `false` if a clock has jumped since the last one.
    pub(crate) fn marked(&mut self, before: MonoTime, after: MonoTime, at: KernelTime) -> bool {
        let (low, high) = (diff(before, at), diff(after, at));
        if low > high {
            // It has stepped back during the call.
            self.bounds = None;
            return false;
        }
        let fits = self.bounds.filter(|old| old.marked).is_none_or(|old| {
            let off = STEP_NS as i64 + old.drift(at);
            low <= old.high.saturating_add(off) && high >= old.low.saturating_sub(off)
        });
        self.narrow(Bounds { low, high, at, marked: true });
        fits
    }

    /// A record of time `at` was read at `read`. Counts only as long as there was no mark. A stream may be read at any pace: what
    /// is read later says nothing about the clocks.
    pub(crate) fn read(&mut self, at: KernelTime, read: MonoTime) {
        if self.bounds.is_none() && read.0 != 0 {
            let high = diff(read, at);
            let low = high.saturating_sub(READ_DELAY_NS);
            self.bounds = Some(Bounds { low, high, at, marked: false });
        }
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

    /// The latest that a record can be of that was read at `read`: what is later lies in the future. `None` as long as no mark
    /// has come.
    pub(crate) fn horizon(&self, read: MonoTime) -> Option<KernelTime> {
        let bounds = self.bounds.filter(|bounds| bounds.marked && read.0 != 0)?;
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
            map.marked(MonoTime(before), MonoTime(after), KernelTime(at));
            map
        };
        assert_eq!(ClockMap::default().latest(MonoTime(5)), None);
        assert_eq!(marked(1000, 1100, 500).latest(MonoTime(2000)), Some(KernelTime(1500)));
        let map = marked(1250, 1900, 700);
        assert_eq!(map.latest(MonoTime(2000)), Some(KernelTime(1450)));
        assert_eq!(map.earliest(MonoTime(2000)), Some(KernelTime(1400)));
        assert_eq!(marked(9000, 9010, 800).latest(MonoTime(9000)), Some(KernelTime(800)));
    }
}
