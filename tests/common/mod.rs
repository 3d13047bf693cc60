//! What several tests need.
#![allow(dead_code, reason = "each test takes its part of it")]

use std::thread;
use std::time::{Duration, Instant};

pub mod client;
pub mod exporter;
pub mod owned;
pub mod promtool;
pub mod spoils;
pub mod words;

/// How long anything may take on a slow machine. Nothing waits so long unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Tries again until `done` is; what it waits for happens by itself.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this can be tested at all.
pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can become another user");
    }
    is_root
}
