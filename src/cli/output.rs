//! Writing answers to stdout and to files.

use std::io::{ErrorKind, Write, stdout};
use std::path::Path;

use anyhow::Context;

use super::exit::{IOERR, OrExit};

/// How to print an answer.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub(super) enum Format {
    /// a table for a person
    Text,
    /// one object for a program
    Json,
}

/// Prints an answer.
///
/// # Errors
/// The system's bare error for a closed pipe, which is no failure of the command; any other with its context.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(error.into()),
        written => written.context("cannot write to stdout").or_exit(IOERR),
    }
}

/// An answer for a program.
///
/// # Errors
/// It has a map whose keys are no text.
pub(super) fn json(answer: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(answer)? + "\n")
}

/// Writes a whole file.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| unwritable(path)).or_exit(IOERR)
}

/// What to say of a file that `--output` names.
pub(super) fn unwritable(path: &Path) -> String {
    format!("cannot write {}, which --output names", path.display())
}
