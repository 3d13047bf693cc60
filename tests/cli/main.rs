//! How the program behaves towards whoever calls it: help, completions, colours, progress, errors.

#[path = "../common/mod.rs"]
mod common;
mod completions;
mod config;
mod errors;
mod help;
mod load;
mod preflight;
mod readme;
mod settle;
mod terminal;
mod user;

use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;

/// The program with these arguments, in a world without a terminal's variables.
fn program(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kqproc_exporter").expect("the program");
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "COLUMNS", "TERM"] {
        command.env_remove(variable);
    }
    command.args(args);
    command
}

/// Runs it: its exit status, what it printed, and what it complained about.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}
