//! `replay`: the verdicts of a recording, as fast as it can be read.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::output::{self, Format};
use super::playing;
use super::terminal::paint_for_stdout;
use crate::check::Config;
use crate::duration::up_to_a_day;
use crate::input::Input;
use crate::pipeline::Pipeline;
use crate::report::summary::{self, Summary};

/// What to replay, and how to say what was found.
#[derive(clap::Args, Debug)]
pub(crate) struct ReplayArgs {
    /// A recording or its parts in their order, or a folder with dtrace.txt and pid.txt or kevents.jsonl
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How to print the verdicts
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Wait so long for a note that may be on its way inside the kernel, in place of what the recording says
    #[arg(long, value_name = "DURATION", value_parser = settle_time)]
    settle: Option<Duration>,
}

fn settle_time(text: &str) -> Result<Duration, String> {
    let settle = up_to_a_day(text)?;
    if settle.is_zero() { Err("give more than 0".to_owned()) } else { Ok(settle) }
}

/// The settle time that was asked for, and that of the recording.
#[derive(Clone, Copy, serde::Serialize)]
struct Settle {
    used_ns: u64,
    recorded_ns: u64,
}

impl Settle {
    fn line(self) -> String {
        let [used, recorded] = [self.used_ns, self.recorded_ns].map(Duration::from_nanos);
        format!("settle    {used:?} by --settle, {recorded:?} in the recording\n")
    }
}

/// What was found, and under which other settle time.
#[derive(serde::Serialize)]
struct ReplayAnswer {
    #[serde(flatten)]
    summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    settle: Option<Settle>,
}

pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let own = Config::default().settle_ns;
    let settle_ns = args.settle.and_then(|settle| u64::try_from(settle.as_nanos()).ok());
    let mut settle = settle_ns.map(|used| Settle { used_ns: used, recorded_ns: own });
    let config = Config { settle_ns: settle_ns.unwrap_or(own), ..Config::default() };
    let mut pipeline = Pipeline::new(config, ());
    let played = playing::parts(&args.paths, &mut |input: Input<'_>| {
        pipeline.push(match (input, &mut settle) {
            (Input::Config(recorded), Some(settle)) => {
                settle.recorded_ns = recorded.settle_ns;
                Input::Config(Config { settle_ns: settle.used_ns, ..recorded })
            }
            _ => input,
        });
        ControlFlow::Continue(())
    })?;
    let stats = pipeline.stats();
    let text = match args.format {
        Format::Text => {
            summary::text(stats, paint_for_stdout()) + &settle.map_or(String::new(), |s| s.line())
        }
        Format::Json => {
            let answer = ReplayAnswer { summary: Summary::of(stats), settle };
            output::json(&answer)?
        }
    };
    output::print(&text)?;
    played.result.context("the verdicts are those of the part before the damage")?;
    Ok(ExitCode::SUCCESS)
}
