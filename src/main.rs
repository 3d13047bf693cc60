//! The exporter's one binary; see the library for everything it does.

#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;
use kqproc_exporter::cli::terminal::{paint_for_stderr, tell};
use kqproc_exporter::cli::{Cli, exit};
use kqproc_exporter::report::format::Hue;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    match cli.run() {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let name = paint_for_stderr().dye(Hue::Bad, "kqproc_exporter:");
            tell(format_args!("{name} {}", exit::told(&error)));
            ExitCode::from(exit::status_of(&error))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
