//! `stress`: loads on this kernel, checked as they run, and a report card of the kernel.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::LINGER;
use super::exit::{OrExit, UNAVAILABLE};
use super::live_args::{DtraceArgs, NotesArg, prepare};
use super::load::{self, Size};
use super::log_args::LogArgs;
use super::output;
use super::progress::ProgressLine;
use super::signals;
use super::terminal::paint_for_stdout;
use crate::check::Config;
use crate::duration::up_to_a_day;
use crate::input::Input;
use crate::load::pid_max::{FOR_REUSE, Lowered};
use crate::load::{Plan, Shape};
use crate::pipeline::Pipeline;
use crate::report::card::{Card, Loaded};
use crate::report::kernel::KernelVersion;
use crate::report::page::chronicle::Chronicle;
use crate::report::page::{ReportPage, RunOrigin};
use crate::report::stress::Run;
use crate::source::kqueue::{Notes, Open};
use crate::source::live::{CommandEnd, Live, LiveConfig};
use crate::source::stop::Stop;
use crate::source::target::{Root, Target};

/// Which loads, and how slow the reader is to be.
#[derive(clap::Args, Debug)]
pub(crate) struct StressArgs {
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = StressFormat::Text)]
    format: StressFormat,
    /// What the processes do, in one detailed run; without it every shape is run, one after the other, for the report
    /// card, which takes about two minutes (longer where dtrace(1) takes seconds to compile a program, as on an emulated
    /// kernel) and which --count makes longer or shorter
    #[arg(long, help_heading = "Load")]
    shape: Option<Shape>,
    #[command(flatten)]
    size: Size,
    /// Sleep so long before each kevent(2) call, as a slow tracker does: 50ms, 2s. The report card has a stall of its
    /// own for each shape; one --shape has none
    #[arg(long, value_name = "DURATION", value_parser = up_to_a_day, help_heading = "Load")]
    stall: Option<Duration>,
    #[command(flatten)]
    notes: NotesArg,
    #[command(flatten)]
    dtrace: DtraceArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum StressFormat {
    /// a page for a person
    Text,
    /// one object for a program
    Json,
    /// one file for a browser or a printer
    Html,
}

/// One load of the report card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LoadStep {
    plan: Plan,
    notes: Notes,
    stall: Duration,
}

/// How often a shape is repeated on the report card where --count is 2,000, and how many milliseconds its reader sleeps
/// before each call. On an emulated kernel, which forks 400 to 1,500 times a second, all of them take about two minutes.
/// The stalls show collisions (enoent, orphan) and repeats (chain); forkexit needs many rounds to lose an exit.
const fn on_card(shape: Shape) -> (u64, u64) {
    match shape {
        Shape::Exit | Shape::Signal | Shape::Threads | Shape::Parallel | Shape::Mix => (1500, 0),
        Shape::Enoent => (2000, 50),
        Shape::Exec | Shape::Vfork => (800, 0),
        Shape::Chain => (60, 40),
        Shape::Orphan => (800, 10),
        Shape::Pidreuse => (3000, 0),
        Shape::Forkexit => (6000, 0),
    }
}

impl StressArgs {
    /// The one load that was asked for, or those of the report card.
    fn steps(&self) -> Vec<LoadStep> {
        let notes = self.notes.notes().unwrap_or_default();
        if let Some(shape) = self.shape {
            let stall = self.stall.unwrap_or_default();
            return vec![LoadStep { plan: self.size.plan(shape), notes, stall }];
        }
        let mut steps = vec![];
        for shape in Shape::ALL {
            let (rounds, stall_ms) = on_card(*shape);
            let mut plan = self.size.plan(*shape);
            plan.count = (plan.count.saturating_mul(rounds) / 2000).max(1);
            let stall = self.stall.unwrap_or(Duration::from_millis(stall_ms));
            let step = LoadStep { plan, notes, stall };
            match shape {
                // It shows whether NOTE_FORK costs exits: once without and once with it.
                Shape::Forkexit => steps.extend([
                    LoadStep { notes: Notes::default(), ..step },
                    LoadStep { notes: Notes { fork: true, ..notes }, ..step },
                ]),
                _ => steps.push(step),
            }
        }
        steps
    }
}

