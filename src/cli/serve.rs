//! `serve`: the exporter.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::config::Settings;
use super::exit::{CONFIG, Failure, NOPERM, OrExit, SOFTWARE, UNAVAILABLE, USAGE};
use super::feed::Feed;
use super::live_args::{LiveArgs, prepare, prepare_remote};
use super::log_args::LogArgs;
use super::output;
use super::signals::{Signals, survive_hangup};
use super::user::{Identity, UserArgs, name_the_denied};
use crate::check::Config;
use crate::http::web_args::WebArgs;
use crate::http::{BindError, Server, State};
use crate::source::kqueue::Open;
use crate::source::live::{self, Stdin};
use crate::source::sysctl::{HIDING_JAILED, hidden_by, hides_jailed};

/// How long the end of the service waits for what still runs.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// As fast as it was recorded.
const NORMAL_SPEED: f64 = 1.0;

/// Where the inputs come from, and how they are served.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Source")]
pub struct ServeArgs {
    /// What to judge; without it this kernel on FreeBSD, and elsewhere the recordings that are part of the program
    #[arg(long, value_enum)]
    source: Option<SourceKind>,

    /// What to replay: a recording, or a folder with dtrace.txt and pid.txt or kevents.jsonl; without it, the recording
    /// that is part of the program
    #[arg(long, value_name = "PATH")]
    recording: Option<PathBuf>,

    /// How many times faster than it was recorded; 0: as fast as it can be read
    #[arg(
        long,
        value_name = "N",
        default_value_t = NORMAL_SPEED,
        allow_negative_numbers = true,
        value_parser = speed
    )]
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
#[command(next_help_heading = "Configuration")]
struct ConfigArgs {
    /// TOML file with the trees to watch, and how; a flag comes before what it says
    #[arg(id = "config.file", long = "config.file", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Say whether both configuration files are good, and exit
    #[arg(id = "config.check", long = "config.check")]
    check: bool,
}

/// The service around a source.
#[derive(clap::Args, Debug)]
pub struct ServiceArgs {
    #[command(flatten)]
    user: UserArgs,

    #[command(flatten)]
    web: WebArgs,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
enum SourceKind {
    /// this kernel, by EVFILT_PROC and dtrace(1): FreeBSD, as root
    Live,
    /// a recording of some kernel, in its own time
    Replay,
    /// what a dtrace(1) prints on stdin, run by somebody else: dtrace -s consumer.d PID 2>&1 | ...
    Stdin,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed: &f64| speed.is_finite() && *speed >= 0.0);
    speed.ok_or_else(|| "give a number such as 0.5, 1 or 10; 0 is as fast as possible".to_owned())
}

pub(super) fn run(args: ServeArgs, open: Open) -> anyhow::Result<ExitCode> {
    start(args, open).map_err(name_the_denied)
}

fn start(args: ServeArgs, open: Open) -> anyhow::Result<ExitCode> {
    args.service.log.init();
    survive_hangup()?;
    let settings = Settings::load(args.config.file.as_deref(), &args.live).or_exit(CONFIG)?;
    let source =
        args.source.unwrap_or(match cfg!(target_os = "freebsd") || settings.names_anything() {
            true => SourceKind::Live,
            false => SourceKind::Replay,
        });
    fits(source, &args).or_exit(USAGE)?;
    if args.config.check {
        args.service.user.apply().or_exit(NOPERM)?;
        return check_config(source, &settings, &args.service.web);
    }
    let feed = match source {
        SourceKind::Live => {
            watchable(&settings)?;
            // The keeper and the command start first, with the rights of the user who started the exporter.
            let local = match settings.watches_this_host() {
                true => Some(prepare(settings.live.clone(), open)?),
                false => None,
            };
            let identity = change_user(&args.service.user)?;
            if local.is_some() {
                must_see_others(&identity, hidden_by())?;
            }
            // A command is run as the user that serves.
            let remotes = settings.remotes().map(prepare_remote).collect::<Result<_, _>>()?;
            Feed::live(local, remotes)
        }
        SourceKind::Stdin => {
            change_user(&args.service.user)?;
            let stdin = Stdin::new(&settings.live.consumers);
            Feed::stdin(stdin.or_exit(CONFIG)?)
        }
        SourceKind::Replay => {
            change_user(&args.service.user)?;
            match args.source.is_none() && args.recording.is_none() {
                true => {
                    tracing::warn!(
                        "this is not FreeBSD: what is served are recordings of other kernels, over and over, not this host"
                    );
                    Feed::demo(args.speed)?
                }
                false => Feed::replay(args.recording, args.repeat, args.speed)?,
            }
        }
    };
    let state = feed.state();
    let check = settings.check;
    if let Some(file) = args.config.file {
        if let Err(error) = Settings::load(Some(&file), &args.live) {
            tracing::warn!("a reload will fail: {error}");
        }
        state.on_reload(move || unchanged(&file, &args.live, &settings));
    }
    serve(feed, state, check, &args.service.web)
}

