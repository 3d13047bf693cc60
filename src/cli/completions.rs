//! `completions`: the completion script for a shell.

use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Cli, output};

const NAME: &str = "kqproc_exporter";

/// For which shell.
#[derive(clap::Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    // clap_complete would complete hidden commands too.
    let cli = Cli::command();
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut shown = Command::new(NAME).version(env!("CARGO_PKG_VERSION")).subcommands(commands);
    // Into memory first: clap_complete panics if it cannot write.
    let mut text = Vec::new();
    generate(args.shell, &mut shown, NAME, &mut text);
    output::print(&String::from_utf8(text)?)?;
    Ok(ExitCode::SUCCESS)
}
