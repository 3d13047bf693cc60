//! The lives of a pid in a recording.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use super::{Args, Format};
use crate::check::Config;
use crate::cli::exit::{NOINPUT, OrExit, USAGE};
use crate::cli::output;
use crate::cli::playing::{self, Played};
use crate::cli::terminal::paint_for_stdout;
use crate::input::{Input, Sink};
use crate::model::Pid;
use crate::pipeline::Pipeline;
use crate::report::explain::Explanation;
use crate::report::explain::collect::Collector;
use crate::report::kernel::Kernel;
use crate::source::replay::{Error, Replay};

pub(super) fn lives(args: &Args) -> anyhow::Result<ExitCode> {
    let pid = args
        .pid
        .context(
            "say which process, before the recording: kqproc_exporter explain PID --recording FILE",
        )
        .or_exit(USAGE)?;
    let (explanation, played) = explanation(pid, &args.recording)?;
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

/// Of the recording of these parts; of the bundled one where there are none.
fn explanation(pid: Pid, paths: &[PathBuf]) -> Result<(Explanation, Result<(), Error>), Error> {
    let mut pipeline = Pipeline::new(Config::default(), Collector::new(pid));
    let mut listen = |input: Input<'_>| {
        pipeline.observer_mut().hear(&input);
        pipeline.push(input);
        ControlFlow::Continue(())
    };
    let (Played { meta, result }, source) = match paths.first() {
        Some(first) => {
            let name = playing::name(&first.display().to_string(), paths.len());
            (playing::parts(paths, &mut listen)?, name)
        }
        None => (bundled(&mut listen)?, "the bundled recording".to_owned()),
    };
    let regime = pipeline.stats().regime;
    let kernel = Kernel { uname: meta.uname, osreldate: meta.osreldate };
    Ok((Explanation::of(pid, pipeline.observer(), regime, kernel, source), result))
}

fn bundled(sink: &mut impl Sink) -> Result<Played, Error> {
    let replay = Replay::bundled()?;
    let meta = replay.meta();
    Ok(Played { meta, result: replay.play(sink) })
}
