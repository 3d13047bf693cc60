//! Consumers: the processes that use EVFILT_PROC themselves. They are found by their pids and pid files, and asked for
//! nothing: DTrace alone watches them.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::kill;

use super::pid_file::PidFile;
use super::{LiveConfig, LiveError};
use crate::model::{Pid, TreeId};
use crate::source::keeper::Keeper;
use crate::source::target::{Root, Target};

#[derive(Debug, Default)]
pub(super) struct Consumers(Vec<WatchedConsumer>);

#[derive(Debug)]
struct WatchedConsumer {
    id: TreeId,
    name: String,
    file: Option<PidFile>,
    state: ConsumerState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConsumerState {
    /// It is waited for, if it has a pid file.
    Absent,
    Running(Pid),
    /// It has ended, but dtrace(1) may not have printed its last events yet.
    Ended(Pid),
}

impl WatchedConsumer {
    /// A process that is named by its pid must be there at the start; that of a pid file is waited for.
    fn of(
        target: &Target,
        id: TreeId,
        pid_files: &[PathBuf],
    ) -> Result<WatchedConsumer, LiveError> {
        let name = target.name.clone();
        let (file, state) = match &target.root {
            Root::Pid(pid) if is_there(*pid) => (None, ConsumerState::Running(*pid)),
            Root::Pid(pid) => return Err(LiveError::NoConsumer { name, pid: *pid }),
            Root::PidFile(path) => (Some(PidFile::new(path, pid_files)), ConsumerState::Absent),
            Root::Command(_) => {
                return Err(LiveError::Targets(format!(
                    "consumer {name:?} is a command: give the pid of a process, or its pid file"
                )));
            }
        };
        Ok(WatchedConsumer { id, name, file, state })
    }

    /// Looks whether it still runs, or runs by now. `Some` with its pid, or with that there is none, if that has changed.
    fn look(&mut self, keeper: &Keeper) -> Option<Option<Pid>> {
        match self.state {
            ConsumerState::Running(pid) => {
                if !is_there(pid) {
                    tracing::info!("consumer {:?}: process {pid} has ended", self.name);
                    self.state = ConsumerState::Ended(pid);
                }
                None
            }
            ConsumerState::Ended(pid) => {
                if let Some(file) = &mut self.file {
                    file.lose(Some(pid));
                }
                self.state = ConsumerState::Absent;
                Some(None)
            }
            ConsumerState::Absent => {
                let file = self.file.as_mut()?;
                let pid = file.read(keeper, &self.name)?;
                if !is_there(pid) {
                    file.complain(&self.name, format!("there is no process {pid}"));
                    return None;
                }
                file.found();
                tracing::info!("consumer {:?}: watching process {pid}", self.name);
                self.state = ConsumerState::Running(pid);
                Some(Some(pid))
            }
        }
    }

    fn pid(&self) -> Option<Pid> {
        match self.state {
            ConsumerState::Running(pid) | ConsumerState::Ended(pid) => Some(pid),
            ConsumerState::Absent => None,
        }
    }
}

impl Consumers {
    /// Those of a configuration, whose pid files are among the keeper's. Their numbers follow those of the targets.
    pub(super) fn of(config: &LiveConfig, pid_files: &[PathBuf]) -> Result<Consumers, LiveError> {
        let ids = (0..).skip(config.targets.len()).map(TreeId);
        let consumers = config.consumers.iter().zip(ids);
        let of = |(target, id)| WatchedConsumer::of(target, id, pid_files);
        consumers.map(of).collect::<Result<_, _>>().map(Consumers)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks after each of them: which ones have another process now, or none any more.
    pub(super) fn look(&mut self, keeper: &Keeper) -> Vec<(TreeId, Option<Pid>)> {
        self.0.iter_mut().filter_map(|one| Some((one.id, one.look(keeper)?))).collect()
    }

    /// Each of them, with its process if it has one.
    pub(super) fn all(&self) -> impl Iterator<Item = (TreeId, &str, Option<Pid>)> {
        self.0.iter().map(|one| (one.id, one.name.as_str(), one.pid()))
    }

    /// The processes that DTrace is to watch.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.0.iter().filter_map(WatchedConsumer::pid).collect()
    }
}

/// Whether there is a process with this pid. It need not be ours (EPERM).
fn is_there(pid: Pid) -> bool {
    kill(nix::unistd::Pid::from_raw(pid.get() as i32), None) != Err(Errno::ESRCH)
}
