//! `record`: both witnesses' words into a file, from this kernel or from a raw directory.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::exit::{IOERR, OrExit, UNAVAILABLE};
use super::live_args::{LiveArgs, prepare};
use super::log_args::LogArgs;
use super::output;
use super::progress::Progress;
use super::signals;
use crate::input::Input;
use crate::model::TreeId;
use crate::recording::{Meta, Writer};
use crate::source::raw::Raw;

/// What to record, and where to.
#[derive(clap::Args, Debug)]
pub struct Args {
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
    /// Convert a folder with dtrace.txt, dtrace.err and kevents.jsonl instead of recording this kernel
    #[arg(long, value_name = "DIR", conflicts_with_all = ["targets", "command"])]
    import: Option<PathBuf>,
    #[command(flatten)]
    live: LiveArgs,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.log.init();
    match &args.import {
        Some(directory) => import(args, directory),
        None => record(args),
    }
}

fn import(args: &Args, directory: &Path) -> anyhow::Result<ExitCode> {
    let _progress = Progress::new(&format!("reading {}", directory.display()), None);
    let raw = Raw::open(directory)?;
    let meta = Meta { note: args.note.clone(), ..raw.meta() };
    let out = output::create(&args.output)?;
    raw.import(meta, out)
        .and_then(|mut out| out.flush())
        .with_context(|| output::unwritable(&args.output))
        .or_exit(IOERR)?;
    Ok(ExitCode::SUCCESS)
}

fn record(args: &Args) -> anyhow::Result<ExitCode> {
    let live = prepare(args.live.config(Some(super::LINGER)))?;
    signals::hand_on_to(live.stop())?;
    let mut parts = Parts::begin(args, live.meta(&args.note)).or_exit(IOERR)?;
    let mut written = Ok(());
    live.run(&mut |input: Input<'_>| {
        written = parts.append(&input);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .or_exit(UNAVAILABLE)?;
    written
        .and_then(|()| parts.finish())
        .with_context(|| {
            format!(
                "cannot write {}; what was written before can be replayed",
                args.output.display()
            )
        })
        .or_exit(IOERR)?;
    Ok(ExitCode::SUCCESS)
}

/// The parts of a recording, each a whole file by itself.
struct Parts {
    output: PathBuf,
    limit: u64,
    keep: usize,
    meta: Meta,
    trees: Vec<(TreeId, String)>,
    number: usize,
    /// Bytes of input in this part, before compression.
    size: u64,
    part: Option<Writer<BufWriter<File>>>,
}

impl Parts {
    fn begin(args: &Args, meta: Meta) -> anyhow::Result<Parts> {
        let part = Writer::new(output::create(&args.output)?, &meta)?;
        Ok(Parts {
            output: args.output.clone(),
            limit: args.rotate_mib.max(1) << 20,
            keep: args.keep,
            meta,
            trees: Vec::new(),
            number: 0,
            size: 0,
            part: Some(part),
        })
    }

    fn append(&mut self, input: &Input<'_>) -> io::Result<()> {
        if let Input::Tree { id, name } = input {
            self.trees.push((*id, (*name).to_owned()));
        }
        let weight = weight(input);
        if self.size + weight > self.limit {
            self.rotate()?;
        }
        self.size += weight;
        self.part.as_mut().map_or(Ok(()), |part| part.append(input))
    }

    /// Ends this part and begins the next one, which declares the same trees.
    fn rotate(&mut self) -> io::Result<()> {
        self.finish()?;
        self.number += 1;
        self.size = 0;
        let mut next =
            Writer::new(BufWriter::new(File::create(self.path(self.number))?), &self.meta)?;
        for (id, name) in &self.trees {
            next.append(&Input::Tree { id: *id, name })?;
        }
        self.part = Some(next);
        if let Some(old) = self.number.checked_sub(self.keep).filter(|_| self.keep > 0) {
            std::fs::remove_file(self.path(old))?;
        }
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
    use super::*;
    use crate::model::MonoTime;
    use crate::source::replay::Replay;

    fn parts(folder: &Path, limit: u64, keep: usize) -> Parts {
        let output = folder.join("run.kqr");
        let part = Writer::new(output::create(&output).unwrap(), &Meta::default()).unwrap();
        Parts {
            output,
            limit,
            keep,
            meta: Meta::default(),
            trees: vec![],
            number: 0,
            size: 0,
            part: Some(part),
        }
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
        let mut heard = vec![];
        let replay = Replay::open(&folder.path().join("run.4.kqr")).unwrap();
        replay
            .play(&mut |input: Input<'_>| {
                heard.push(format!("{input:?}").split([' ', '(']).next().unwrap().to_owned());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(heard, ["Tree", "Stdout", "End"]);
    }
}
