//! Messages on stderr, and whether a terminal shows colours.

use std::fmt::Display;
use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};

use crate::report::format::Paint;

/// Writes a line to stderr. An error is ignored: a full disk or a closed pipe must end nothing, and `eprintln!` would panic.
pub(crate) fn warn(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Colour if stdout is a terminal that knows colours, unless `NO_COLOR` is set (no-color.org): decided as clap does
/// for its own texts.
pub(super) fn paint_for_stdout() -> Paint {
    of(AutoStream::choice(&io::stdout()))
}

/// The same for stderr.
pub(crate) fn paint_for_stderr() -> Paint {
    of(AutoStream::choice(&io::stderr()))
}

fn of(choice: ColorChoice) -> Paint {
    if choice == ColorChoice::Never { Paint::Plain } else { Paint::Ansi }
}
