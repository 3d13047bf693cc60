//! `record`: the evidence of both witnesses into a file, from this kernel or from a directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::exit::{CONFIG, IOERR, OrExit, UNAVAILABLE};
use super::live_args::{LiveArgs, prepare, prepare_remote};
use super::log_args::LogArgs;
use super::output;
use super::progress::Progress;
use super::signals;
use super::terminal::warn;
use crate::input::{Config, Input, Sink};
use crate::model::{Pid, TreeId};
use crate::recording::{Meta, Writer};
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
    let _progress = Progress::new(&format!("reading {}", directory.display()), None);
    let directory = Directory::open(directory)?;
    for remark in directory.remarks() {
        warn(format_args!("kqproc_exporter: {remark}"));
    }
    let mut meta = directory.meta();
    if !args.note.is_empty() {
        meta.note = args.note.clone();
    }
    let mut writer = Writer::new(output::create(&args.output)?, &meta)
        .with_context(|| output::unwritable(&args.output))
        .or_exit(IOERR)?;
    let mut written = Ok(());
    let _ = directory.play(&mut |input: Input<'_>| {
        written = writer.append(&input);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    written
        .and_then(|()| writer.finish()?.flush())
        .with_context(|| output::unwritable(&args.output))
        .or_exit(IOERR)?;
    Ok(ExitCode::SUCCESS)
}

