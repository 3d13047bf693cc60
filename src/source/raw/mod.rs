//! A raw recording: a directory with dtrace(1)'s output and what a small kqueue reader wrote down.
//!
//! | file | what |
//! |---|---|
//! | `kevents.jsonl` | a start line, then one line per kevent(2) call |
//! | `dtrace.txt` | dtrace's stdout; `K` lines are the kevent(2) returns of the reader |
//! | `dtrace.err` | dtrace's stderr, then a line `dtrace rc N` of the script that ran it |
//! | `cmd.txt` | the load |
//!
//! A bad line costs itself. Only without the start line nothing can be said.

mod align;
mod kevents;
#[cfg(test)]
mod tests;
mod timeline;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::input::{Input, Sink};
use crate::model::{MonoTime, TreeId};
use crate::recording::{Meta, Writer};
use kevents::Kevents;
use timeline::Timeline;

/// The name of the only tree.
pub const TREE: &str = "default";

/// The script's own last line in dtrace.err begins like this.
const STATUS: &[u8] = b"dtrace rc ";

/// The same moment on the two clocks of the recorded host.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Clock {
    mono_ns: u64,
    real_ns: u64,
}

/// Less than 73 years: sums of a few such times cannot overflow.
const fn plausible(ns: u64) -> bool {
    ns < 1 << 61
}

/// Why a directory cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a raw recording at all.
    #[error(
        "{0}: no kevents.jsonl in it, so it is no raw recording: give the directory of one run, or a recording file"
    )]
    NoKevents(PathBuf),
    /// Nobody knows what was watched.
    #[error(
        "{0}: no start line that can be read, so nothing says which process was watched: copy it again or record again"
    )]
    NoStart(PathBuf),
    /// The operating system could not read a file of it.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The files of one raw recording, read.
#[derive(Debug)]
pub struct Raw {
    kevents: Kevents,
    stdout: Option<Vec<u8>>,
    stderr: Vec<u8>,
    command: String,
}

impl Raw {
    /// Reads a directory. `dtrace.txt`, `dtrace.err` and `cmd.txt` may be missing.
    ///
    /// # Errors
    /// [`Error`], where nothing can be said without what is missing.
    pub fn open(dir: &Path) -> Result<Raw, Error> {
        let path = dir.join("kevents.jsonl");
        let text = read(&path)?.ok_or_else(|| Error::NoKevents(dir.to_path_buf()))?;
        Ok(Raw {
            kevents: kevents::read(&text).ok_or(Error::NoStart(path))?,
            stdout: read(&dir.join("dtrace.txt"))?,
            stderr: read(&dir.join("dtrace.err"))?.map(without_status).unwrap_or_default(),
            command: read(&dir.join("cmd.txt"))?.map(first_line).unwrap_or_default(),
        })
    }

    /// What the directory says about itself. It does not say which kernel it was, nor the D program.
    pub fn meta(&self) -> Meta {
        let Clock { mono_ns, real_ns } = self.kevents.start.clock;
        Meta {
            note: self.command.clone(),
            start_mono_ns: mono_ns,
            start_real_ns: real_ns,
            ..Meta::default()
        }
    }

    /// Lines of kevents.jsonl that could not be read, each skipped.
    pub fn bad_lines(&self) -> u64 {
        self.kevents.bad_lines
    }

    /// Pushes everything into `sink`, in about the order in which it would have come live.
    ///
    /// dtrace's stderr comes first, at time 0: nothing says when a drop happened.
    pub fn play(&self, sink: &mut impl Sink) -> ControlFlow<()> {
        sink.push(Input::Tree { id: TreeId(0), name: TREE })?;
        if let Some(stdout) = &self.stdout {
            sink.push(Input::DtraceUp { at: MonoTime(self.kevents.start.clock.mono_ns) })?;
            for bytes in self.stderr.chunks(CHUNK) {
                sink.push(Input::Stderr { at: MonoTime(0), bytes })?;
            }
            Timeline::new(&self.kevents, stdout).play(sink)?;
        } else {
            Timeline::new(&self.kevents, b"").play(sink)?;
        }
        sink.push(Input::End)
    }

    /// Writes everything as a recording; the start times in `meta` become this directory's.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn import<W: io::Write>(&self, meta: Meta, out: W) -> io::Result<W> {
        let Meta { start_mono_ns, start_real_ns, .. } = self.meta();
        let mut writer = Writer::new(out, &Meta { start_mono_ns, start_real_ns, ..meta })?;
        let mut written = Ok(());
        let _ = self.play(&mut |input: Input<'_>| {
            written = writer.append(&input);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        written?;
        writer.finish()
    }
}

/// Bytes are pushed in pieces of about this size at most.
const CHUNK: usize = 64 << 10;

/// A file's bytes, `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_path_buf(), source }),
    }
}

/// dtrace.err without the exit status that the recording script appended.
fn without_status(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.trim_ascii_end().len();
    let line = text[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    if text[line..end].starts_with(STATUS) {
        text.truncate(line);
    }
    text
}

fn first_line(text: Vec<u8>) -> String {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(1024)]).trim().to_string()
}
