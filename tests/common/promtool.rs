//! promtool(1), which checks a page of metrics.

use std::io::Write;
use std::process::{Command, Stdio};

/// What `promtool check metrics` reports about a page; empty if the page is correct.
pub fn complaints(page: &[u8]) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, from Debian's package prometheus");
    promtool.stdin.take().expect("its input").write_all(page).expect("taken");
    let output = promtool.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = if output.status.success() { "" } else { "it failed" };
    text(&output.stdout) + &text(&output.stderr) + status
}
