//! The configuration of a live source, and why it cannot be watched.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::RemoteConfig;
use crate::input::MOST_CONSUMERS;
use crate::model::Pid;
use crate::source::dtrace;
use crate::source::keeper::Gone;
use crate::source::kqueue::Notes;
use crate::source::target::Target;

/// What to watch, and how.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct LiveConfig {
    /// The trees; their numbers are their places here.
    pub targets: Vec<Target>,
    /// The processes that use EVFILT_PROC themselves, and are watched by DTrace alone; their numbers follow those of the
    /// targets. No command is among them.
    pub consumers: Vec<Target>,
    /// Which notes to ask for.
    pub notes: Notes,
    /// How long the reader sleeps before each kevent(2) call: a slow consumer on purpose.
    pub stall: Duration,
    /// How dtrace(1) is run.
    pub dtrace: dtrace::DtraceOptions,
    /// End so long after the last command among the targets has ended; `None` to go on for ever.
    pub linger: Option<Duration>,
    /// Keep the commands' stderr for [`super::CommandEnd::stderr`], instead of passing it on to this process's.
    pub keep_stderr: bool,
    /// This program, which is started to keep dtrace and to wait in a command's place: `None` for the one that runs.
    pub own_program: Option<PathBuf>,
}

impl LiveConfig {
    /// What is watched by a command on another host, if one is given.
    pub fn remote(&self) -> Option<RemoteConfig> {
        let LiveConfig { dtrace, consumers, .. } = self.clone();
        let command = dtrace.command.clone()?;
        Some(RemoteConfig { host: String::new(), command, dtrace, consumers })
    }

    /// Whether there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.consumers.is_empty()
    }
}

/// Why a live source cannot begin, or had to end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each error's text says what it is")]
pub enum LiveError {
    /// There is nothing to watch, or it cannot be watched together.
    #[error("{0}")]
    Targets(String),
    #[error(transparent)]
    Dtrace(#[from] dtrace::DtraceError),
    #[error("cannot find this program, which runs dtrace as well: {0}")]
    Program(io::Error),
    #[error(
        "consumer {name:?}: there is no process {pid}; give the pid of one that runs, or its pid file: {name}=pidfile:PATH"
    )]
    NoConsumer { name: String, pid: Pid },
    #[error(transparent)]
    KeeperGone(#[from] Gone),
    #[error("cannot open a kqueue that tracks processes: {0}")]
    Kqueue(io::Error),
    #[error("kevent(2) failed, so kqueue reports nothing any more: {0}")]
    Kevent(io::Error),
    #[error("cannot start the command of tree {name:?}: {source}")]
    Command { name: String, source: io::Error },
    #[error("dtrace has not begun to trace within {0:?}; its messages are in the log above")]
    NeverBegan(Duration),
    #[error(
        "cannot read stdin: {0}; it is to be what dtrace prints: dtrace -s consumer.d PID 2>&1 | ..."
    )]
    Stdin(io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Whether these can be watched together.
///
/// # Errors
/// [`LiveError::Targets`].
pub fn check(config: &LiveConfig) -> Result<(), LiveError> {
    problem(config).map_or(Ok(()), |why| Err(LiveError::Targets(why)))
}

fn problem(config: &LiveConfig) -> Option<String> {
    let LiveConfig { targets, consumers, dtrace, .. } = config;
    if config.is_empty() {
        let text = "nothing to watch: give --kqueue.target, --consumer, or a command after --; to serve, a [[tree]] or \
                    a [[consumer]] in --config.file is as good";
        return Some(text.to_owned());
    }
    if dtrace.command.is_some() && !targets.is_empty() {
        let text = "--dtrace.command watches consumers of another host: a --kqueue.target, a [[tree]] or a command after -- \
                    is a process of this one, for an exporter of its own";
        return Some(text.to_owned());
    }
    if consumers.len() > MOST_CONSUMERS {
        return Some(format!(
            "{} consumers: one exporter watches {MOST_CONSUMERS} at most; give the others to a second one",
            consumers.len()
        ));
    }
    // A record of a consumer has its pid alone: it is one tree's.
    for (place, Target { name, root }) in consumers.iter().enumerate() {
        if let Some(twice) = consumers.iter().skip(place + 1).find(|other| other.root == *root) {
            return Some(format!(
                "consumers {name:?} and {:?} are the same process: leave one out",
                twice.name
            ));
        }
    }
    let trees = || targets.iter().chain(consumers);
    if trees().count() > usize::from(u16::MAX) {
        return Some(format!("more than {} trees", u16::MAX));
    }
    let mut names = HashSet::new();
    let twice = trees().find(|target| !names.insert(&target.name))?;
    Some(format!("two trees are named {:?}", twice.name))
}
