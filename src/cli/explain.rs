//! `explain`: what happened to one process, and why.

use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use super::exit::{NOINPUT, OrExit, USAGE};
use crate::check::Config;
use crate::input::Input;
use crate::model::Pid;
use crate::pipeline::Pipeline;
use crate::report::explain::Explanation;
use crate::report::explain::collect::Collector;
use crate::report::kernel::Kernel;
use crate::report::paint::Paint;
use crate::source::replay::Replay;

/// Which process, and where it was seen.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The process
    pid: u64,
    /// A recording, or a directory with dtrace.txt, dtrace.err and kevents.jsonl; without it, the recording that is
    /// part of the program
    #[arg(long, value_name = "PATH")]
    recording: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
enum Format {
    /// A time line for a person
    Text,
    /// One object for a program
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let pid = Pid::new(args.pid)
        .with_context(|| format!("{} is no pid: FreeBSD has none above {}", args.pid, Pid::MAX))
        .or_exit(USAGE)?;
    let (replay, source) = match &args.recording {
        Some(path) => (Replay::open(path)?, path.display().to_string()),
        None => (Replay::bundled()?, "the bundled recording".to_owned()),
    };
    let meta = replay.meta();
    let kernel = Kernel { uname: meta.uname, osreldate: meta.osreldate };
    let mut pipeline = Pipeline::new(Config::default(), Collector::new(pid));
    let played = replay.play(&mut |input: Input<'_>| {
        pipeline.observer_mut().hear(&input);
        pipeline.push(input);
        ControlFlow::Continue(())
    });
    let regime = pipeline.stats().regime;
    let explanation = Explanation::of(pid, pipeline.observer(), regime, kernel, source);
    if explanation.lives.is_empty() {
        played?;
        return Err(anyhow!(
            "neither witness says anything of pid {pid} in {}",
            explanation.source
        ))
        .or_exit(NOINPUT);
    }
    let text = match args.format {
        Format::Text => explanation.text(Paint::for_stdout()),
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
    };
    stdout().write_all(text.as_bytes())?;
    played.context("this is of the part before the damage")?;
    Ok(ExitCode::SUCCESS)
}
