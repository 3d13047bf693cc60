//! Plays a recording, or its parts in their order, for the commands that read one as fast as they can.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::progress::ProgressLine;
use super::terminal::warn;
use crate::input::{Input, Sink};
use crate::recording::Meta;
use crate::report::format::count_of;
use crate::source::replay::{Replay, ReplayError};

/// A recording or a folder at its beginning, and how far it has been read. Remarks on what is missing from it go to stderr.
///
/// # Errors
/// It is neither, or cannot be read.
fn open(path: &Path) -> Result<(Replay, ProgressLine), ReplayError> {
    let name = path.file_name().map_or(path.as_os_str(), OsStr::new).to_string_lossy();
    // A folder is in memory before it is played, and a pipe does not say how long it is.
    let size = path.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    let progress = ProgressLine::new(&format!("reading {name}"), size);
    let replay = Replay::open_through(path, |file| Box::new(progress.reading(file)))?;
    for remark in replay.remarks() {
        warn(format_args!("kqproc_exporter: {remark}"));
    }
    Ok((replay, progress))
}

/// A recording that was played.
pub(super) struct Played {
    /// Of its first part.
    pub(super) meta: Meta,
    /// What kept it from being read to its end.
    pub(super) result: Result<(), ReplayError>,
}

/// Plays the parts of a recording in their order, as the one recording that they are.
///
/// # Errors
/// One of them is no recording, or cannot be read at all.
pub(super) fn parts(paths: &[PathBuf], sink: &mut impl Sink) -> Result<Played, ReplayError> {
    let (mut first, mut result) = (None, Ok(()));
    for path in paths {
        let (part, _progress) = open(path)?;
        first.get_or_insert_with(|| part.meta());
        result = result.and(part.play(&mut |input: Input<'_>| {
            // Only the last part has an end of its own.
            if input == Input::End { ControlFlow::Continue(()) } else { sink.push(input) }
        }));
    }
    let _ = sink.push(Input::End);
    Ok(Played { meta: first.unwrap_or_default(), result })
}

/// What the recording of these parts is called: `run.kqr and 2 further parts`.
pub(super) fn name(first: &str, parts: usize) -> String {
    match parts {
        0 | 1 => first.to_owned(),
        n => format!("{first} and {}", count_of(n as u64 - 1, "further part")),
    }
}