/// A flag that would do nothing is a mistake.
fn fits(source: SourceKind, args: &ServeArgs) -> anyhow::Result<()> {
    let of_replay = args.recording.is_some() || args.repeat || args.speed != NORMAL_SPEED;
    match source {
        SourceKind::Live | SourceKind::Stdin if of_replay => {
            bail!("--recording, --speed and --loop go with --source replay")
        }
        SourceKind::Stdin if args.live.names_more_than_consumers() => {
            bail!(
                "--kqueue.*, --dtrace.* and a command after -- go with --source live; stdin has consumers alone"
            )
        }
        SourceKind::Replay if args.live.is_given() => {
            bail!("--kqueue.*, --consumer, --dtrace.* and a command after -- go with --source live")
        }
        _ => Ok(()),
    }
}

/// Changes to the user to serve as. That user must be able to read every file that is read from here on.
fn change_user(user: &UserArgs) -> anyhow::Result<Identity> {
    let identity = user.apply().or_exit(NOPERM)?;
    match identity.is_root {
        true => {
            tracing::warn!(
                "serving as root, as --user says: a fault in this server is a fault of root's"
            )
        }
        false => tracing::info!("serving as {identity}"),
    }
    Ok(identity)
}

/// Processes that the kernel hides from a user cannot be tracked by it: kevent(2) says that they do not exist
/// (13.2 `kern_event.c`, `filt_procattach`: `p_cansee`).
fn must_see_others(identity: &Identity, hidden_by: Option<&str>) -> anyhow::Result<()> {
    if identity.is_root {
        return Ok(());
    }
    if hides_jailed() {
        let sysctl = HIDING_JAILED.0;
        tracing::warn!(
            "{sysctl} hides processes in jails from {identity}: no tree can begin there, and a consumer there \
             counts as ended"
        );
    }
    match hidden_by {
        Some(sysctl) => Err(anyhow::anyhow!(
            "{sysctl} hides other users' processes from {identity}: change it, or serve with --user root"
        ))
        .or_exit(NOPERM),
        None => Ok(()),
    }
}

/// Whether what is named can be watched.
fn watchable(settings: &Settings) -> anyhow::Result<()> {
    if settings.watches_this_host() || settings.live.remote().is_some() {
        live::check(&settings.live).or_exit(CONFIG)?;
    }
    settings.remotes().try_for_each(|remote| prepare_remote(remote).map(drop))
}

