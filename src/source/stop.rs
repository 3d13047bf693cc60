//! A request to end, heard by threads that wait.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Says that the work is to end. Clones share it. The first request ends it cleanly, a second one at once.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<u32>, Condvar)>);

impl Stop {
    /// Asks for the end, once more.
    pub fn request(&self) {
        let mut requests = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *requests = requests.saturating_add(1);
        self.0.1.notify_all();
    }

    /// How often the end was asked for.
    pub fn requests(&self) -> u32 {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.requests() > 0
    }

    /// Waits so long, or until the end is asked for once more than `seen` times.
    pub fn wait(&self, seen: u32, timeout: Duration) {
        let requests = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Waking too early is harmless: every caller looks again at what it waits for.
        drop(self.0.1.wait_timeout_while(requests, timeout, |requests| *requests <= seen));
    }
}
