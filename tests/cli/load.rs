//! `load`, as users and `stress` run it.

use crate::{program, run};

#[test]
fn a_load_forks_as_often_as_asked_and_prints_what_it_did() {
    let (status, text, error) = run(&mut program(&["load", "enoent", "--count", "30"]));
    assert_eq!(status, Some(0), "{error}");
    assert!(text.starts_with("30 rounds in "), "{text}");
    assert!(text.contains("        30  exit 127\n"), "{text}");
}

#[test]
fn a_load_without_time_exits_75() {
    let (status, ..) = run(&mut program(&["load", "exit", "--count", "3", "--max-seconds", "0"]));
    assert_eq!(status, Some(75));
}
