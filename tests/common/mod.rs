//! Helpers of several tests.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

pub mod client;
pub mod exporter;
pub mod inputs;
pub mod played;
pub mod played_consumer;
pub mod promtool;
pub mod scripted_kernel;
pub mod stand_in_dtrace;
pub mod stand_in_ssh;
pub mod streams;
pub mod unusable_files;

/// How long a test waits for anything before it fails: long enough for a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A path below the project's root.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The text of a file of the project.
pub fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// One of the project's recordings.
pub fn recording(name: &str) -> PathBuf {
    path("recordings").join(format!("{name}.kqr"))
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    path("tests/fixtures").join(name)
}

/// Calls `done` until it returns a value; fails after [`PATIENCE`].
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

/// Whether the tests run as root. If not, says that the calling test is skipped.
pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can become another user");
    }
    is_root
}

/// A file of /proc about a process; empty if the process has ended.
pub fn file_of(pid: Pid, file: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The children of a process, from /proc.
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
