//! `record`: the evidence of both witnesses into a file, from this kernel or from a directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::exit::{CONFIG, IOERR, OrExit, UNAVAILABLE};
use super::live_args::{LiveArgs, prepare, prepare_remote};
use super::log_args::LogArgs;
use super::output;
use super::progress::ProgressLine;
use super::recorder::{Recorder, Rotation};
use super::signals;
use super::terminal::warn;
use crate::input::Config;
use crate::source::directory::Directory;
use crate::source::kqueue::Open;
use crate::source::live;

/// What to record, and where to.
#[derive(clap::Args, Debug)]
pub(crate) struct RecordArgs {
    /// Where to write; further parts get a number before the ending: run.1.kqr
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Begin another part after so many MiB before compression; replay takes all parts in their order
    #[arg(long = "rotate.size", value_name = "MIB", default_value_t = 256)]
    rotate_mib: u64,
    /// Keep this many parts, the newest; 0 keeps all
    #[arg(long = "rotate.keep", value_name = "N", default_value_t = 0)]
    keep: usize,
    /// What a reader should know besides: the load, a patched kernel
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// Convert a folder with dtrace.txt and pid.txt or kevents.jsonl instead of recording this kernel
    #[arg(long, value_name = "DIR", conflicts_with_all = ["targets", "consumers", "command"])]
    import: Option<PathBuf>,
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn run(args: &RecordArgs, open: Open) -> anyhow::Result<ExitCode> {
    args.log.init();
    match &args.import {
        Some(directory) => import(args, directory),
        None => record(args, open),
    }
}

fn import(args: &RecordArgs, directory: &Path) -> anyhow::Result<ExitCode> {
    let _progress = ProgressLine::new(&format!("reading {}", directory.display()), None);
    let directory = Directory::open(directory)?;
    for remark in directory.remarks() {
        warn(format_args!("kqproc_exporter: {remark}"));
    }
    let mut meta = directory.meta();
    if !args.note.is_empty() {
        meta.note = args.note.clone();
    }
    let mut recorder = Recorder::begin(&args.output, meta, None, Rotation::NONE)?;
    let _ = directory.play(&mut recorder);
    let written = recorder.end().with_context(|| output::unwritable(&args.output));
    written.or_exit(IOERR)?;
    Ok(ExitCode::SUCCESS)
}

fn record(args: &RecordArgs, open: Open) -> anyhow::Result<ExitCode> {
    let source = args.live.config(Some(super::LINGER));
    let check = Config { switch_ns: source.dtrace.switchrate.period_ns(), ..Config::default() };
    let rotation = Rotation { limit: args.rotate_mib.max(1) << 20, keep: args.keep };
    let begin = |meta| Recorder::begin(&args.output, meta, Some(check), rotation);
    live::check(&source).or_exit(CONFIG)?;
    let recorder = match source.remote() {
        None => {
            let live = prepare(source, open)?;
            signals::hand_on_to(live.stop())?;
            let mut recorder = begin(live.meta(&args.note))?;
            live.run(&mut recorder).or_exit(UNAVAILABLE)?;
            recorder
        }
        Some(remote) => {
            let mut remote = prepare_remote(remote)?;
            remote.reach().or_exit(UNAVAILABLE)?;
            signals::hand_on_to(remote.stop())?;
            let mut recorder = begin(remote.meta(&args.note))?;
            remote.run(&mut recorder, |_| ()).or_exit(UNAVAILABLE)?;
            recorder
        }
    };
    let cut = || {
        let path = args.output.display();
        format!("cannot write {path}; what was written before can be replayed")
    };
    recorder.end().with_context(cut).or_exit(IOERR)?;
    Ok(ExitCode::SUCCESS)
}
