//! `simulate`: a simulated kernel, its verdicts held against the truth, and the quality of detection over many.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::duration::duration;
use super::exit::{IOERR, OrExit, SOFTWARE};
use super::feed::Feed;
use super::serve::ServiceArgs;
use super::terminal::paint_for_stdout;
use crate::check::Config;
use crate::input::Input;
use crate::pipeline::Pipeline;
use crate::recording::{Meta, Writer};
use crate::report::summary;
use crate::sim::judge::{Case, score};
use crate::sim::quality::Quality;
use crate::sim::{self, Fault, Options, Truth, grid};

/// How often the whole grid is run: about half a minute on two CPUs.
const ROUNDS: u64 = 24;

/// What to simulate.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The seed: with the options below it is the whole of a run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measure the quality of detection over a swarm of runs, and print it as Markdown
    #[arg(long, conflicts_with = "seed")]
    quality: bool,
    /// With --quality: go on for as long as this (90s, 10m, 2h)
    #[arg(long, requires = "quality", value_name = "DURATION", value_parser = duration)]
    full: Option<Duration>,
    /// Write the run's recording there; with --quality, the page
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Run for ever in real time and serve what the checker says of it, as the exporter does
    #[arg(long, conflicts_with_all = ["quality", "output"])]
    serve: bool,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten, next_help_heading = "The simulated kernel")]
    options: Options,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.serve {
        let options = Box::new(args.options);
        args.service.serve(Feed::Simulate { seed: args.seed, options })
    } else if args.quality {
        measure(&args)
    } else {
        once(&args)
    }
}

/// One run: what the checker says of it, and what it gets wrong.
fn once(args: &Args) -> anyhow::Result<ExitCode> {
    let case = Case { seed: args.seed, options: args.options.clone() };
    let mut recording = args.output.as_deref().map(|path| record(path, &case)).transpose()?;
    let mut written = Ok(());
    let mut pipeline = Pipeline::new(Config::default(), Vec::new());
    let truth = sim::run(case.seed, &case.options, &mut |input: Input<'_>| {
        pipeline.push(input);
        match recording.as_mut().map_or(Ok(()), |writer| writer.append(&input)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                written = Err(error);
                ControlFlow::Break(())
            }
        }
    });
    written.and_then(|()| recording.map_or(Ok(()), finish)).context("recording").or_exit(IOERR)?;
    let misses = score(&case, &truth, pipeline.observer()).misses;
    let mut text = summary::text(pipeline.stats(), paint_for_stdout());
    text += &format!("\nThe truth of {case}\n{}", injected(&truth));
    for (miss, found) in &misses {
        text += &format!("  wrong {} times, first for pid {}: {miss}\n", found.times, found.pid);
    }
    if misses.is_empty() {
        text += "  every verdict is right, or undecided\n";
    }
    stdout().write_all(text.as_bytes())?;
    Ok(if misses.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SOFTWARE) })
}

fn record(path: &Path, case: &Case) -> anyhow::Result<Writer<BufWriter<File>>> {
    let meta = Meta {
        uname: "simulated".to_string(),
        note: format!("simulate {case}"),
        ..Meta::default()
    };
    let file = File::create(path).with_context(|| path.display().to_string()).or_exit(IOERR)?;
    Writer::new(BufWriter::new(file), &meta)
        .with_context(|| path.display().to_string())
        .or_exit(IOERR)
}

fn finish(writer: Writer<BufWriter<File>>) -> std::io::Result<()> {
    writer.finish()?.flush()
}

/// What was made to go wrong, in one line each.
fn injected(truth: &Truth) -> String {
    let counts = Fault::ALL.iter().map(|fault| (fault, truth.count(*fault)));
    let lines: String =
        counts.filter(|(_, n)| *n > 0).map(|(fault, n)| format!("  {fault}: {n}\n")).collect();
    if lines.is_empty() { "  nothing was made to go wrong\n".to_string() } else { lines }
}

/// The swarm, on two threads.
fn measure(args: &Args) -> anyhow::Result<ExitCode> {
    let deadline = args.full.map(|duration| Instant::now() + duration);
    let next = AtomicU64::new(0);
    let work = || {
        let mut quality = Quality::default();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let done = match deadline {
                Some(deadline) => Instant::now() >= deadline,
                None => n >= ROUNDS * grid::CELLS,
            };
            if done {
                return quality;
            }
            quality.add(n);
        }
    };
    let quality = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut quality = work();
        match other.join() {
            Ok(theirs) => quality.merge(theirs),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        quality
    });
    let page = quality.markdown();
    match &args.output {
        Some(path) => std::fs::write(path, &page)
            .with_context(|| path.display().to_string())
            .or_exit(IOERR)?,
        None => stdout().write_all(page.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
