//! `run-busy`: a hidden subcommand, the busy process whose pace `check --cost` measures.

use std::process::ExitCode;
use std::time::Duration;

use super::exit::{OSERR, OrExit};
use super::output;
use crate::load::busy::Busy;

/// The hidden subcommand.
pub(super) const SUBCOMMAND: &str = "run-busy";

/// What to do, and for how long.
#[derive(clap::Args, Debug)]
pub(super) struct BusyArgs {
    #[arg(value_parser = what)]
    what: Busy,
    /// In microseconds
    time: u64,
}

fn what(word: &str) -> Result<Busy, &'static str> {
    Busy::from_name(word).ok_or("give forks or calls")
}

/// Prints how often it was done in a second of processor time.
pub(super) fn run(args: &BusyArgs) -> anyhow::Result<ExitCode> {
    let speed = args.what.per_second(Duration::from_micros(args.time)).or_exit(OSERR)?;
    output::print(&format!("{speed}\n"))?;
    Ok(ExitCode::SUCCESS)
}