/// `--config.check`: what was read already is good; the web configuration is to be.
fn check_config(
    source: SourceKind,
    settings: &Settings,
    web: &WebArgs,
) -> anyhow::Result<ExitCode> {
    if source == SourceKind::Live {
        watchable(settings)?;
    }
    Server::bind(&WebArgs { listen_addresses: Vec::new(), ..web.clone() }).or_exit(CONFIG)?;
    output::print("configuration is good\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Reloads the configuration file. Other trees need a restart, so no change is taken up, and a change is an error.
fn unchanged(file: &Path, flags: &LiveArgs, runs: &Settings) -> Result<(), String> {
    let now = Settings::load(Some(file), flags).map_err(|error| error.to_string())?;
    if now == *runs {
        return Ok(());
    }
    let file = file.display();
    Err(format!("{file} is good, but not what runs: restart for its changes to take effect"))
}

impl ServiceArgs {
    /// Serves what `feed` yields until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// The service cannot be started.
    pub fn serve(&self, feed: Feed) -> anyhow::Result<ExitCode> {
        self.log.init();
        change_user(&self.user)?;
        let state = feed.state();
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
    on_runtime(|runtime| serve_on(runtime, feed, state, check, web))
}

/// What `work` gives. A file that is read from a disk that hangs must not keep the process then.
fn on_runtime<T>(work: impl FnOnce(&Runtime) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the HTTP service")?;
    let done = work(&runtime);
    runtime.shutdown_timeout(LAST_PATIENCE);
    done
}

fn serve_on(
    runtime: &Runtime,
    feed: Feed,
    state: State,
    check: Config,
    web: &WebArgs,
) -> anyhow::Result<ExitCode> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting kqproc_exporter");
    let server = bind(web)?;
    let stop = feed.stop();
    feed.measure_cpu(&state);
    let (ended, end) = oneshot::channel();
    let ingest = {
        let state = state.clone();
        // The receiver is gone if the service was stopped first.
        let feed = move || drop(ended.send(feed.run(&state, check)));
        thread::Builder::new().name("ingest".into()).spawn(feed)?
    };
    let (failed, signals) = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut failed = None;
        let over = async {
            tokio::select! {
                () = signals.next() => {}
                error = failure(end) => failed = error,
            }
        };
        server.run(state, over).await?;
        Ok::<_, anyhow::Error>((failed, signals))
    })?;
    stop.request();
    // A second signal is for a dtrace that does not end.
    runtime.spawn(signals.hand_on_to(stop));
    if ingest.join().is_err() {
        let error = anyhow::anyhow!("the ingest thread panicked: please report what stands above");
        return Err(error).or_exit(SOFTWARE);
    }
    match failed {
        Some(error) => Err(error).or_exit(UNAVAILABLE),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Waits for the feed to fail: its error, or `None` if its thread has panicked, which the join reports. A feed that ends
/// without an error ends nothing: its figures are served on.
async fn failure<E>(end: oneshot::Receiver<Result<(), E>>) -> Option<E> {
    match end.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::exit::status_of;
    use super::*;

    #[test]
    fn only_root_serves_where_the_kernel_hides_processes() {
        let of = |name: &str, is_root| Identity { name: name.to_owned(), is_root };
        let (nobody, root) = (of("nobody", false), of("root", true));
        let sysctl = "security.bsd.see_other_uids";
        let error = must_see_others(&nobody, Some(sysctl)).expect_err("it is hidden");
        assert_eq!(status_of(&error), NOPERM);
        let expected = "security.bsd.see_other_uids hides other users' processes from user nobody: \
             change it, or serve with --user root";
        assert_eq!(error.to_string(), expected);
        assert!(must_see_others(&root, Some(sysctl)).is_ok());
        assert!(must_see_others(&nobody, None).is_ok());
    }

    #[test]
    fn a_read_that_hangs_keeps_no_exporter_from_its_end() {
        let ((begun, begins), (_held, hangs)) = (channel(), channel::<()>());
        let read = move || (begun.send(()), hangs.recv());
        let begins = on_runtime(|runtime| {
            runtime.spawn_blocking(read);
            Ok(begins.recv()?)
        });
        assert!(begins.is_ok());
    }

    #[tokio::test]
    async fn an_ingest_thread_that_panics_ends_the_service_and_one_that_ends_well_does_not() {
        let (ended, end) = oneshot::channel::<Result<(), &str>>();
        let panics = thread::spawn(move || {
            let _ended = ended;
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert_eq!(failure(end).await, None);
        assert!(panics.join().is_err());
        for (result, over) in [(Ok(()), false), (Err("dtrace is gone"), true)] {
            let (ended, end) = oneshot::channel();
            ended.send(result).unwrap();
            let waits = tokio::time::timeout(std::time::Duration::ZERO, failure(end));
            assert_eq!(waits.await.is_ok(), over, "{result:?}");
        }
    }
}
