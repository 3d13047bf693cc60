//! `run-behind-barrier`: a hidden subcommand that waits in a command's place until the command may begin.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;

use super::terminal::warn;
use crate::source::barrier;

/// What to wait for, and what to become.
#[derive(clap::Args, Debug)]
pub(super) struct BarrierArgs {
    /// The descriptor of the pipe
    descriptor: i32,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Returns only if the command did not begin: with the exit statuses of env(1) and sh(1).
pub(super) fn run(args: &BarrierArgs) -> ExitCode {
    let error = barrier::run(args.descriptor, &args.command);
    match error.kind() {
        // Our parent gave the command up.
        ErrorKind::UnexpectedEof => ExitCode::FAILURE,
        kind => {
            let command = args.command.first().map(|c| c.to_string_lossy()).unwrap_or_default();
            warn(format_args!("kqproc_exporter: cannot run {command}: {error}"));
            ExitCode::from(if kind == ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}
