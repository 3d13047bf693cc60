//! The commands, one file each.

mod barrier;
mod busy;
mod check;
mod completions;
pub mod config;
mod consumers;
mod cost;
mod demo;
mod examples;
pub mod exit;
mod explain;
pub mod feed;
mod fetch;
mod ingest;
mod keeper;
pub(crate) mod live_args;
mod load;
pub(crate) mod log_args;
mod output;
mod playing;
mod preflight;
mod progress;
mod record;
mod recorder;
mod replay;
mod report;
mod serve;
pub mod service;
mod signals;
mod simulate;
mod stress;
pub mod terminal;
mod trust;
pub mod user;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::Styles;
use clap::{Parser, Subcommand};

use self::terminal::{paint_for_stderr, warn};
use crate::report::format::Hue;
use crate::source::kqueue::Open;
use crate::source::signals::keep_zombies;

/// How long both witnesses go on after a command has ended: longer than any note or record may take.
const LINGER: Duration = Duration::from_secs(2);

/// Does kqueue lose your processes? Watches them with kqueue and with DTrace, compares the two event by event, and tells
/// Prometheus how often they disagree.
// As wide as a manual page, however wide the terminal is: so it can be read, quoted and mailed.
#[derive(Parser, Debug)]
#[command(
    name = "kqproc_exporter",
    version = VERSION.as_str(),
    max_term_width = 80,
    styles = STYLES,
    after_help = examples::ALL
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Watch processes and export what is found to Prometheus
    #[command(after_help = examples::SERVE)]
    Serve(Box<serve::ServeArgs>),
    /// Say whether serve would work here, and what to do if not
    #[command(after_help = examples::CHECK)]
    Check(check::CheckArgs),
    /// Find the processes that use EVFILT_PROC, to watch one of them
    #[command(after_help = examples::CONSUMERS)]
    Consumers(consumers::ConsumersArgs),
    /// Load this kernel and say whether a process tracker can trust it
    #[command(after_help = examples::STRESS)]
    Stress(Box<stress::StressArgs>),
    /// Write what kqueue and DTrace say to a file, for replay anywhere
    #[command(after_help = examples::RECORD)]
    Record(Box<record::RecordArgs>),
    /// Judge a recording again and print the verdicts
    #[command(after_help = examples::REPLAY)]
    Replay(replay::ReplayArgs),
    /// Tell what happened to one process, and why
    #[command(after_help = examples::EXPLAIN)]
    Explain(explain::ExplainArgs),
    /// Make one page of a recording: HTML with plots, Markdown or JSON
    #[command(after_help = examples::REPORT)]
    Report(report::ReportArgs),
    /// Judge a simulated kernel, which knows what it lost
    #[command(after_help = examples::SIMULATE)]
    Simulate(Box<simulate::SimulateArgs>),
    /// Fork processes in a shape that kernels are known to lose
    #[command(after_help = examples::LOAD)]
    Load(load::LoadArgs),
    /// Print the completions of a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(completions::CompletionsArgs),
    /// Wait for a byte from a pipe, then become the command
    #[command(name = crate::source::barrier::SUBCOMMAND, hide = true)]
    RunBehindBarrier(barrier::BarrierArgs),
    /// Do one thing over and over, and print how often in a CPU second
    #[command(name = busy::SUBCOMMAND, hide = true)]
    RunBusy(busy::BusyArgs),
    /// Keep dtrace for the exporter that started this
    #[command(name = crate::source::keeper::SUBCOMMAND, hide = true)]
    KeepDtrace(keeper::KeeperArgs),
}

/// The release and, if the build knows it, the commit: scripts/release sets KQPROC_REVISION.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let release = env!("CARGO_PKG_VERSION");
    option_env!("KQPROC_REVISION")
        .map_or(release.to_owned(), |commit| format!("{release} ({commit})"))
});

/// clap's colours are those of everything else that is printed.
const STYLES: Styles = Styles::styled()
    .header(Hue::Title.style())
    .usage(Hue::Title.style())
    .literal(Hue::Title.style())
    .error(Hue::Bad.style())
    .invalid(Hue::Doubt.style())
    .valid(Hue::Good.style());

/// Runs the command that this process was started with, on the kernel that `open` opens.
pub fn main(open: Open) -> ExitCode {
    keep_zombies();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    match cli.run(open) {
        Ok(code) => code,
        // The reader of our output has closed it: it has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let name = paint_for_stderr().dye(Hue::Bad, "kqproc_exporter:");
            warn(format_args!("{name} {}", exit::error_text(&error)));
            ExitCode::from(exit::status_of(&error))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// The error that kept it from doing its job, in words for the person who called it.
    fn run(self, open: Open) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(*args, open),
            Command::Stress(args) => stress::run(&args, open),
            Command::Record(args) => record::run(&args, open),
            Command::Replay(args) => replay::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Consumers(args) => consumers::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Load(args) => load::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::RunBehindBarrier(args) => Ok(barrier::run(&args)),
            Command::RunBusy(args) => busy::run(&args),
            Command::KeepDtrace(args) => keeper::run(args),
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
