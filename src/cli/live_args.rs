//! The flags of the live source, the same for every command that watches this kernel.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::exit::{CONFIG, Failure, UNAVAILABLE};
use crate::duration::up_to_a_day;
use crate::source::dtrace;
use crate::source::kqueue::{Notes, Open};
use crate::source::live::{self, Live, LiveConfig, Remote, RemoteConfig};
use crate::source::target::{Root, Target};

/// The tree of a command that was given after `--`.
pub(crate) const COMMAND_TREE: &str = "command";

/// What to watch on this kernel, and how.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "What to watch")]
pub struct LiveArgs {
    /// A process and its descendants: NAME=pid:NUMBER or NAME=pidfile:PATH. Repeatable
    #[arg(long = "kqueue.target", value_name = "TARGET")]
    targets: Vec<Target>,

    /// A process that uses EVFILT_PROC itself, such as a supervisor: NAME=pid:NUMBER or NAME=pidfile:PATH. DTrace alone
    /// watches what kevent(2) gives to it; the process is not touched. Repeatable
    #[arg(long = "consumer", value_name = "CONSUMER")]
    consumers: Vec<Target>,

    #[command(flatten)]
    notes: NotesArg,

    /// Sleep so long before each kevent(2) call, as a slow tracker does: 50ms, 2s
    #[arg(long = "kqueue.stall", value_name = "DURATION", value_parser = up_to_a_day)]
    stall: Option<Duration>,

    /// A command that runs dtrace(1) on another host, whose consumers are watched: 'ssh -T root@HOST dtrace'. It is run
    /// by no shell, as the user that serves
    #[arg(
        long = "dtrace.command",
        value_name = "COMMAND",
        value_parser = command_words,
        conflicts_with = "dtrace_path",
        help_heading = "dtrace"
    )]
    dtrace_command: Option<CommandWords>,

    #[command(flatten)]
    dtrace: DtraceArgs,

    /// A command to start and watch, as a tree named "command"; it begins once kqueue and DTrace watch it
    #[arg(last = true, value_name = "COMMAND", help_heading = "What to watch")]
    command: Vec<OsString>,
}

/// How dtrace(1) is run.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "dtrace")]
pub(crate) struct DtraceArgs {
    /// Where dtrace(1) is [default: /usr/sbin/dtrace]
    #[arg(long = "dtrace.path", value_name = "FILE")]
    dtrace_path: Option<PathBuf>,

    /// Its buffer on each CPU; dtrace takes less where memory is short [default: 8m]
    #[arg(long = "dtrace.bufsize", value_name = "SIZE")]
    bufsize: Option<dtrace::BufferSize>,

    /// How often it reads its buffers [default: 10hz]
    #[arg(long = "dtrace.switchrate", value_name = "RATE")]
    switchrate: Option<dtrace::Switchrate>,

    /// Do without the fbt probes that say why the kernel lost something
    #[arg(long = "no-dtrace.causes")]
    no_causes: bool,
}

/// The words of a command line.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct CommandWords(pub(super) Vec<String>);

pub(super) fn command_words(line: &str) -> Result<CommandWords, &'static str> {
    dtrace::command::words(line).map(CommandWords)
}

impl DtraceArgs {
    /// The supervisor's options: the defaults where no flag was given.
    pub(crate) fn options(&self) -> dtrace::DtraceOptions {
        self.over(dtrace::DtraceOptions::default())
    }

    /// `base`, but for the flags that were given.
    fn over(&self, base: dtrace::DtraceOptions) -> dtrace::DtraceOptions {
        dtrace::DtraceOptions {
            path: self.dtrace_path.clone().or(base.path),
            bufsize: self.bufsize.clone().unwrap_or(base.bufsize),
            switchrate: self.switchrate.clone().unwrap_or(base.switchrate),
            causes: base.causes && !self.no_causes,
            ..base
        }
    }
}

/// What is asked for beside NOTE_TRACK and NOTE_EXIT.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "What to watch")]
pub(super) struct NotesArg {
    /// Also ask for NOTE_FORK (fork), NOTE_EXEC (exec) or both (fork,exec), as a tracker may; the kernel then delivers
    /// some events out of order and can lose NOTE_EXIT
    #[arg(
        long = "kqueue.notes",
        value_name = "NOTE",
        value_enum,
        value_delimiter = ',',
        hide_possible_values = true
    )]
    notes: Vec<NoteArg>,
}

