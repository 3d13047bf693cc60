//! `explain` of a recording: the lives of a pid, one incident, or the list of incidents.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use super::{ExplainArgs, shown};
use crate::check::Config;
use crate::check::finding::Observer;
use crate::cli::exit::{NOINPUT, OrExit};
use crate::cli::output;
use crate::cli::playing::{self, Played};
use crate::cli::terminal::paint_for_stdout;
use crate::input::Sink;
use crate::model::Pid;
use crate::pipeline::Pipeline;
use crate::recording::Meta;
use crate::report::explain::Explanation;
use crate::report::explain::collect::Collector;
use crate::report::incidents::IncidentLog;
use crate::report::kernel::KernelVersion;
use crate::report::verdict_filter::VerdictFilter;
use crate::source::replay::{Replay, ReplayError};

pub(super) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let (text, played) = match (args.incident, args.pid) {
        (Some(id), _) => incident(args, id)?,
        (None, Some(pid)) => lives(args, pid)?,
        (None, None) => list(args)?,
    };
    output::print(&text)?;
    played.context("this is of the part before the damage")?;
    Ok(ExitCode::SUCCESS)
}

/// What is printed, and what kept the recording from being read to its end.
type PrintedExplanation = anyhow::Result<(String, Result<(), ReplayError>)>;

/// Every life of a pid.
fn lives(args: &ExplainArgs, pid: Pid) -> PrintedExplanation {
    let run = PlayedRecording::play(&args.recording, Collector::new(pid))?;
    let regime = run.pipeline.stats().regime;
    let source = run.source;
    let explanation =
        Explanation::of(pid, run.pipeline.observer(), regime, kernel(run.meta), source);
    if explanation.lives.is_empty() {
        run.played?;
        return Err(anyhow!(
            "neither kqueue nor DTrace says anything of pid {pid} in {}; give the recording that it is in with --recording",
            explanation.source
        ))
        .or_exit(NOINPUT);
    }
    let text = shown(args.format, &explanation, || explanation.text(paint_for_stdout()))?;
    Ok((text, run.played))
}

/// One incident with its time line.
fn incident(args: &ExplainArgs, id: u64) -> PrintedExplanation {
    let run = PlayedRecording::play(&args.recording, IncidentLog::one(id))?;
    let Some(incident) = run.pipeline.observer().last_in_full(run.pipeline.stats()) else {
        run.played?;
        let list = "kqproc_exporter explain --recording FILE";
        return Err(anyhow!("there is no incident {id} in {}; {list} lists them", run.source))
            .or_exit(NOINPUT);
    };
    let text = shown(args.format, &incident, || incident.text(paint_for_stdout()))?;
    Ok((text, run.played))
}

/// The newest incidents, a line each.
fn list(args: &ExplainArgs) -> PrintedExplanation {
    let limit = usize::try_from(args.list.limit).unwrap_or(usize::MAX);
    let verdict = args.list.verdict.as_deref().and_then(VerdictFilter::from_name);
    let log = IncidentLog::newest(limit, args.list.tree.clone(), verdict);
    let run = PlayedRecording::play(&args.recording, log)?;
    let (log, stats) = (run.pipeline.observer(), run.pipeline.stats());
    let kernel = kernel(run.meta);
    let osrelease = kernel.uname.split(' ').nth(1).unwrap_or_default();
    let list = log.list(stats, &run.source, osrelease);
    let text = shown(args.format, &list, || {
        let (matched, filtered) = (log.matched(), args.list.is_filtered());
        list.of_recording(&run.source, &kernel, matched, filtered, paint_for_stdout())
    })?;
    Ok((text, run.played))
}

/// A recording that was played, and what an observer made of it.
struct PlayedRecording<O> {
    pipeline: Pipeline<O>,
    meta: Meta,
    /// What the recording is called.
    source: String,
    played: Result<(), ReplayError>,
}

impl<O: Observer> PlayedRecording<O> {
    /// Plays the recording of these parts; the bundled one if there are none.
    fn play(paths: &[PathBuf], observer: O) -> Result<PlayedRecording<O>, ReplayError> {
        let mut pipeline = Pipeline::new(Config::default(), observer);
        let (Played { meta, result }, source) = match paths.first() {
            Some(first) => {
                let name = playing::name(&first.display().to_string(), paths.len());
                (playing::parts(paths, &mut pipeline)?, name)
            }
            None => (bundled(&mut pipeline)?, "the bundled recording".to_owned()),
        };
        Ok(PlayedRecording { pipeline, meta, source, played: result })
    }
}

fn kernel(meta: Meta) -> KernelVersion {
    KernelVersion { uname: meta.uname, osreldate: meta.osreldate }
}

fn bundled(sink: &mut impl Sink) -> Result<Played, ReplayError> {
    let replay = Replay::bundled()?;
    let meta = replay.meta();
    Ok(Played { meta, result: replay.play(sink) })
}
