//! Opens recordings for the commands that read one as fast as they can.

use std::ffi::OsStr;
use std::path::Path;

use super::progress::Progress;
use crate::source::replay::{Error, Replay};

/// A recording or a raw folder at its beginning, and how far it has been read. What is missing from it is said.
///
/// # Errors
/// It is neither, or cannot be read.
pub(super) fn open(path: &Path) -> Result<(Replay, Progress), Error> {
    let name = path.file_name().map_or(path.as_os_str(), OsStr::new).to_string_lossy();
    // A raw folder is in memory before it is played, and a pipe does not say how long it is.
    let size = path.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
    let progress = Progress::new(&format!("reading {name}"), size);
    let replay = Replay::open_through(path, |file| Box::new(progress.reading(file)))?;
    for remark in replay.remarks() {
        eprintln!("kqproc_exporter: {remark}");
    }
    Ok((replay, progress))
}
