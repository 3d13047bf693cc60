//! The commands, one file each.

#[cfg(unix)]
mod check;
pub mod exit;
mod explain;
mod fetch;
mod ingest;
#[cfg(unix)]
mod load;
pub mod log_args;
mod replay;
mod report;
mod serve;
mod simulate;
pub mod web_args;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Check a recording again and print the verdicts
    Replay(replay::Args),
    /// Write the report of a recording, as a page with plots
    Report(report::Args),
    /// Tell what happened to one process of a recording, and why
    Explain(explain::Args),
    /// Say whether serve would work here, and what to do if not
    #[cfg(unix)]
    Check(check::Args),
    /// Fork processes in one of the shapes that kernels are known to lose
    #[cfg(unix)]
    Load(load::Args),
    /// Simulate a kernel that knows which processes it lost, and measure how well that is found out
    Simulate(simulate::Args),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept it from doing its job, worded for the person who called it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(*args),
            Command::Replay(args) => replay::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Explain(args) => explain::run(&args),
            #[cfg(unix)]
            Command::Check(args) => check::run(&args),
            #[cfg(unix)]
            Command::Load(args) => load::run(&args),
            Command::Simulate(args) => simulate::run(&args),
        }
    }
}