/// Exit status 0 sound, 1 unsound, 2 undecided; others as sysexits(3).
pub(super) fn run(args: &StressArgs, open: Open) -> anyhow::Result<ExitCode> {
    args.log.init();
    let steps = args.steps();
    let stop = Stop::default();
    let mut tested = vec![];
    for (i, step) in steps.iter().enumerate() {
        let what = format!("{} of {}: shape {}", i + 1, steps.len(), step.plan.shape);
        tracing::info!("{what}");
        let begun = Instant::now();
        let live = prepare(step.config(args)?, open)?;
        let of_step = live.stop();
        stop.on_request(move |_| of_step.request());
        if i == 0 {
            signals::hand_on_to(stop.clone())?;
        }
        tested.push(step.run(live, begun, &what)?);
        if stop.is_requested() {
            let (run, all) = (tested.len(), steps.len());
            tracing::warn!(
                "stopped: the answer is about {run} of {all} loads, and the last of them was cut short"
            );
            break;
        }
    }
    let kernel = tested.first().map(|one| one.kernel.clone()).unwrap_or_default();
    let runs = tested.iter().map(|Tested { loaded, .. }| loaded.clone()).collect();
    let card = Card::of(kernel, runs);
    output::print(&match (args.format, &tested[..]) {
        (StressFormat::Json, [_]) => output::json(&card.runs.first())?,
        (StressFormat::Json, _) => output::json(&card)?,
        (StressFormat::Html, [one]) => one.page().html(),
        (StressFormat::Html, _) => card.html(),
        (StressFormat::Text, [one]) => {
            card.text(paint_for_stdout()) + &one.page().details(paint_for_stdout())
        }
        (StressFormat::Text, _) => card.text(paint_for_stdout()),
    })?;
    Ok(ExitCode::from(card.decision.exit_status()))
}

/// A load that was run, and what a detailed page needs beside its counters.
struct Tested {
    loaded: Loaded,
    kernel: KernelVersion,
    origin: RunOrigin,
    chronicle: Chronicle,
}

impl Tested {
    fn page(&self) -> ReportPage {
        let Tested { loaded: Loaded { run, stats, .. }, kernel, origin, chronicle } = self;
        ReportPage::of(stats, chronicle, kernel.clone(), run.clone(), origin.clone())
    }
}

impl LoadStep {
    /// Runs the load under both witnesses, each step with a kqueue and a dtrace of its own.
    fn run(&self, live: Live, begun: Instant, what: &str) -> anyhow::Result<Tested> {
        let (stop, meta) = (live.stop(), live.meta(""));
        let check = Config { switch_ns: live.switch_ns(), ..Config::default() };
        let mut pipeline = Pipeline::new(check, Chronicle::default());
        let ended = self.watch(live, &mut pipeline, what)?;
        // A load that ends because the whole run was stopped has not failed.
        let complete =
            !stop.is_requested() && load::is_complete(&self.command_line()?, ended.as_ref())?;
        let run = Run {
            load: format!("{}, {} rounds", self.plan.shape, self.plan.count),
            forked: complete.then(|| self.plan.processes()),
            stall_ms: self.stall.as_millis().try_into().unwrap_or(u64::MAX),
            seconds: begun.elapsed().as_secs_f64(),
        };
        let origin = RunOrigin {
            source: run.load.clone(),
            note: meta.note,
            start_real_ns: meta.start_real_ns,
            program: meta.program,
        };
        let stats = pipeline.stats().clone();
        Ok(Tested {
            loaded: Loaded { shape: self.plan.shape, run, stats },
            kernel: KernelVersion { uname: meta.uname, osreldate: meta.osreldate },
            origin,
            chronicle: std::mem::take(pipeline.observer_mut()),
        })
    }

