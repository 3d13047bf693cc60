//! Whether there is somebody to see colours.

use std::io::{IsTerminal, stdout};

use crate::report::paint::Paint;

/// Colour where stdout is a terminal, unless `NO_COLOR` is set (no-color.org).
pub(super) fn paint_for_stdout() -> Paint {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    if stdout().is_terminal() && !unwanted { Paint::Ansi } else { Paint::Plain }
}
