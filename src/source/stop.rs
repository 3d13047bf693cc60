//! A request to end, for threads that wait for it in one way or another.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Says that the work is to end. Clones share it. The first request ends it cleanly, a second one at once.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopShared>);

#[derive(Debug, Default)]
struct StopShared {
    state: Mutex<StopState>,
    requested: Condvar,
}

#[derive(Default)]
struct StopState {
    requests: u32,
    listeners: Vec<Box<dyn Fn(u32) + Send>>,
}

impl fmt::Debug for StopState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl Stop {
    fn state(&self) -> MutexGuard<'_, StopState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the end, once more.
    pub fn request(&self) {
        let mut state = self.state();
        state.requests = state.requests.saturating_add(1);
        for listener in &state.listeners {
            listener(state.requests);
        }
        self.0.requested.notify_all();
    }

    /// Calls `listener` with the number of requests at each of them, and at once if there was one. It must not wait, nor
    /// use this very stop.
    pub(crate) fn on_request(&self, listener: impl Fn(u32) + Send + 'static) {
        let mut state = self.state();
        if state.requests > 0 {
            listener(state.requests);
        }
        state.listeners.push(Box::new(listener));
    }

    /// How often the end was asked for.
    pub(crate) fn requests(&self) -> u32 {
        self.state().requests
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.requests() > 0
    }

    /// Waits so long, or until the end is asked for once more than `seen` times.
    pub(crate) fn wait(&self, seen: u32, timeout: Duration) {
        let state = self.state();
        // Waking too early is harmless: every caller looks again at what it waits for.
        drop(self.0.requested.wait_timeout_while(state, timeout, |state| state.requests <= seen));
    }
}
