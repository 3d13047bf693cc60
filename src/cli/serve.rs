//! `serve`: the exporter.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail};
use tokio::sync::oneshot;

use super::exit::{OrExit, UNAVAILABLE, USAGE};
use super::feed::Feed;
use super::ingest::Ingest;
use super::live_args::LiveArgs;
use super::log_args::LogArgs;
use super::signals::Signals;
use super::web_args::WebArgs;
use crate::http::{Server, State};
use crate::source::live::Live;

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
    live: LiveArgs,

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
    /// This kernel: EVFILT_PROC and dtrace(1); FreeBSD only, as root
    Live,
    /// A recording of some kernel at some other time
    Replay,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.service.log.init();
    let source = args.source.unwrap_or_else(|| {
        if cfg!(target_os = "freebsd") || args.live.names_a_target() {
            return SourceKind::Live;
        }
        if args.recording.is_none() {
            tracing::warn!(
                "this is not FreeBSD: what is served is a recording of another kernel, not this host"
            );
        }
        SourceKind::Replay
    });
    let feed = match source {
        SourceKind::Live if args.recording.is_some() => {
            return Err(anyhow::anyhow!("--recording goes with --source replay")).or_exit(USAGE);
        }
        SourceKind::Live => {
            Feed::Live(Box::new(Live::prepare(args.live.config(None)).or_exit(UNAVAILABLE)?))
        }
        SourceKind::Replay => Feed::replay(args.recording, args.repeat, args.speed)?,
    };
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
    let stop = feed.stop();
    // Dropped without a word when the feed has ended well: what it said is served on.
    let (failed, failure) = oneshot::channel();
    let ingest = {
        let (mut ingest, stop) = (Ingest::new(state.clone()), stop.clone());
        let feed = move || match feed.run(&mut ingest, &stop) {
            Ok(()) => {}
            Err(error) => drop(failed.send(error)),
        };
        thread::Builder::new().name("ingest".into()).spawn(feed)?
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the HTTP service")?;
    let failed = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut failed = None;
        let over = async {
            tokio::select! {
                () = signals.next() => {}
                Ok(error) = failure => failed = Some(error),
            }
        };
        server.run(state, over).await?;
        Ok::<_, anyhow::Error>(failed)
    })?;
    stop.request();
    if ingest.join().is_err() {
        bail!("the ingest thread panicked; please report what the log says above");
    }
    match failed {
        Some(error) => Err(error).or_exit(UNAVAILABLE),
        None => Ok(ExitCode::SUCCESS),
    }
}
