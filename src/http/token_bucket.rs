//! A token bucket: limits requests (`rate_limit`) and thins floods of incidents.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One each `interval`, and `burst` at once.
pub(super) struct TokenBucket {
    interval: Duration,
    burst: f64,
    level: Mutex<Level>,
}

/// How many tokens there were at a time.
struct Level {
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    pub(super) fn new(interval: Duration, burst: u32) -> TokenBucket {
        let burst = f64::from(burst);
        let full = Level { tokens: burst, at: Instant::now() };
        TokenBucket { interval, burst, level: Mutex::new(full) }
    }

    /// Whether both fill as fast and hold as much.
    pub(super) fn is_like(&self, other: &TokenBucket) -> bool {
        self.interval == other.interval && self.burst == other.burst
    }

    /// Takes a token if there is one.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(level.at);
        level.tokens = (level.tokens + elapsed.div_duration_f64(self.interval)).min(self.burst);
        level.at = now.max(level.at);
        let granted = level.tokens >= 1.0;
        if granted {
            level.tokens -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_and_then_one_each_interval() {
        let bucket = TokenBucket::new(Duration::from_secs(1), 3);
        let start = Instant::now();
        let granted = |after_ms| bucket.take(start + Duration::from_millis(after_ms));
        assert_eq!([0, 0, 0, 0].map(granted), [true, true, true, false]);
        assert_eq!([900, 1100, 1200, 2300].map(granted), [false, true, false, true]);
        assert_eq!([60_000; 4].map(granted), [true, true, true, false]);
    }
}
