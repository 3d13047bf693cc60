//! The reading host's clock.

use nix::time::{ClockId, clock_gettime};

use crate::model::MonoTime;

/// CLOCK_MONOTONIC now.
pub(crate) fn now() -> MonoTime {
    MonoTime(nanoseconds(ClockId::CLOCK_MONOTONIC))
}

/// CLOCK_REALTIME now, in nanoseconds since 1970.
pub(crate) fn wall_now() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME)
}

/// 0 if the system has no such clock; every Unix has both.
fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
