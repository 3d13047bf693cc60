//! The exporter's one binary; see the library for everything it does.

#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;

use kqproc_exporter::cli;
use kqproc_exporter::source::kqueue;

fn main() -> ExitCode {
    cli::main(kqueue::open)
}
