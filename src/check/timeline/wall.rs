//! Compares DTrace's clock with the wall clock of its host: if one jumps against the other, DTrace's may have jumped. Without
//! marks, as when consumers alone are watched, nothing else can show that.
//!
//! Each B and T record has `walltimestamp` beside `timestamp`. That one is as coarse as the clock interrupt, 10 ms in a virtual
//! machine, and lags when a host holds interrupts up: by 44 ms on 15.1 in a second without ticks.

use crate::model::KernelTime;

/// Clocks that move against each other by less than this between two ticks have not jumped, as far as that matters: it is a
/// fifth of the time that a note is waited for, and a jump forward puts no two records in another order.
const TOLERANCE_NS: u64 = 100_000_000;
/// A wall clock before this, in 2001, was never set, or is not printed.
const LEAST_WALL: u64 = 1_000_000_000_000_000_000;

/// When the two clocks were compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WallClock {
    last: Option<(KernelTime, u64)>,
}

impl WallClock {
    /// A record shows both clocks. Gives back the last one before it if either clock has jumped in between.
    pub(super) fn compare(&mut self, at: KernelTime, wall: u64) -> Option<KernelTime> {
        if wall < LEAST_WALL {
            return None;
        }
        let last = self.last.replace((at, wall))?;
        KernelTime::has_jumped(last, (at, wall), TOLERANCE_NS).then_some(last.0)
    }

    /// Up to when the clocks have been compared. `None` if the records do not show both.
    pub(super) fn compared_up_to(&self) -> Option<KernelTime> {
        self.last.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Whether a jump shows between two ticks, so many milliseconds apart by DTrace's clock and by the wall clock.
    fn jumps(kernel_ms: i64, wall_ms: i64) -> bool {
        let mut clock = WallClock::default();
        let (kernel, wall) = (KernelTime(100_000 * MS), LEAST_WALL + 100_000 * MS);
        assert_eq!(clock.compare(kernel, wall), None);
        let later = |from: u64, ms: i64| from.saturating_add_signed(ms * MS as i64);
        let jumped = clock.compare(KernelTime(later(kernel.0, kernel_ms)), later(wall, wall_ms));
        assert!(jumped.is_none_or(|before| before == kernel));
        jumped.is_some()
    }

    #[test]
    fn clocks_that_move_against_each_other_between_two_ticks_have_jumped() {
        assert!(!jumps(5000, 5000) && !jumps(5000, 5010) && !jumps(1028, 984));
        assert!(!jumps(86_400_000, 86_360_000), "500 ppm in a day without ticks");
        assert!(jumps(230, 100) && jumps(100, 230) && jumps(9100, 100) && jumps(-900, 100));
    }

    #[test]
    fn a_wall_clock_that_is_not_printed_shows_nothing() {
        let mut clock = WallClock::default();
        for at in [1, 2, 90_000] {
            assert_eq!(clock.compare(KernelTime(at * MS), at % 2), None);
        }
        assert_eq!(clock.compared_up_to(), None);
    }
}
