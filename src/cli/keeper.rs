//! `keep-dtrace`: a hidden subcommand, the process that stays root's and runs dtrace(1) for an exporter.

use std::fs::File;
use std::io::stdin;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::model::Pid;
use crate::source::dtrace::{BufferSize, Switchrate};
use crate::source::keeper::{self, KeeperJob};
use crate::source::target;

/// What an exporter passes on when it starts its keeper.
#[derive(clap::Args, Debug)]
pub(crate) struct KeeperArgs {
    #[arg(long)]
    dtrace: Option<PathBuf>,
    #[arg(long)]
    bufsize: BufferSize,
    #[arg(long)]
    switchrate: Switchrate,
    #[arg(long)]
    marks: bool,
    #[arg(long)]
    compile_ms: u64,
    #[arg(long = "pid-file")]
    pid_files: Vec<PathBuf>,
    #[arg(long = "consumer", value_parser = target::pid)]
    consumers: Vec<Pid>,
}

pub(super) fn run(args: KeeperArgs) -> anyhow::Result<ExitCode> {
    keeper::close_inherited();
    let KeeperArgs { dtrace, bufsize, switchrate, marks, compile_ms, pid_files, consumers } = args;
    let compile = Duration::from_millis(compile_ms);
    let exporter = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
    // No other process is to have that end.
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    let job = KeeperJob { dtrace, bufsize, switchrate, marks, compile, pid_files, consumers };
    keeper::run(exporter, job)?;
    Ok(ExitCode::SUCCESS)
}
