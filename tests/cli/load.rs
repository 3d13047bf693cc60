//! `load`, as users and `stress` run it.
#![cfg(unix)]

use assert_cmd::Command;

fn kqproc(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("kqproc_exporter").expect("built").args(args).assert()
}

#[test]
fn a_load_forks_as_often_as_asked_and_prints_what_it_did() {
    let done = kqproc(&["load", "enoent", "--count", "30"]).success();
    let stdout = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(stdout.starts_with("30 rounds in "), "{stdout}");
    assert!(stdout.contains("        30  exit 127\n"), "{stdout}");
}

#[test]
fn a_load_without_time_exits_75() {
    kqproc(&["load", "exit", "--count", "3", "--max-seconds", "0"]).code(75);
}

#[test]
fn a_wrong_command_line_exits_64_and_help_exits_0() {
    kqproc(&["load", "no-such-shape"]).code(64);
    kqproc(&["load", "chain", "--depth", "17"]).code(64);
    kqproc(&[]).code(64);
    kqproc(&["load", "--help"]).success();
}
