//! `explain`: what happened to one process, and why.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use clap::ArgGroup;

use super::exit::{DATAERR, NOINPUT, OrExit, UNAVAILABLE, USAGE};
use super::fetch::Exporter;
use super::progress::Progress;
use super::terminal::paint_for_stdout;
use super::{output, playing};
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
#[command(group = ArgGroup::new("what").required(true).args(["pid", "incident"]))]
pub struct Args {
    /// The process; every life of this pid is told
    pid: Option<u64>,
    /// A recording, or a folder with dtrace.txt, dtrace.err and kevents.jsonl; without it, the recording that is part of
    /// the program
    #[arg(long, value_name = "PATH")]
    recording: Option<PathBuf>,
    /// Instead of a pid: an incident of a running exporter, by its number on the status page
    #[arg(long, value_name = "ID", conflicts_with_all = ["pid", "recording"])]
    incident: Option<u64>,
    /// Where that exporter is; http only
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:10180",
        value_parser = Exporter::from_str,
        conflicts_with_all = ["pid", "recording"]
    )]
    url: Exporter,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
enum Format {
    /// a time line for a person
    Text,
    /// one object for a program
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match (args.incident, args.pid) {
        (Some(id), _) => incident(args, id),
        (None, pid) => lives(args, pid.unwrap_or_default()),
    }
}

fn incident(args: &Args, id: u64) -> anyhow::Result<ExitCode> {
    let progress = Progress::new(&format!("asking {}", args.url), None);
    let body = args.url.json(&format!("/incidents/{id}?format=json")).or_exit(UNAVAILABLE)?;
    drop(progress);
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
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn lives(args: &Args, pid: u64) -> anyhow::Result<ExitCode> {
    let pid = Pid::new(pid)
        .with_context(|| format!("{pid} is no pid: FreeBSD has none above {}", Pid::MAX))
        .or_exit(USAGE)?;
    let (replay, progress, source) = match &args.recording {
        Some(path) => {
            let (replay, progress) = playing::open(path)?;
            (replay, Some(progress), path.display().to_string())
        }
        None => (Replay::bundled()?, None, "the bundled recording".to_owned()),
    };
    let meta = replay.meta();
    let kernel = Kernel { uname: meta.uname, osreldate: meta.osreldate };
    let mut pipeline = Pipeline::new(Config::default(), Collector::new(pid));
    let played = replay.play(&mut |input: Input<'_>| {
        pipeline.observer_mut().hear(&input);
        pipeline.push(input);
        ControlFlow::Continue(())
    });
    drop(progress);
    let regime = pipeline.stats().regime;
    let explanation = Explanation::of(pid, pipeline.observer(), regime, kernel, source);
    if explanation.lives.is_empty() {
        played?;
        return Err(anyhow!(
            "neither kqueue nor DTrace says anything of pid {pid} in {}; give the recording that it is in with --recording",
            explanation.source
        ))
        .or_exit(NOINPUT);
    }
    let text = match args.format {
        Format::Text => explanation.text(paint_for_stdout()),
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
    };
    output::print(&text)?;
    played.context("this is of the part before the damage")?;
    Ok(ExitCode::SUCCESS)
}
