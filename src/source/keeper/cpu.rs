//! Processor time, user's and system's, of the keeper and of the dtrace(1) that it runs.

use std::sync::{TryLockError, Weak};
use std::time::Duration;

use super::KeeperInner;
use super::protocol::Request;

/// How much processor time was used since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CpuTimes {
    /// By the keeper.
    pub keeper: Duration,
    /// By every dtrace(1) that it has run, trial compilations among them.
    pub dtrace: Duration,
}

impl CpuTimes {
    /// As the keeper sends them: microseconds.
    pub(super) fn to_text(self) -> String {
        format!("{} {}", self.keeper.as_micros(), self.dtrace.as_micros())
    }

    pub(super) fn of_text(text: &str) -> Option<CpuTimes> {
        let (keeper, dtrace) = text.split_once(' ')?;
        let time = |text: &str| text.parse().ok().map(Duration::from_micros);
        Some(CpuTimes { keeper: time(keeper)?, dtrace: time(dtrace)? })
    }
}

/// Asks a keeper for its [`CpuTimes`]. It does not keep the keeper alive.
#[derive(Clone, Debug)]
pub(crate) struct CpuMeter(pub(super) Weak<KeeperInner>);

impl CpuMeter {
    /// Wakes the keeper and waits for its answer. `None` if it is gone, or busy with another request.
    pub(crate) fn read(&self) -> Option<CpuTimes> {
        let keeper = self.0.upgrade()?;
        let socket = match keeper.socket.try_lock() {
            Ok(socket) => socket,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let reply = keeper.ask(&socket, Request::CpuTimes, super::PATIENCE).ok()?;
        CpuTimes::of_text(&reply.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_arrive_as_they_were_sent() {
        let ms = Duration::from_millis;
        let times = CpuTimes { keeper: ms(7), dtrace: ms(86_400_000_123) };
        assert_eq!(CpuTimes::of_text(&times.to_text()), Some(times));
        for text in ["", "1", "1 ", "1 2 3", "-1 2"] {
            assert_eq!(CpuTimes::of_text(text), None, "{text:?}");
        }
    }
}
