//! `stress`: a load on this kernel, checked as it runs, and a one-page answer.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::LINGER;
use super::duration::duration;
use super::exit::{OrExit, UNAVAILABLE};
use super::live_args::{DtraceArgs, prepare};
use super::load::{self, Size};
use super::log_args::LogArgs;
use super::output;
use super::progress::Progress;
use super::signals;
use super::terminal::paint_for_stdout;
use crate::check::Config;
use crate::input::Input;
use crate::load::Shape;
use crate::load::pid_max::{FOR_REUSE, Lowered};
use crate::pipeline::Pipeline;
use crate::report::kernel::Kernel;
use crate::report::page::chronicle::{Chronicle, take};
use crate::report::page::{Origin, Page};
use crate::report::stress::Run;
use crate::source::kqueue::{Notes, Open};
use crate::source::live;
use crate::source::target::{Root, Target};

/// Which load, and how slow the reader is to be.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// What the processes do
    #[arg(long, default_value = "mix", help_heading = "Load")]
    shape: Shape,
    #[command(flatten)]
    size: Size,
    /// Sleep so long before each kevent(2) call, as a slow tracker does: 50ms, 2s
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration,
        default_value = "0ms",
        help_heading = "Load"
    )]
    stall: Duration,
    #[command(flatten)]
    dtrace: DtraceArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    /// a page for a person
    Text,
    /// one object for a program
    Json,
    /// one file with plots, for a browser or a printer
    Html,
}

/// Exit status 0 sound, 1 unsound, 2 undecided; others as sysexits(3).
pub(super) fn run(args: &Args, open: Open) -> anyhow::Result<ExitCode> {
    args.log.init();
    let plan = args.size.plan(args.shape);
    let load = load::command_line(std::env::current_exe()?.into_os_string(), &plan);
    let live = prepare(config(args, load.clone()), open)?;
    let stop = live.stop();
    signals::hand_on_to(stop.clone())?;
    // Restored when it is dropped, also where the run fails.
    let _lowered = match args.shape {
        Shape::Pidreuse => Lowered::to(FOR_REUSE)
            .inspect_err(|error| tracing::warn!("pids will not be reused: kern.pid_max: {error}"))
            .ok(),
        _ => None,
    };
    let begun = Instant::now();
    let meta = live.meta("");
    let mut config = Config::default();
    config.switch_ns = args.dtrace.options().switch_ns().unwrap_or(config.switch_ns);
    let mut pipeline = Pipeline::new(config, Chronicle::default());
    let progress = Progress::new(&format!("shape {}", plan.shape), Some(plan.processes()));
    let ended = live
        .run(&mut |input: Input<'_>| {
            take(&mut pipeline, input);
            progress.set(pipeline.stats().trees.first().map_or(0, |tree| tree.births_reported));
            ControlFlow::Continue(())
        })
        .or_exit(UNAVAILABLE)?;
    drop(progress);
    let complete = match &ended {
        // A load that ends with the whole run, because somebody stopped that, has not failed.
        Some(ended) if !stop.is_requested() => load::is_complete(&load, ended)?,
        _ => false,
    };
    let stats = pipeline.stats();
    let run = Run {
        load: format!("{}, {} rounds", plan.shape, plan.count),
        forked: complete.then(|| plan.processes()),
        stall_ms: args.stall.as_millis().try_into().unwrap_or(u64::MAX),
        seconds: begun.elapsed().as_secs_f64(),
        notes: Notes::default().fflags(),
    };
    let origin = Origin {
        source: run.load.clone(),
        note: meta.note,
        start_real_ns: meta.start_real_ns,
        program: meta.program,
    };
    let kernel = Kernel { uname: meta.uname, osreldate: meta.osreldate };
    let page = Page::of(stats, pipeline.observer(), kernel, run, origin);
    let text = match args.format {
        Format::Text => page.report.text(stats, paint_for_stdout()),
        Format::Json => serde_json::to_string_pretty(&page.report)? + "\n",
        Format::Html => page.html(),
    };
    output::print(&text)?;
    Ok(ExitCode::from(page.report.summary.decision.exit_status()))
}

/// The load behind the barrier, its stderr kept for the error that tells of its failure.
fn config(args: &Args, load: Vec<OsString>) -> live::Config {
    live::Config {
        targets: vec![Target { name: "stress".to_owned(), root: Root::Command(load) }],
        notes: Notes::default(),
        stall: args.stall,
        dtrace: args.dtrace.options(),
        linger: Some(LINGER),
        keep_stderr: true,
        own_program: None,
    }
}
