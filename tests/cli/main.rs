//! The command line: help, completions, colours, progress, errors, configuration, the user to serve as, and the commands that
//! README.md shows.

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

use common::exporter::PROGRAM;

/// The program with these arguments, without the environment variables that describe a terminal.
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "COLUMNS", "TERM"] {
        command.env_remove(variable);
    }
    command.args(args);
    command
}

/// Runs a command: its exit status, stdout and stderr.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}
