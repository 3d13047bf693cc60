//! `replay`: the verdicts of a recording, as fast as it can be read.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::terminal::paint_for_stdout;
use super::{output, playing};
use crate::check::Config;
use crate::input::Input;
use crate::pipeline::Pipeline;
use crate::report::summary::{self, Summary};

/// What to replay, and how to say what was found.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A recording or its parts in their order, or a folder with dtrace.txt and pid.txt or kevents.jsonl
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How to print the verdicts
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    /// a table for a person
    Text,
    /// one object for a program
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let played = playing::parts(&args.paths, &mut |input: Input<'_>| {
        pipeline.push(input);
        ControlFlow::Continue(())
    })?;
    let stats = pipeline.stats();
    let text = match args.format {
        Format::Text => summary::text(stats, paint_for_stdout()),
        Format::Json => serde_json::to_string_pretty(&Summary::of(stats))? + "\n",
    };
    output::print(&text)?;
    played.result.context("the verdicts are those of the part before the damage")?;
    Ok(ExitCode::SUCCESS)
}
