//! What starts and ends dtrace(1): the keeper on this host, or a command that reaches it on another one.

use nix::sys::signal::Signal;

use super::DtraceError;
use super::command::CommandRunner;
use super::link::Link;
use super::programs::Program;
use crate::model::Pid;
use crate::source::keeper::{Gone, Keeper, KeeperError, Started};

#[derive(Clone, Debug)]
pub(super) enum Runner {
    /// On this host, with root's rights.
    Keeper(Keeper),
    /// Anywhere, with the rights of this process.
    Command(CommandRunner),
}

impl Runner {
    /// Compiles a program without running it, as long as that is `wanted`.
    ///
    /// # Errors
    /// [`DtraceError::Compile`] with what dtrace says about the program.
    pub(super) fn compile(
        &self,
        program: &'static Program,
        consumers: &[Pid],
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), DtraceError> {
        let compiled = match self {
            Runner::Keeper(keeper) => keeper.compile(program, consumers),
            Runner::Command(command) => {
                command.compile(program, consumers, wanted).map(|()| String::new())
            }
        };
        let notice = compiled.map_err(|error| match error {
            KeeperError::Refused(why) => DtraceError::Compile(why),
            other => other.into(),
        })?;
        if !notice.is_empty() {
            tracing::info!("{notice}");
        }
        tracing::info!("D program {} compiles", program.name);
        Ok(())
    }

    pub(super) fn start(
        &self,
        program: &'static Program,
        consumers: &[Pid],
    ) -> Result<Started, KeeperError> {
        match self {
            Runner::Keeper(keeper) => keeper.start_dtrace(program, consumers),
            Runner::Command(command) => command.start(program, consumers),
        }
    }

    pub(super) fn terminate(&self) -> Result<(), Gone> {
        match self {
            Runner::Keeper(keeper) => keeper.terminate(),
            Runner::Command(command) => {
                command.signal(Signal::SIGTERM);
                Ok(())
            }
        }
    }

    pub(super) fn kill(&self) -> Result<(), Gone> {
        match self {
            Runner::Keeper(keeper) => keeper.kill(),
            Runner::Command(command) => {
                command.signal(Signal::SIGKILL);
                Ok(())
            }
        }
    }

    /// The link whose texts may be on its pipes beside those of dtrace(1).
    pub(super) fn link(&self) -> Option<Link> {
        match self {
            Runner::Keeper(_) => None,
            Runner::Command(command) => Some(command.link()),
        }
    }
}
