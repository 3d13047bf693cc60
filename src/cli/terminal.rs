//! Whether there is somebody to see colours.

use std::io;

use anstream::{AutoStream, ColorChoice};

use crate::report::paint::Paint;

/// Colour where stdout is a terminal that knows colours, unless `NO_COLOR` is set (no-color.org): decided as clap does
/// for its own texts.
pub(super) fn paint_for_stdout() -> Paint {
    of(AutoStream::choice(&io::stdout()))
}

/// The same for stderr.
pub fn paint_for_stderr() -> Paint {
    of(AutoStream::choice(&io::stderr()))
}

fn of(choice: ColorChoice) -> Paint {
    if choice == ColorChoice::Never { Paint::Plain } else { Paint::Ansi }
}
