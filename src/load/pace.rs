//! The pace of the load: when the next round may begin.

use std::time::{Duration, Instant};

/// A schedule: a rate and a deadline, shared by all threads of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    deadline: Instant,
    /// Rounds a second; 0 for as fast as possible.
    rate: u32,
}

impl Pace {
    /// How long to wait before a failed fork is tried again.
    const PAUSE: Duration = Duration::from_millis(1);

    /// A schedule that begins now.
    pub(super) fn new(rate: u32, max: Duration) -> Pace {
        let start = Instant::now();
        // A deadline that the clock cannot hold is none; a year is as good.
        let year = Duration::from_secs(365 * 24 * 3600);
        Pace { start, deadline: start + max.min(year), rate }
    }

    /// Sleeps until round `i` is due. False if the time is up.
    pub(super) fn ready(&self, i: u64) -> bool {
        std::thread::sleep(self.due(i).saturating_duration_since(Instant::now()));
        !self.left().is_zero()
    }

    /// Sleeps a little, because a fork has failed. False if the time is up.
    pub(super) fn pause(&self) -> bool {
        std::thread::sleep(Pace::PAUSE.min(self.left()));
        !self.left().is_zero()
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// When round `i` is due, at the deadline at the latest.
    fn due(&self, i: u64) -> Instant {
        if self.rate == 0 {
            return self.start;
        }
        let after = Duration::try_from_secs_f64(i as f64 / f64::from(self.rate)).ok();
        after
            .and_then(|d| self.start.checked_add(d))
            .map_or(self.deadline, |d| d.min(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_due_at_the_rate_and_never_after_the_deadline() {
        let pace = Pace::new(100, Duration::from_secs(1));
        assert_eq!(pace.due(0), pace.start);
        assert_eq!(pace.due(50), pace.start + Duration::from_millis(500));
        assert_eq!(pace.due(200), pace.deadline);
        assert_eq!(pace.due(u64::MAX), pace.deadline);
        let fast = Pace::new(0, Duration::MAX);
        assert_eq!(fast.due(u64::MAX), fast.start);
        assert!(fast.ready(u64::MAX));
    }

    #[test]
    fn nothing_begins_after_the_deadline() {
        let pace = Pace::new(0, Duration::ZERO);
        assert!(!pace.ready(0));
        assert!(!pace.pause());
    }
}
