//! Consumers: the processes that use EVFILT_PROC themselves. They are found by their pids and pid files, and asked for
//! nothing: DTrace alone watches them.

use nix::errno::Errno;
use nix::sys::signal::kill;

use super::LiveError;
use super::pid_file::PidFile;
use crate::model::{Pid, TreeId};
use crate::source::keeper::Keeper;

/// All consumers of a run.
#[derive(Debug, Default)]
pub(super) struct Consumers(Vec<WatchedConsumer>);

/// One consumer.
#[derive(Debug)]
pub(super) struct WatchedConsumer {
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
    /// A process that must be there at the start.
    pub(super) fn of_pid(id: TreeId, name: &str, pid: Pid) -> Result<WatchedConsumer, LiveError> {
        if !is_there(pid) {
            return Err(LiveError::NoConsumer { name: name.to_owned(), pid });
        }
        Ok(WatchedConsumer {
            id,
            name: name.to_owned(),
            file: None,
            state: ConsumerState::Running(pid),
        })
    }

    /// The process that a file names, once it does.
    pub(super) fn of_file(id: TreeId, name: &str, file: PidFile) -> WatchedConsumer {
        WatchedConsumer {
            id,
            name: name.to_owned(),
            file: Some(file),
            state: ConsumerState::Absent,
        }
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
    pub(super) fn new(consumers: Vec<WatchedConsumer>) -> Consumers {
        Consumers(consumers)
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
