//! The reading host's clocks, and the processor time of its own processes.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
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

/// User and system time of this process, or of its reaped children, by getrusage(2).
///
/// # Errors
/// The system does not give it.
pub(crate) fn processor_time(of: UsageWho) -> nix::Result<Duration> {
    let usage = getrusage(of)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(us.unsigned_abs()))
}

/// 0 if the system has no such clock; every Unix has both.
fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