fn record(args: &RecordArgs, open: Open) -> anyhow::Result<ExitCode> {
    let source = args.live.config(Some(super::LINGER));
    let check = Config { switch_ns: source.dtrace.switchrate.period_ns(), ..Config::default() };
    let begin = |meta| -> anyhow::Result<Recorder> {
        let parts = Parts::begin(args, meta, check).or_exit(IOERR)?;
        Ok(Recorder { parts, written: Ok(()) })
    };
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
    recorder.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes until it cannot.
struct Recorder {
    parts: Parts,
    written: io::Result<()>,
}

impl Sink for Recorder {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        if self.written.is_ok() {
            self.written = self.parts.append(&input);
        }
        // Nothing is recorded behind an end: another host's, if that was booted, is another recording.
        match &self.written {
            Ok(()) if input != Input::End => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

impl Recorder {
    fn end(mut self) -> anyhow::Result<()> {
        self.written
            .and_then(|()| self.parts.finish())
            .with_context(|| {
                format!(
                    "cannot write {}; what was written before can be replayed",
                    self.parts.output.display()
                )
            })
            .or_exit(IOERR)
    }
}

/// The parts of a recording, each a whole file by itself.
struct Parts {
    output: PathBuf,
    limit: u64,
    keep: usize,
    meta: Meta,
    check: Config,
    trees: Vec<(TreeId, String)>,
    consumers: BTreeMap<TreeId, Option<Pid>>,
    number: usize,
    /// Bytes of input in this part, before compression.
    size: u64,
    part: Option<Writer<Box<dyn Write>>>,
}

impl Parts {
    /// Creates the first part. `check` is how the run is to be judged.
    fn begin(args: &RecordArgs, meta: Meta, check: Config) -> anyhow::Result<Parts> {
        let mut parts = Parts {
            output: args.output.clone(),
            limit: args.rotate_mib.max(1) << 20,
            keep: args.keep,
            meta,
            check,
            trees: Vec::new(),
            consumers: BTreeMap::new(),
            number: 0,
            size: 0,
            part: None,
        };
        parts
            .open(Box::new(output::create(&args.output)?))
            .with_context(|| output::unwritable(&args.output))?;
        Ok(parts)
    }

    fn append(&mut self, input: &Input<'_>) -> io::Result<()> {
        match input {
            Input::Tree { id, name } => self.trees.push((*id, (*name).to_owned())),
            Input::Consumer { id, pid } => drop(self.consumers.insert(*id, *pid)),
            _ => {}
        }
        let weight = weight(input);
        if self.size + weight > self.limit {
            self.rotate()?;
        }
        self.size += weight;
        self.part.as_mut().map_or(Ok(()), |part| part.append(input))
    }

    /// Ends this part and begins the next one.
    fn rotate(&mut self) -> io::Result<()> {
        self.finish()?;
        self.number += 1;
        self.size = 0;
        self.open(Box::new(BufWriter::new(File::create(self.path(self.number))?)))?;
        if let Some(old) = self.number.checked_sub(self.keep).filter(|_| self.keep > 0) {
            std::fs::remove_file(self.path(old))?;
        }
        Ok(())
    }

    /// Begins a part with the configuration and, in a later one, the trees and consumers of those before.
    fn open(&mut self, out: Box<dyn Write>) -> io::Result<()> {
        let mut part = Writer::new(out, &self.meta)?;
        part.append(&Input::Config(self.check))?;
        for (id, name) in &self.trees {
            part.append(&Input::Tree { id: *id, name })?;
        }
        for (&id, &pid) in &self.consumers {
            part.append(&Input::Consumer { id, pid })?;
        }
        self.part = Some(part);
        Ok(())
    }

    /// `run.kqr`, `run.1.kqr`, `run.2.kqr`...
    fn path(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.output.clone();
        }
        let mut name = OsString::from(self.output.file_stem().unwrap_or_default());
        name.push(format!(".{number}"));
        if let Some(ending) = self.output.extension() {
            name.push(".");
            name.push(ending);
        }
        self.output.with_file_name(name)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.part.take().map_or(Ok(()), |part| part.finish()?.flush())
    }
}

/// About how many bytes an input takes before compression.
fn weight(input: &Input<'_>) -> u64 {
    let bytes = match input {
        Input::Stdout { bytes, .. } | Input::Stderr { bytes, .. } => bytes.len(),
        Input::Batch(batch) => 16 + 8 * batch.events.len(),
        _ => 16,
    };
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::super::exit::{error_text, status_of};
    use super::*;
    use crate::model::MonoTime;
    use crate::sim::rng::Rng;
    use crate::source::replay::Replay;

    fn parts(folder: &Path, limit: u64, keep: usize) -> Parts {
        let mut parts = Parts {
            output: folder.join("run.kqr"),
            limit,
            keep,
            meta: Meta::default(),
            check: Config::default(),
            trees: vec![],
            consumers: BTreeMap::new(),
            number: 0,
            size: 0,
            part: None,
        };
        parts.open(Box::new(File::create(&parts.output).unwrap())).unwrap();
        parts
    }

    /// A disk with room for so many bytes more.
    struct Disk(File, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1 == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = self.0.write(&bytes[..bytes.len().min(self.1)])?;
            self.1 -= written;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    /// Lines that no compression makes much smaller.
    fn lines(n: u64) -> Vec<u8> {
        let mut rng = Rng::new(n);
        (0..10_000).map(|_| rng.bits() as u8).collect()
    }

    #[test]
    fn a_disk_that_fills_ends_a_recording_and_what_was_written_before_replays() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = parts(folder.path(), u64::MAX, 0);
        let disk = Disk(File::create(&parts.output).unwrap(), 1_000_000);
        let out: Box<dyn Write> = Box::new(BufWriter::new(disk));
        parts.part = Some(Writer::new(out, &Meta::default()).unwrap());
        let mut recorder = Recorder { parts, written: Ok(()) };
        let input = |n: u64| (MonoTime(n), lines(n));
        let pushed = (0..1000).find(|n| {
            let (at, bytes) = input(*n);
            recorder.push(Input::Stdout { at, bytes: &bytes }).is_break()
        });
        assert!(recorder.push(Input::End).is_break(), "it does not go on behind what is missing");
        let error = recorder.end().unwrap_err();
        assert_eq!(status_of(&error), IOERR);
        assert!(error_text(&error).contains("what was written before can be replayed"), "{error}");

        let mut seen = vec![];
        let replay = Replay::open(&folder.path().join("run.kqr")).unwrap();
        let played = replay.play(&mut |input: Input<'_>| {
            if let Input::Stdout { at, bytes } = input {
                seen.push((at, bytes.to_vec()));
            }
            ControlFlow::Continue(())
        });
        assert!(played.is_err(), "it is cut short");
        let (seen_count, pushed) = (seen.len() as u64, pushed.expect("it fills"));
        assert!(
            seen_count > 0 && pushed - seen_count < 27,
            "{seen_count} of {pushed}: more than the block at hand"
        );
        assert!(seen.into_iter().eq((0..seen_count).map(input)));
    }

    #[test]
    fn parts_are_recordings_that_declare_their_trees_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut parts = parts(folder.path(), 100, 2);
        parts.append(&Input::Tree { id: TreeId(0), name: "pg" }).unwrap();
        for n in 0..5u64 {
            parts.append(&Input::Stdout { at: MonoTime(n), bytes: &[b'\n'; 60] }).unwrap();
        }
        parts.append(&Input::End).unwrap();
        parts.finish().unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["run.3.kqr", "run.4.kqr"]);
        let mut seen = vec![];
        let replay = Replay::open(&folder.path().join("run.4.kqr")).unwrap();
        replay
            .play(&mut |input: Input<'_>| {
                seen.push(format!("{input:?}").split([' ', '(']).next().unwrap().to_owned());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, ["Config", "Tree", "Stdout", "End"]);
    }
}
