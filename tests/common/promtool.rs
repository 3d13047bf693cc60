//! Prometheus's own judge of a page of metrics.

use std::io::Write;
use std::process::{Command, Stdio};

/// What `promtool check metrics` says of a page; nothing where it has no complaint.
pub fn complaints(page: &[u8]) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, from Debian's package prometheus");
    promtool.stdin.take().expect("its input").write_all(page).expect("taken");
    let said = promtool.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = if said.status.success() { "" } else { "it failed" };
    text(&said.stdout) + &text(&said.stderr) + status
}