impl NotesArg {
    /// What was asked for; `None` without the flag.
    pub(super) fn notes(&self) -> Option<Notes> {
        let has = |note| self.notes.contains(&note);
        (!self.notes.is_empty())
            .then(|| Notes { fork: has(NoteArg::Fork), exec: has(NoteArg::Exec) })
    }
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum NoteArg {
    /// NOTE_FORK
    Fork,
    /// NOTE_EXEC
    Exec,
}

/// What must be there before anything of this host is watched.
///
/// # Errors
/// It is not; with the status that says whether the command line, the configuration, or this host is to blame.
pub(crate) fn prepare(config: LiveConfig, open: Open) -> anyhow::Result<Live> {
    Live::prepare(config, open).map_err(with_status)
}

/// What is known before another host is reached.
///
/// # Errors
/// It cannot be watched so; with its status.
pub(super) fn prepare_remote(config: RemoteConfig) -> anyhow::Result<Remote> {
    Remote::new(config).map_err(with_status)
}

fn with_status(error: live::LiveError) -> anyhow::Error {
    let status = match error {
        live::LiveError::Targets(_) => CONFIG,
        _ => UNAVAILABLE,
    };
    Failure::new(status, error).into()
}

impl LiveArgs {
    /// Whether any of these flags, or a command, was given.
    pub(crate) fn is_given(&self) -> bool {
        self.config(None) != LiveConfig::default()
    }

    /// Whether any flag but `--consumer`, or a command, was given.
    pub(crate) fn names_more_than_consumers(&self) -> bool {
        LiveArgs { consumers: Vec::new(), ..self.clone() }.is_given()
    }

    /// The configuration of the live source. With `linger` it ends so long after the command has ended.
    pub(crate) fn config(&self, linger: Option<Duration>) -> LiveConfig {
        LiveConfig { linger, ..self.over(LiveConfig::default()) }
    }

    /// `base` and the trees that the flags name, in its other settings but for the flags that were given.
    pub(crate) fn over(&self, base: LiveConfig) -> LiveConfig {
        let mut targets = base.targets;
        targets.extend_from_slice(&self.targets);
        if !self.command.is_empty() {
            let root = Root::Command(self.command.clone());
            targets.push(Target { name: COMMAND_TREE.to_owned(), root });
        }
        let of_flag = self.dtrace_command.clone().map(|words| words.0);
        let command = of_flag.or_else(|| base.dtrace.command.clone());
        let mut consumers = base.consumers;
        consumers.extend_from_slice(&self.consumers);
        LiveConfig {
            targets,
            consumers,
            notes: self.notes.notes().unwrap_or(base.notes),
            stall: self.stall.unwrap_or(base.stall),
            dtrace: dtrace::DtraceOptions { command, ..self.dtrace.over(base.dtrace) },
            ..base
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        live: LiveArgs,
    }

    fn parse(line: &[&str]) -> Result<LiveConfig, clap::Error> {
        let line = ["test"].iter().chain(line);
        Line::try_parse_from(line).map(|line| line.live.config(None))
    }

    #[test]
    fn flags_become_a_configuration() {
        let config = parse(&[
            "--kqueue.target",
            "pg=pid:812",
            "--consumer=s6=pidfile:/run/s6.pid",
            "--kqueue.notes=fork,exec",
            "--kqueue.stall=50ms",
            "--no-dtrace.causes",
            "--",
            "make",
            "-j4",
        ])
        .expect("it parses");
        let names: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["pg", "command"]);
        assert_eq!(config.targets[1].root, Root::Command(vec!["make".into(), "-j4".into()]));
        assert_eq!(config.consumers, ["s6=pidfile:/run/s6.pid".parse().expect("a consumer")]);
        assert_eq!(config.notes, Notes { fork: true, exec: true });
        assert_eq!(config.stall, Duration::from_millis(50));
        assert!(!config.dtrace.causes);
    }

    #[test]
    fn what_was_not_given_is_the_default() {
        let config = parse(&[]).expect("it parses");
        assert!(config.is_empty());
        assert_eq!(config.dtrace, dtrace::DtraceOptions::default());
    }

    #[test]
    fn bad_flags_are_refused() {
        for flag in [
            "--kqueue.target=812",
            "--kqueue.notes=track",
            "--kqueue.stall=50",
            "--dtrace.bufsize=8x",
            "--dtrace.switchrate=10",
        ] {
            assert!(parse(&[flag]).is_err(), "{flag}");
        }
    }
}
