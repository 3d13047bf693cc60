//! A run recorded with plain tools: a directory with the output of dtrace(1) and what else is known.
//!
//! | file | what |
//! |---|---|
//! | `dtrace.txt`, or `dtrace.txt.gz` | dtrace's stdout |
//! | `dtrace.err` | dtrace's stderr, then a line with the exit status of the script that ran it |
//! | `pid.txt` | a run of a consumer: its pid |
//! | `kevents.jsonl` | a run of a mirror: a start line, then one line per kevent(2) call |
//! | `uname.txt` | release and machine; a second line with `kern.osreldate` |
//! | `cmd.txt` | the load |
//!
//! A bad line costs itself. Without dtrace.err it is not known what was dropped.

mod calls;
mod stream;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::input::{Input, Sink};
use crate::model::{MonoTime, Pid, TreeId};
use crate::recording::Meta;
use calls::CallsFile;
use stream::DtraceText;

/// The only tree, of a mirror and of a consumer.
const MIRROR: &str = "default";
const CONSUMER: &str = "consumer";
const ID: TreeId = TreeId(0);

/// How the script's own last line in dtrace.err begins.
const STATUS: [&[u8]; 2] = [b"dtrace rc ", b"exit "];

/// In place of a dtrace.err that is not there: as any message that is not known, it may be a drop.
const NO_STDERR: &[u8] = b"no dtrace.err\n";

/// Bytes are pushed in pieces of about this size.
const CHUNK: usize = 64 << 10;

/// Why a directory cannot be played.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each error's text says what it is")]
pub enum DirectoryError {
    #[error("{0} is no folder: give one with dtrace.txt; a recording file is replayed as it is")]
    NoFolder(PathBuf),
    #[error(
        "{0}: neither kevents.jsonl nor pid.txt in it, so it is not known who was watched: give the folder of one run, or a recording file; the pid of a consumer goes into pid.txt"
    )]
    NotARun(PathBuf),
    #[error("{0} is compressed: unpack it first, under its name without the ending")]
    Packed(PathBuf),
    #[error(
        "{0}: no start line that can be read, so it is not known which process was watched: copy it again or record again"
    )]
    NoStart(PathBuf),
    #[error("{0}: not a pid: write the consumer's pid into it, and nothing else")]
    NoPid(PathBuf),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// Who was watched.
#[derive(Debug)]
enum Watched {
    Mirror(CallsFile),
    Consumer(Pid),
}

/// The files of one directory, read.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    watched: Watched,
    stdout: Option<Vec<u8>>,
    stderr: Option<Vec<u8>>,
    uname: String,
    osreldate: u32,
    command: String,
}

impl Directory {
    /// Reads a directory. Only `kevents.jsonl` or `pid.txt` has to be there.
    ///
    /// # Errors
    /// [`DirectoryError`], if it is not known who was watched, or a file cannot be read.
    pub fn open(path: &Path) -> Result<Directory, DirectoryError> {
        let metadata = std::fs::metadata(path)
            .map_err(|source| DirectoryError::Read { path: path.to_path_buf(), source })?;
        if !metadata.is_dir() {
            return Err(DirectoryError::NoFolder(path.to_path_buf()));
        }
        let watched = watched(path)?;
        let uname = text(&path.join("uname.txt"))?;
        let mut lines = uname.lines();
        Ok(Directory {
            path: path.to_path_buf(),
            watched,
            stdout: read(&path.join("dtrace.txt"))?,
            stderr: read(&path.join("dtrace.err"))?.map(without_status),
            uname: lines.next().map_or(String::new(), |line| format!("FreeBSD {}", clipped(line))),
            osreldate: lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or_default(),
            command: text(&path.join("cmd.txt"))?.lines().next().map(clipped).unwrap_or_default(),
        })
    }

    /// Where the run comes from. It does not have the D program.
    pub fn meta(&self) -> Meta {
        let start = match &self.watched {
            Watched::Mirror(calls) => calls.start.clock,
            Watched::Consumer(_) => calls::Clock::default(),
        };
        Meta {
            uname: self.uname.clone(),
            osreldate: self.osreldate,
            note: self.command.clone(),
            start_mono_ns: start.mono_ns,
            start_real_ns: start.real_ns,
            ..Meta::default()
        }
    }

