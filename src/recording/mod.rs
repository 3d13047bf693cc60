//! The recording format: every [`Input`](crate::input::Input) of a run in one compressed file, bit for bit.
//!
//! `docs/recordings.md` defines every byte. Pure: works over any `Read` and `Write`, opens no file. What is
//! damaged or cut costs at most the rest of the file from there on; everything before it is still read.

mod frame;
mod reader;
#[cfg(test)]
mod tests;
mod varint;
mod writer;

use std::io;

use serde::{Deserialize, Serialize};

pub use reader::Reader;
pub use writer::Writer;

/// A file begins with this. The bytes after the name are changed by every text-mode conversion.
pub const MAGIC: [u8; 8] = *b"\x89kqr\r\n\x1a\n";

/// The version that this build writes. It reads all from 1 on.
pub const VERSION: u32 = 2;

/// The longest block before compression, in bytes: a reader never allocates more for one.
pub const MAX_BLOCK: usize = 4 << 20;

/// The longest block as stored: data that cannot be compressed grows a little.
const MAX_STORED: usize = MAX_BLOCK + (64 << 10);

/// A block is written as soon as it has this many bytes before compression.
const BLOCK: usize = 256 << 10;

/// Where a recording comes from. Nothing in it depends on the host that reads it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// System, release and machine as uname(1) prints them.
    pub uname: String,
    /// The kernel's `kern.osreldate`, such as 1302001; 0 if it is not known.
    pub osreldate: u32,
    /// The text of the D program that dtrace(1) ran.
    pub program: String,
    /// What a reader should know besides: the load, a patched kernel.
    pub note: String,
    /// CLOCK_MONOTONIC of the recorded host when the recording began, in nanoseconds.
    pub start_mono_ns: u64,
    /// The same moment on its CLOCK_REALTIME, in nanoseconds since 1970.
    pub start_real_ns: u64,
}

impl Meta {
    /// The kernel's release, `13.2-RELEASE`; empty where uname(1) was not recorded.
    pub(crate) fn osrelease(&self) -> &str {
        self.uname.split(' ').nth(1).unwrap_or_default()
    }
}

/// Why a recording cannot be read, or not to its end. `offset` is where the block begins, in bytes from the beginning of the
/// file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each error's text says what it is")]
pub enum RecordingError {
    #[error("the file is empty: nothing was recorded")]
    Empty,
    #[error(
        "not a recording of kqproc_exporter (it does not begin like one); give a file that `record` wrote"
    )]
    NotARecording,
    #[error(
        "recording format {0}, but this program reads formats 1 to {VERSION}: use the release that recorded it, or a newer one"
    )]
    Version(u32),
    /// The file ends before its end mark.
    #[error(
        "cut short in the block at byte {offset}: the recorder was stopped hard, or the copy is incomplete; all before that was read"
    )]
    Cut { offset: u64 },
    #[error(
        "damaged in the block at byte {offset} ({what}): copy the file again; all before that was read"
    )]
    Damaged { offset: u64, what: &'static str },
    /// A block is as it was written, but does not follow the format.
    #[error(
        "the block at byte {offset} does not follow the format ({what}): report it with the program that wrote it"
    )]
    Malformed { offset: u64, what: &'static str },
    #[error("cannot read at byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
}

/// A small real recording that is part of the program: what `serve` plays where there is no FreeBSD.
/// 13.2 with r295012 reverted under double forks: collisions, and one process lost silently.
pub const BUNDLED: &[u8] = include_bytes!("../../recordings/merged-orphan.kqr");
