//! What several tests need.
#![allow(dead_code, reason = "each test takes its part of it")]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

pub mod client;
pub mod exporter;
pub mod owned;
pub mod promtool;
pub mod reads;
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

/// A file of /proc about a process; empty if that has ended.
pub fn file_of(pid: Pid, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The processes whose parent this is, by /proc.
pub fn children(of: Pid) -> Vec<Pid> {
    let parent = |pid: Pid| -> Option<i32> {
        let stat = file_of(pid, "stat");
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    let numbers = fs::read_dir("/proc")
        .expect("processes")
        .filter_map(|entry| Some(Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)));
    numbers.filter(|pid| parent(*pid) == Some(of.as_raw())).collect()
}
