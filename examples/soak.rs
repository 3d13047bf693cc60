//! A live exporter on a kernel that loses one process of a hundred, for `scripts/soak` to end its dtrace again and again:
//! `soak FOLDER DTRACE EXPORTER [FLAG]...`

#[path = "../tests/common/stand_in.rs"]
mod stand_in;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kqproc_exporter::cli::feed::Feed;
use kqproc_exporter::cli::service::ServiceArgs;
use kqproc_exporter::model::Pid;
use kqproc_exporter::source::dtrace::{self, RestartLimits};
use kqproc_exporter::source::live::{Live, LiveConfig};
use kqproc_exporter::source::target::{Root, Target};
use stand_in::StandInKernel;

#[derive(Parser)]
struct Args {
    /// The folder in which the kernel writes its trace
    folder: PathBuf,
    /// The stand-in for dtrace(1), which prints the trace
    dtrace: PathBuf,
    /// The exporter's binary, for its keeper
    exporter: PathBuf,
    #[command(flatten)]
    service: ServiceArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let limits = RestartLimits {
        retry_first: Duration::from_millis(100),
        retry_most: Duration::from_millis(200),
        ..RestartLimits::default()
    };
    let root = Pid::new(12345).map(Root::Pid).ok_or(anyhow::anyhow!("no pid"))?;
    let config = LiveConfig {
        targets: vec![Target { name: "load".to_owned(), root }],
        dtrace: dtrace::DtraceOptions {
            path: Some(args.dtrace),
            limits,
            ..dtrace::DtraceOptions::default()
        },
        own_program: Some(args.exporter),
        ..LiveConfig::default()
    };
    let kernel = StandInKernel::new(&args.folder, u32::MAX, Duration::from_micros(700), true);
    let live = Live::prepare(config, || Ok(Box::new(kernel.losing(100))))?;
    args.service.serve(Feed::live(Some(live), Vec::new()))
}
