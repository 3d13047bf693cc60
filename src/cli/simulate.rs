//! `simulate`: a simulated kernel, its verdicts held against the truth, and the quality of detection over many.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::exit::{IOERR, OrExit, SOFTWARE, USAGE};
use super::feed::Feed;
use super::output;
use super::progress::ProgressLine;
use super::recorder::{Recorder, Rotation};
use super::service::ServiceArgs;
use super::terminal::paint_for_stdout;
use super::user::name_the_denied;
use crate::check::Config;
use crate::duration::up_to_a_day;
use crate::input::{Input, Sink};
use crate::pipeline::Pipeline;
use crate::recording::Meta;
use crate::report::summary;
use crate::sim::grid::{self, Case};
use crate::sim::quality::Quality;
use crate::sim::score::Score;
use crate::sim::{self, Fault, Options, Truth};

/// How often the whole grid is run, without causes and with them: about half a minute on two CPUs.
const ROUNDS: u64 = 12;

/// What to simulate.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("served").multiple(true).requires("serve").args([
    "user", "listen_addresses", "telemetry_path", "config_file", "max_requests",
]))]
pub(crate) struct SimulateArgs {
    /// The seed: with the flags below it is the whole of a run, byte for byte
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Instead of one run: judge thousands that differ, and print how often each verdict is right, as Markdown
    #[arg(long, conflicts_with = "seed")]
    quality: bool,
    /// With --quality: go on for so long (90s, 10m, 2h); without it, about half a minute
    #[arg(long, requires = "quality", value_name = "DURATION", value_parser = up_to_a_day)]
    full: Option<Duration>,
    /// Write the run there as a recording; with --quality, the page
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Instead of one run: go on for ever in real time and export the verdicts, as serve does
    #[arg(long, conflicts_with_all = ["quality", "output"])]
    serve: bool,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    if args.serve {
        let options = Box::new(args.options);
        args.service.serve(Feed::simulate(args.seed, options)).map_err(name_the_denied)
    } else if args.quality {
        if args.options != Options::default() {
            let error = anyhow::anyhow!("--quality chooses kernels, loads and readers by itself");
            return Err(error).or_exit(USAGE);
        }
        measure(&args)
    } else {
        once(&args)
    }
}

/// One run: what the checker says of it, and what it gets wrong.
fn once(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let case = Case { seed: args.seed, options: args.options.clone() };
    let mut recorder = args.output.as_deref().map(|path| record(path, &case)).transpose()?;
    let mut pipeline = Pipeline::new(Config::default(), Vec::new());
    let progress = ProgressLine::new("simulating", None);
    let truth = sim::run(case.seed, &case.options, &mut |input: Input<'_>| {
        pipeline.push(input);
        recorder.as_mut().map_or(ControlFlow::Continue(()), |recorder| recorder.push(input))
    });
    recorder
        .map_or(Ok(()), Recorder::end)
        .with_context(|| args.output.as_deref().map_or(String::new(), output::unwritable))
        .or_exit(IOERR)?;
    drop(progress);
    let misses = Score::of(&case, &truth, pipeline.observer()).misses;
    let mut text = summary::text(pipeline.stats(), paint_for_stdout());
    text += &format!("\nThe truth of {case}\n{}", injected(&truth));
    for (miss, found) in &misses {
        text += &format!("  wrong {} times, first for pid {}: {miss}\n", found.times, found.pid);
    }
    if misses.is_empty() {
        text += "  every verdict is right, or undecided\n";
    }
    output::print(&text)?;
    Ok(if misses.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SOFTWARE) })
}

fn record(path: &Path, case: &Case) -> anyhow::Result<Recorder> {
    let meta = Meta {
        uname: "simulated".to_string(),
        note: format!("simulate {case}"),
        ..Meta::default()
    };
    Recorder::begin(path, meta, Some(Config::default()), Rotation::NONE)
}

/// What was made to go wrong, in one line each.
fn injected(truth: &Truth) -> String {
    let counts = Fault::ALL.iter().map(|fault| (fault, truth.count(*fault)));
    let lines: String =
        counts.filter(|(_, n)| *n > 0).map(|(fault, n)| format!("  {fault}: {n}\n")).collect();
    if lines.is_empty() { "  nothing was made to go wrong\n".to_string() } else { lines }
}

/// The swarm, on two threads.
fn measure(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let runs = ROUNDS * grid::CELLS;
    let total = args.full.map_or(runs, |duration| duration.as_secs());
    let progress = ProgressLine::new("judging simulated runs", Some(total));
    let next = AtomicU64::new(0);
    let work = || {
        let mut quality = Quality::default();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let done = args.full.map_or(n, |_| begun.elapsed().as_secs());
            progress.set(done);
            if done >= total {
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
    drop(progress);
    let page = quality.markdown();
    match &args.output {
        Some(path) => output::write(path, &page)?,
        None => output::print(&page)?,
    }
    Ok(ExitCode::SUCCESS)
}
