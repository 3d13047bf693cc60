//! The commands, one file each.

mod barrier;
mod check;
pub mod config;
mod duration;
pub mod exit;
mod explain;
mod feed;
mod fetch;
mod ingest;
pub mod live_args;
mod load;
pub mod log_args;
#[cfg(unix)]
mod preflight;
mod record;
mod replay;
mod report;
mod serve;
mod signals;
mod simulate;
mod stress;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// How long both witnesses go on after a command has ended: longer than any note or record may take.
const LINGER: Duration = Duration::from_secs(2);

/// Cross-checks kqueue's process events against DTrace and tells Prometheus how often they disagree.
#[derive(Parser, Debug)]
#[command(name = "kqproc_exporter", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Watch processes and serve what was found to Prometheus
    Serve(Box<serve::Args>),
    /// Load this kernel with processes and say whether a tracker can trust it
    Stress(Box<stress::Args>),
    /// Write down both witnesses' words, for replay anywhere
    Record(Box<record::Args>),
    /// Check a recording again and print the verdicts
    Replay(replay::Args),
    /// Write the report of a recording, as a page with plots
    Report(report::Args),
    /// Tell what happened to one process of a recording, and why
    Explain(explain::Args),
    /// Say whether serve would work here, and what to do if not
    Check(check::Args),
    /// Fork processes in one of the shapes that kernels are known to lose
    Load(load::Args),
    /// Wait for a byte from a pipe, then become the command
    #[command(name = crate::source::barrier::SUBCOMMAND, hide = true)]
    RunBehindBarrier(barrier::Args),
    /// Simulate a kernel that knows which processes it lost, and measure how well that is found out
    Simulate(Box<simulate::Args>),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept it from doing its job, worded for the person who called it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(*args),
            Command::Stress(args) => stress::run(&args),
            Command::Record(args) => record::run(&args),
            Command::Replay(args) => replay::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Load(args) => load::run(&args),
            Command::RunBehindBarrier(args) => Ok(barrier::run(&args)),
            Command::Simulate(args) => simulate::run(*args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_of_every_command_fit_together() {
        Cli::command().debug_assert();
    }
}
