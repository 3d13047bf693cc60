//! `serve`: the exporter.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::ingest::Ingest;
use super::log_args::LogArgs;
use super::web_args::WebArgs;
use crate::http::{About, Server, State};
use crate::metrics::{Origin, Source};
use crate::recording::Meta;
use crate::source::replay::{Paced, Replay, Wait};

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
    args.log.init();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting kqproc_exporter");
    match args.source {
        Some(SourceKind::Replay) => {}
        None => tracing::warn!(
            "this is not FreeBSD: what is served is a recording of another kernel, not this host"
        ),
    }
    let replay = open(&args)?;
    let server = Server::bind(&args.web)?;
    let state = State::new(about(&replay.meta(), args.recording.as_ref()));
    let stop = Arc::new(AtomicBool::new(false));
    let ingest = {
        let (state, stop) = (state.clone(), Arc::clone(&stop));
        thread::Builder::new()
            .name("ingest".into())
            .spawn(move || play(&args, replay, state, &stop))?
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

fn open(args: &Args) -> anyhow::Result<Replay> {
    Ok(match &args.recording {
        Some(path) => Replay::open(path)?,
        None => Replay::bundled()?,
    })
}

fn about(meta: &Meta, recording: Option<&PathBuf>) -> About {
    About {
        origin: Origin::Replay,
        detail: recording.map_or("bundled recording".into(), |path| path.display().to_string()),
        osrelease: meta.uname.split(' ').nth(1).unwrap_or_default().to_owned(),
        osreldate: meta.osreldate,
        sources: vec![Source::Kqueue, Source::Dtrace],
    }
}

/// Plays the recording, once or again and again, until it is told to stop.
fn play(args: &Args, first: Replay, state: State, stop: &AtomicBool) {
    let mut ingest = Ingest::new(state);
    let mut next = Some(first);
    while let Some(replay) = next.take() {
        let began = std::time::Instant::now();
        let wait = Interruptible { began, stop };
        let mut sink =
            Paced::new(|input: crate::input::Input<'_>| ingest.push(input), args.speed, wait);
        if let Err(error) = replay.play(&mut sink) {
            tracing::warn!(%error, "the recording is damaged; what came before is served");
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        ingest.begin_again();
        if args.repeat {
            next = open(args)
                .inspect_err(|error| tracing::error!(%error, "cannot play it again"))
                .ok();
        }
    }
    tracing::info!("the recording has come to its end; its figures stay");
}

/// Waits in small steps, so that the service can stop in the middle of a long pause.
struct Interruptible<'a> {
    began: std::time::Instant,
    stop: &'a AtomicBool,
}

impl Wait for Interruptible<'_> {
    fn until(&mut self, since_start: Duration) -> ControlFlow<()> {
        const STEP: Duration = Duration::from_millis(100);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            let left = since_start.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                return ControlFlow::Continue(());
            }
            thread::sleep(left.min(STEP));
        }
    }
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
