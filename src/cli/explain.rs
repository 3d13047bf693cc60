//! `explain`: what happened to one process, and why.

use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use super::exit::{DATAERR, NOINPUT, OrExit, UNAVAILABLE, USAGE};
use super::fetch;
use super::terminal::paint_for_stdout;
use crate::check::Config;
use crate::input::Input;
use crate::model::Pid;
use crate::pipeline::Pipeline;
use crate::report::explain::Explanation;
use crate::report::explain::collect::Collector;
use crate::report::explain::incident::Incident;
use crate::report::kernel::Kernel;
use crate::source::replay::Replay;

/// Which process, and where it was seen.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The process
    #[arg(required_unless_present = "incident")]
    pid: Option<u64>,
    /// A recording, or a directory with dtrace.txt, dtrace.err and kevents.jsonl; without it, the recording that is
    /// part of the program
    #[arg(long, value_name = "PATH")]
    recording: Option<PathBuf>,
    /// An incident of a running exporter, by its number
    #[arg(long, value_name = "ID", conflicts_with_all = ["pid", "recording"])]
    incident: Option<u64>,
    /// Where that exporter is
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:10180",
        requires = "incident"
    )]
    url: String,
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
    match (args.incident, args.pid) {
        (Some(id), _) => incident(args, id),
        (None, pid) => lives(args, pid.unwrap_or_default()),
    }
}

fn incident(args: &Args, id: u64) -> anyhow::Result<ExitCode> {
    let body =
        fetch::json(&args.url, &format!("/incidents/{id}?format=json")).or_exit(UNAVAILABLE)?;
    let unknown = || format!("{} does not answer like this release; use its own explain", args.url);
    let text = match args.format {
        Format::Text => {
            let incident: Incident =
                serde_json::from_slice(&body).with_context(unknown).or_exit(DATAERR)?;
            incident.text(paint_for_stdout())
        }
        Format::Json => {
            let value: serde_json::Value =
                serde_json::from_slice(&body).with_context(unknown).or_exit(DATAERR)?;
            serde_json::to_string_pretty(&value)? + "\n"
        }
    };
    stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn lives(args: &Args, pid: u64) -> anyhow::Result<ExitCode> {
    let pid = Pid::new(pid)
        .with_context(|| format!("{pid} is no pid: FreeBSD has none above {}", Pid::MAX))
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
        Format::Text => explanation.text(paint_for_stdout()),
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
    };
    stdout().write_all(text.as_bytes())?;
    played.context("this is of the part before the damage")?;
    Ok(ExitCode::SUCCESS)
}
