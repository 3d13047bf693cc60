//! `completions`: what a shell needs to complete our command line.

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::Cli;

/// For which shell.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Into memory first: clap_complete panics where it cannot write.
    let mut text = Vec::new();
    generate(args.shell, &mut Cli::command(), "kqproc_exporter", &mut text);
    stdout().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}
