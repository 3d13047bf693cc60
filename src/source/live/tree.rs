//! One tree of a live run as a state machine: where its root comes from, whether the reader has registered it, whether it has
//! ended.

use std::io;

use super::pid_file::PidFile;
use crate::model::{Pid, TreeId};
use crate::source::barrier::{CommandEnd, CommandProcess, GatedCommand};
use crate::source::keeper::Keeper;
use crate::source::kqueue::RootRequest;

/// Where the root of a tree comes from, and what has become of that.
#[derive(Debug)]
pub(super) enum RootSource {
    /// A process that ran before us.
    Pid(Pid),
    /// The process that a file names.
    File(PidFile),
    /// A command that has not begun.
    Gated(GatedCommand),
    Running,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TreeState {
    /// No root is known.
    Empty,
    /// The reader was asked to track it.
    Asked(Pid),
    Attached(Pid),
    /// It will not be tracked (again).
    Lost,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) id: TreeId,
    pub(super) name: String,
    source: RootSource,
    state: TreeState,
    pub(super) ended: Option<CommandEnd>,
}

impl Tree {
    pub(super) fn new(id: TreeId, name: String, source: RootSource) -> Tree {
        Tree { id, name, source, state: TreeState::Empty, ended: None }
    }

    pub(super) fn is_command(&self) -> bool {
        matches!(self.source, RootSource::Gated(_))
    }

    /// The root that the reader is to track, if there is one and it was not asked for.
    pub(super) fn request(&mut self, keeper: &Keeper) -> Option<RootRequest> {
        if self.state != TreeState::Empty {
            return None;
        }
        let (pid, newborn) = match &mut self.source {
            RootSource::Pid(pid) => (*pid, false),
            RootSource::Gated(gated) => (Pid::new(gated.process.id().into())?, true),
            RootSource::File(file) => {
                let pid = file.read(keeper, &self.name)?;
                file.found();
                (pid, false)
            }
            RootSource::Running | RootSource::Over => return None,
        };
        self.state = TreeState::Asked(pid);
        Some(RootRequest { tree: self.id, pid, newborn })
    }

    pub(super) fn root_attached(&mut self, pid: Pid) {
        tracing::info!("tree {:?}: tracking process {pid}", self.name);
        self.state = TreeState::Attached(pid);
    }

    pub(super) fn root_refused(&mut self, why: &str) {
        tracing::warn!("tree {:?} has no root: {why}", self.name);
        self.lose_root();
    }

    /// Its root has ended by itself.
    pub(super) fn root_ended(&mut self) {
        tracing::info!("tree {:?}: its root has ended", self.name);
        self.lose_root();
    }

    /// There is no root any more. A pid file may name another one.
    fn lose_root(&mut self) {
        let pid = match self.state {
            TreeState::Asked(pid) | TreeState::Attached(pid) => Some(pid),
            TreeState::Empty | TreeState::Lost => None,
        };
        self.state = match &mut self.source {
            RootSource::File(file) => {
                file.lose(pid);
                TreeState::Empty
            }
            _ => TreeState::Lost,
        };
        // A command that cannot be tracked must not begin, and is not waited for.
        if self.is_command() {
            self.give_up();
        }
    }

    /// Lets the command begin, if it is tracked: its process.
    pub(super) fn begin(&mut self) -> Option<CommandProcess> {
        if !matches!((&self.source, self.state), (RootSource::Gated(_), TreeState::Attached(_))) {
            return None;
        }
        let RootSource::Gated(gated) = std::mem::replace(&mut self.source, RootSource::Running)
        else {
            return None;
        };
        let released = gated.release().inspect_err(|error| {
            tracing::error!("tree {:?}: cannot begin: {error}", self.name);
            self.source = RootSource::Over;
        });
        released.ok()
    }

    /// Its command has ended, or cannot be waited for.
    pub(super) fn command_ended(&mut self, ended: io::Result<CommandEnd>) {
        match ended {
            Ok(ended) => {
                tracing::info!("tree {:?}: the command ended: {}", self.name, ended.status);
                self.ended = Some(ended);
            }
            Err(error) => tracing::error!("tree {:?}: cannot wait: {error}", self.name),
        }
        self.source = RootSource::Over;
    }

    /// Whether it has no root, and its pid file may name one.
    pub(super) fn waits_for_its_file(&self) -> bool {
        matches!((&self.source, self.state), (RootSource::File(_), TreeState::Empty))
    }

    /// Whether its command is over; `None` if it is no command.
    pub(super) fn command_is_over(&self) -> Option<bool> {
        match self.source {
            RootSource::Pid(_) | RootSource::File(_) => None,
            RootSource::Gated(_) | RootSource::Running => Some(false),
            RootSource::Over => Some(true),
        }
    }

    /// Gives up a command that has not begun. One that runs is left alone.
    pub(super) fn abandon(mut self) {
        self.give_up();
    }

    fn give_up(&mut self) {
        if let RootSource::Gated(gated) = std::mem::replace(&mut self.source, RootSource::Over)
            && let Err(error) = gated.abandon()
        {
            tracing::warn!("tree {:?}: {error}", self.name);
        }
    }
}
