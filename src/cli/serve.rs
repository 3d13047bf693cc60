//! `serve`: the exporter.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail};
use tokio::sync::oneshot;

use super::config::Settings;
use super::exit::{CONFIG, Failure, OrExit, UNAVAILABLE, USAGE};
use super::feed::Feed;
use super::ingest::Ingest;
use super::live_args::LiveArgs;
use super::log_args::LogArgs;
use super::signals::Signals;
use crate::check::Config;
use crate::http::web_args::WebArgs;
use crate::http::{BindError, Server, State};
use crate::source::live::{self, Live};

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
    config: ConfigArgs,

    #[command(flatten)]
    live: LiveArgs,

    #[command(flatten)]
    service: ServiceArgs,
}

/// The configuration file.
#[derive(clap::Args, Debug)]
struct ConfigArgs {
    /// File with the trees to watch and how, TOML; a flag that is given comes before it
    #[arg(id = "config.file", long = "config.file", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Say whether the configuration and the web configuration are good, and exit
    #[arg(id = "config.check", long = "config.check")]
    check: bool,
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
    let ConfigArgs { file, check } = args.config;
    let settings = Settings::load(file.as_deref(), &args.live).or_exit(CONFIG)?;
    let source = args.source.unwrap_or(
        match cfg!(target_os = "freebsd") || !settings.live.targets.is_empty() {
            true => SourceKind::Live,
            false => SourceKind::Replay,
        },
    );
    if source == SourceKind::Live && args.recording.is_some() {
        return Err(anyhow::anyhow!("--recording goes with --source replay")).or_exit(USAGE);
    }
    if check {
        return say_good(source, &settings, &args.service.web);
    }
    let mut check = settings.check;
    let feed = match source {
        SourceKind::Live => {
            check.switch_ns = settings.live.dtrace.switch_ns().unwrap_or(check.switch_ns);
            Feed::Live(Box::new(Live::prepare(settings.live.clone()).or_exit(UNAVAILABLE)?))
        }
        SourceKind::Replay => {
            if args.source.is_none() && args.recording.is_none() {
                tracing::warn!(
                    "this is not FreeBSD: what is served is a recording of another kernel, not this host"
                );
            }
            Feed::replay(args.recording, args.repeat, args.speed)?
        }
    };
    let state = State::new(feed.about());
    if let Some(file) = file {
        state.on_reload(move || unchanged(&file, &args.live, &settings));
    }
    serve(feed, state, check, &args.service.web)
}

/// `--config.check`: what was read already is good; the web configuration is to be.
fn say_good(source: SourceKind, settings: &Settings, web: &WebArgs) -> anyhow::Result<ExitCode> {
    if source == SourceKind::Live {
        live::check(&settings.live.targets).or_exit(CONFIG)?;
    }
    Server::bind(&WebArgs { listen_addresses: Vec::new(), ..web.clone() }).or_exit(CONFIG)?;
    writeln!(stdout(), "configuration is good")?;
    Ok(ExitCode::SUCCESS)
}

/// What a reload does with the configuration file. To watch other trees is to begin again, so no change is taken up,
/// and none goes by in silence.
fn unchanged(file: &Path, flags: &LiveArgs, runs: &Settings) -> Result<(), String> {
    let now = Settings::load(Some(file), flags).map_err(|error| error.to_string())?;
    if now == *runs {
        return Ok(());
    }
    let file = file.display();
    Err(format!("{file} is good, but not what runs: restart for its changes to take effect"))
}

impl ServiceArgs {
    /// Serves what `feed` says until the process is told to stop.
    ///
    /// # Errors
    /// The service cannot be started.
    pub fn serve(&self, feed: Feed) -> anyhow::Result<ExitCode> {
        self.log.init();
        let state = State::new(feed.about());
        serve(feed, state, Config::default(), &self.web)
    }
}

fn bind(web: &WebArgs) -> anyhow::Result<Server> {
    Server::bind(web).map_err(|error| {
        let status = match error {
            BindError::Listen { .. } => UNAVAILABLE,
            BindError::WebConfig(_) => CONFIG,
        };
        Failure::new(status, error).into()
    })
}

fn serve(feed: Feed, state: State, check: Config, web: &WebArgs) -> anyhow::Result<ExitCode> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting kqproc_exporter");
    let server = bind(web)?;
    let stop = feed.stop();
    // Dropped without a word when the feed has ended well: what it said is served on.
    let (failed, failure) = oneshot::channel();
    let ingest = {
        let (mut ingest, stop) = (Ingest::new(state.clone(), check), stop.clone());
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
