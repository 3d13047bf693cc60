//! `serve`, the exporter: its flags, the source that they choose, and what must hold before it serves.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;

use super::config::Settings;
use super::exit::{CONFIG, NOPERM, OrExit, USAGE};
use super::feed::Feed;
use super::live_args::{LiveArgs, prepare, prepare_remote};
use super::output;
use super::service::{self, ServiceArgs};
use super::signals::survive_hangup;
use super::user::{Identity, UserArgs, name_the_denied};
use crate::http::Server;
use crate::http::web_args::WebArgs;
use crate::source::kqueue::Open;
use crate::source::live::{self, Stdin};
use crate::source::sysctl::{HIDING_JAILED, hidden_by, hides_jailed};

/// As fast as it was recorded.
const NORMAL_SPEED: f64 = 1.0;

/// Where the inputs come from, and how they are served.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Source")]
pub(super) struct ServeArgs {
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
    let source = args.source(&settings);
    args.check_flags(source).or_exit(USAGE)?;
    if args.config.check {
        args.service.user.apply().or_exit(NOPERM)?;
        return check_config(source, &settings, &args.service.web);
    }
    let feed = match source {
        SourceKind::Live => live_feed(&settings, &args.service.user, open)?,
        SourceKind::Stdin => {
            args.service.user.change()?;
            let stdin = Stdin::new(&settings.live.consumers);
            Feed::stdin(stdin.or_exit(CONFIG)?)
        }
        SourceKind::Replay => {
            args.service.user.change()?;
            args.recorded_feed()?
        }
    };
    let check = settings.check;
    if let Some(file) = args.config.file {
        if let Err(error) = Settings::load(Some(&file), &args.live) {
            tracing::warn!("a reload will fail: {error}");
        }
        feed.state().on_reload(move || unchanged(&file, &args.live, &settings));
    }
    service::serve(feed, check, &args.service.web)
}

impl ServeArgs {
    /// What is to be served: what the command line says, or the default of this system and configuration.
    fn source(&self, settings: &Settings) -> SourceKind {
        self.source.unwrap_or(match cfg!(target_os = "freebsd") || settings.names_anything() {
            true => SourceKind::Live,
            false => SourceKind::Replay,
        })
    }

    /// A flag that would do nothing is a mistake.
    fn check_flags(&self, source: SourceKind) -> anyhow::Result<()> {
        let of_replay = self.recording.is_some() || self.repeat || self.speed != NORMAL_SPEED;
        match source {
            SourceKind::Live | SourceKind::Stdin if of_replay => {
                bail!("--recording, --speed and --loop go with --source replay")
            }
            SourceKind::Stdin if self.live.names_more_than_consumers() => {
                bail!(
                    "--kqueue.*, --dtrace.* and a command after -- go with --source live; stdin has consumers alone"
                )
            }
            SourceKind::Replay if self.live.is_given() => {
                bail!(
                    "--kqueue.*, --consumer, --dtrace.* and a command after -- go with --source live"
                )
            }
            _ => Ok(()),
        }
    }

    /// The recording that is named, or those that are part of the program if the command line names nothing.
    fn recorded_feed(&self) -> anyhow::Result<Feed> {
        if self.source.is_some() || self.recording.is_some() {
            return Ok(Feed::replay(self.recording.clone(), self.repeat, self.speed)?);
        }
        tracing::warn!(
            "this is not FreeBSD: what is served are recordings of other kernels, over and over, not this host"
        );
        Ok(Feed::demo(self.speed)?)
    }
}

/// The running kernels that the settings name. Becomes the user to serve as on the way.
fn live_feed(settings: &Settings, user: &UserArgs, open: Open) -> anyhow::Result<Feed> {
    watchable(settings)?;
    // The keeper and the command start first, with the rights of the user who started the exporter.
    let local = match settings.watches_this_host() {
        true => Some(prepare(settings.live.clone(), open)?),
        false => None,
    };
    let identity = user.change()?;
    if local.is_some() {
        must_see_others(&identity, hidden_by())?;
    }
    // A command is run as the user that serves.
    let remotes = settings.remotes().map(prepare_remote).collect::<Result<_, _>>()?;
    Ok(Feed::live(local, remotes))
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

#[cfg(test)]
mod tests {
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
}
