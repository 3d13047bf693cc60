//! The load as users and `stress` run it: a process of its own.
#![cfg(unix)]

use assert_cmd::Command;

fn kqproc(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("kqproc_exporter").expect("built").args(args).assert()
}

#[test]
fn a_load_forks_what_it_was_told_to_and_says_so() {
    let done = kqproc(&["load", "enoent", "--count", "30"]).success();
    let said = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(said.starts_with("30 rounds in "), "{said}");
    assert!(said.contains("        30  exit 127\n"), "{said}");
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
