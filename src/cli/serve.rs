//! `serve`: the exporter.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, bail};

use super::feed::Feed;
use super::ingest::Ingest;
use super::log_args::LogArgs;
use super::web_args::WebArgs;
use crate::http::{Server, State};

/// Where the inputs come from, and how they are served.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where both witnesses' words come from; without it: this kernel on FreeBSD, elsewhere a recording
    #[arg(long, value_enum)]
    source: Option<SourceKind>,

    /// What to replay; without it, the recording that is part of the program
    #[arg(long, value_name = "PATH")]
    recording: Option<PathBuf>,

    /// How many times faster than it was recorded; 0 is as fast as it can be read
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    speed: f64,

    /// Begin again when the recording has come to its end; its counters go on growing
    #[arg(long = "loop")]
    repeat: bool,

    #[command(flatten)]
    service: ServiceArgs,
}

/// The service around a source.
#[derive(clap::Args, Debug)]
pub struct ServiceArgs {
    #[command(flatten)]
    web: WebArgs,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
enum SourceKind {
    /// A recording of some kernel at some other time
    Replay,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.service.log.init();
    if args.source.is_none() {
        tracing::warn!(
            "this is not FreeBSD: what is served is a recording of another kernel, not this host"
        );
    }
    let feed = Feed::replay(args.recording, args.repeat, args.speed)?;
    serve(feed, &args.service.web)
}

impl ServiceArgs {
    /// Serves what `feed` says until the process is told to stop.
    ///
    /// # Errors
    /// The service cannot be started.
    pub fn serve(&self, feed: Feed) -> anyhow::Result<ExitCode> {
        self.log.init();
        serve(feed, &self.web)
    }
}

fn serve(feed: Feed, web: &WebArgs) -> anyhow::Result<ExitCode> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting kqproc_exporter");
    let server = Server::bind(web)?;
    let state = State::new(feed.about());
    let stop = Arc::new(AtomicBool::new(false));
    let ingest = {
        let (mut ingest, stop) = (Ingest::new(state.clone()), Arc::clone(&stop));
        thread::Builder::new().name("ingest".into()).spawn(move || feed.run(&mut ingest, &stop))?
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the HTTP service")?;
    let served = runtime.block_on(server.run(state, asked_to_stop()));
    stop.store(true, Ordering::Relaxed);
    if ingest.join().is_err() {
        bail!("the ingest thread panicked; please report what the log says above");
    }
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Resolves at SIGTERM or SIGINT.
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signals end the process by themselves.
        _ => std::future::pending().await,
    }
}