    /// What is missing from it, and what that means for the verdicts: one line each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = vec![];
        if self.stdout.is_none() {
            remarks.push("no dtrace.txt in it: without DTrace there is no verdict".to_owned());
        } else if self.stderr.is_none() {
            remarks.push(
                "no dtrace.err in it, so it is not known what dtrace dropped: \
                 where the two differ, the verdict is undecided"
                    .to_owned(),
            );
        }
        match self.bad_lines() {
            0 => {}
            1 => remarks.push("1 line of kevents.jsonl cannot be read and is left out".to_owned()),
            n => {
                remarks.push(format!("{n} lines of kevents.jsonl cannot be read and are left out"));
            }
        }
        let path = self.path.display();
        remarks.into_iter().map(|remark| format!("{path}: {remark}")).collect()
    }

    fn bad_lines(&self) -> u64 {
        match &self.watched {
            Watched::Mirror(calls) => calls.bad_lines,
            Watched::Consumer(_) => 0,
        }
    }

    /// Pushes everything into `sink`. dtrace's stderr comes first, at time 0: it is not known when a drop happened.
    pub fn play(self, sink: &mut impl Sink) -> ControlFlow<()> {
        let up = Input::DtraceUp { at: MonoTime(self.meta().start_mono_ns) };
        let Directory { watched, stdout, stderr, .. } = self;
        match watched {
            Watched::Mirror(_) => sink.push(Input::Tree { id: ID, name: MIRROR })?,
            Watched::Consumer(pid) => {
                sink.push(Input::Tree { id: ID, name: CONSUMER })?;
                sink.push(Input::Consumer { id: ID, pid: Some(pid) })?;
            }
        }
        let text = DtraceText::new(stdout.as_deref().unwrap_or_default());
        if stdout.is_some() {
            sink.push(up)?;
            let stderr = stderr.as_deref().unwrap_or(NO_STDERR);
            for bytes in stderr.chunks(CHUNK).chain(text.messages.chunks(CHUNK)) {
                sink.push(Input::Stderr { at: MonoTime(0), bytes })?;
            }
        }
        match watched {
            Watched::Mirror(calls) => text.play_with(calls, sink)?,
            Watched::Consumer(_) => text.play(sink)?,
        }
        sink.push(Input::End)
    }
}

/// Who was watched: the mirror's calls if they are there, else the consumer.
fn watched(path: &Path) -> Result<Watched, DirectoryError> {
    let (kevents, pid) = (path.join("kevents.jsonl"), path.join("pid.txt"));
    if let Some(lines) = read(&kevents)? {
        return calls::read(&lines).map(Watched::Mirror).ok_or(DirectoryError::NoStart(kevents));
    }
    let text = read(&pid)?.ok_or_else(|| DirectoryError::NotARun(path.to_path_buf()))?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    let consumer = number.and_then(Pid::new).filter(|pid| pid.get() > 0);
    consumer.map(Watched::Consumer).ok_or(DirectoryError::NoPid(pid))
}

/// A file's bytes, unpacked if it is there with the ending .gz alone. `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, DirectoryError> {
    let named = |ending: &str| {
        PathBuf::from([path.as_os_str(), OsStr::new(ending)].into_iter().collect::<OsString>())
    };
    let (packed, mut bytes) = (named(".gz"), Vec::new());
    let (path, unpacked) = match std::fs::read(path) {
        Ok(read) => return Ok(Some(read)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match File::open(&packed) {
            Ok(file) => (packed, MultiGzDecoder::new(file).read_to_end(&mut bytes).map(|_| bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let other = [".zst", ".xz", ".bz2"].map(named).into_iter().find(|p| p.exists());
                return other.map_or(Ok(None), |path| Err(DirectoryError::Packed(path)));
            }
            Err(source) => (packed, Err(source)),
        },
        Err(source) => (path.to_path_buf(), Err(source)),
    };
    unpacked.map(Some).map_err(|source| DirectoryError::Read { path, source })
}

/// A small text file; empty if there is none.
fn text(path: &Path) -> Result<String, DirectoryError> {
    Ok(String::from_utf8_lossy(&read(path)?.unwrap_or_default()).into_owned())
}

/// A line of a person's, or of uname(1), that is not too long for one.
fn clipped(line: &str) -> String {
    line.trim().chars().take(1024).collect()
}

/// dtrace.err without the exit status that the recording script appended.
fn without_status(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.trim_ascii_end().len();
    let line = text[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    if STATUS.iter().any(|status| text[line..end].starts_with(status)) {
        text.truncate(line);
    }
    text
}