    /// Feeds the pipeline until the load has ended, with a progress bar. How the load ended.
    fn watch(
        &self,
        live: Live,
        pipeline: &mut Pipeline<Chronicle>,
        what: &str,
    ) -> anyhow::Result<Option<CommandEnd>> {
        // Restored when it is dropped, also if the run fails.
        let _lowered = match self.plan.shape {
            Shape::Pidreuse => Lowered::to(FOR_REUSE)
                .inspect_err(|error| {
                    tracing::warn!("pids will not be reused: kern.pid_max: {error}");
                })
                .ok(),
            _ => None,
        };
        let progress = ProgressLine::new(what, Some(self.plan.processes()));
        let watched = live.run(&mut |input: Input<'_>| {
            pipeline.push(input);
            progress.set(pipeline.stats().trees.first().map_or(0, |tree| tree.births_reported));
            ControlFlow::Continue(())
        });
        watched.or_exit(UNAVAILABLE)
    }

    /// How this program is called to run the load.
    fn command_line(&self) -> anyhow::Result<Vec<OsString>> {
        Ok(load::command_line(std::env::current_exe()?.into_os_string(), &self.plan))
    }

    /// The load behind the barrier, its stderr kept for the error that tells of its failure.
    fn config(&self, args: &StressArgs) -> anyhow::Result<LiveConfig> {
        let root = Root::Command(self.command_line()?);
        Ok(LiveConfig {
            targets: vec![Target { name: "stress".to_owned(), root }],
            consumers: Vec::new(),
            notes: self.notes,
            stall: self.stall,
            dtrace: args.dtrace.options(),
            linger: Some(LINGER),
            keep_stderr: true,
            own_program: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn steps(line: &str) -> Vec<LoadStep> {
        let words = ["kqproc_exporter", "stress"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).expect("it parses").command {
            Command::Stress(args) => args.steps(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_card_has_every_shape_and_forkexit_twice() {
        let steps = steps("");
        let shapes: Vec<Shape> = steps.iter().map(|step| step.plan.shape).collect();
        assert!(Shape::ALL.iter().all(|shape| shapes.contains(shape)));
        let of = |shape| steps.iter().filter(move |step| step.plan.shape == shape);
        let notes: Vec<Notes> = of(Shape::Forkexit).map(|step| step.notes).collect();
        assert_eq!(notes, [Notes::default(), Notes { fork: true, exec: false }]);
        let stalled = of(Shape::Enoent).all(|step| step.stall == Duration::from_millis(50));
        assert!(stalled, "without a stall a kernel that merges shows no collision");
    }

    #[test]
    fn count_scales_every_load_of_the_card() {
        let counts =
            |line: &str| steps(line).iter().map(|step| step.plan.count).collect::<Vec<_>>();
        let ten = counts("").iter().map(|count| count * 10).collect::<Vec<_>>();
        assert_eq!(counts("--count 20000"), ten);
        assert!(counts("--count 1").iter().all(|count| *count >= 1));
        let processes: u64 = steps("").iter().map(|step| step.plan.processes()).sum();
        assert!((30_000..60_000).contains(&processes), "about two minutes: {processes}");
    }

    #[test]
    fn one_shape_is_run_as_it_is_asked_for() {
        let all = steps("--shape forkexit --count 7 --stall 20ms --kqueue.notes fork,exec");
        let [step] = all[..] else { panic!("one step: {all:?}") };
        assert_eq!((step.plan.count, step.stall), (7, Duration::from_millis(20)));
        assert_eq!(step.notes, Notes { fork: true, exec: true });
        let notes: Vec<Notes> =
            steps("--kqueue.notes exec").iter().map(|step| step.notes).collect();
        assert_eq!(notes.last(), Some(&Notes { fork: true, exec: true }));
        assert!(notes.contains(&Notes { fork: false, exec: true }));
    }
}
