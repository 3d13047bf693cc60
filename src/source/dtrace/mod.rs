//! dtrace(1), the witness: chooses the D program that this kernel understands, keeps it running, reads its pipes, and
//! reports every outage to the pipeline. The [keeper](super::keeper) starts and ends it, or a [command] of the user's
//! does, which reaches it on another host.

pub mod command;
pub mod consumers;
mod cost_run;
pub(crate) mod link;
mod options;
mod output;
mod policy;
mod process;
pub mod programs;
mod runner;
mod supervisor;
pub(crate) mod survey;

use std::path::{Path, PathBuf};

pub use options::{BufferSize, DtraceOptions, Switchrate};
pub use policy::RestartLimits;
pub(crate) use process::readable;

use self::command::CommandRunner;
use self::programs::{PLAIN, Program, WITH_CAUSES};
use self::runner::Runner;
pub(crate) use self::supervisor::{ConsumerPids, Supervisor};
use super::keeper::{Gone, Keeper, KeeperError, KeeperJob};
use super::sysctl::KernelInfo;
use crate::model::Pid;

/// Where FreeBSD has it.
pub const DTRACE: &str = "/usr/sbin/dtrace";

/// How many buffers of 64 KiB dtrace's stdout may be ahead of the pipeline.
pub(crate) const STDOUT_BUFFERS: usize = 256;
/// The same for its stderr.
pub(crate) const STDERR_BUFFERS: usize = 64;

/// Why dtrace(1) cannot be a witness.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each error's text says what it is")]
pub enum DtraceError {
    /// It cannot be run, or the kernel's side is missing or closed.
    #[error("{0}")]
    Unusable(String),
    #[error("cannot start the keeper, which runs dtrace: {0}")]
    Keeper(std::io::Error),
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error("no D program compiles on this kernel, so there is no truth to compare with:\n{0}")]
    Compile(String),
    #[error("cannot make a pipe: {0}")]
    Pipe(std::io::Error),
}

impl From<KeeperError> for DtraceError {
    fn from(error: KeeperError) -> DtraceError {
        match error {
            KeeperError::Gone(gone) => DtraceError::Gone(gone),
            KeeperError::Refused(why) | KeeperError::Failed(why) => DtraceError::Unusable(why),
        }
    }
}

/// What is named at the start, beyond which a keeper does not go.
#[derive(Clone, Default, Debug)]
pub(crate) struct KeeperScope {
    /// Whether there are trees, for which a kqueue of our own is read.
    pub(crate) trees: bool,
    /// The files that it may read a pid from: of trees' roots and of consumers.
    pub(crate) pid_files: Vec<PathBuf>,
    /// The consumers that are named by their pids.
    pub(crate) consumers: Vec<Pid>,
}

/// A dtrace(1), and the D program that compiled with it.
#[derive(Debug)]
pub(crate) struct DtraceWitness {
    runner: Runner,
    /// `None` until dtrace(1) is reached on the host where it runs.
    choice: Option<ProgramChoice>,
    options: DtraceOptions,
    /// The other host, as the log calls it; empty for this host and for the only one.
    host: String,
    /// Whether its program prints the marks of our own reader.
    marks: bool,
}

/// The D program to be run.
#[derive(Debug)]
struct ProgramChoice {
    program: &'static Program,
    /// Why it has no cause probes, if it was to have them.
    no_causes: Option<String>,
}

impl DtraceWitness {
    /// The dtrace(1) of this host. Starts a keeper, which is `program`, to run it.
    ///
    /// # Errors
    /// [`DtraceError::Keeper`].
    pub(crate) fn by_keeper(
        program: &Path,
        options: &DtraceOptions,
        scope: KeeperScope,
    ) -> Result<(DtraceWitness, Keeper), DtraceError> {
        let marks = scope.trees;
        let keeper = Keeper::start(program, &options.job(scope)).map_err(DtraceError::Keeper)?;
        let runner = Runner::Keeper(keeper.clone());
        let (options, host) = (options.clone(), String::new());
        Ok((DtraceWitness { runner, choice: None, options, host, marks }, keeper))
    }

    /// The dtrace(1) that a command runs, on `host`. It is not looked for yet: that host may be down.
    pub(crate) fn by_command(
        words: &[String],
        options: &DtraceOptions,
        host: &str,
    ) -> DtraceWitness {
        let runner = Runner::Command(CommandRunner::new(words, options, host));
        let (options, host) = (options.clone(), host.to_owned());
        DtraceWitness { runner, choice: None, options, host, marks: false }
    }

    /// Chooses the D program for these consumers by trial compilation. A keeper loads dtrace's modules before, if they are
    /// missing.
    ///
    /// # Errors
    /// [`DtraceError`], with what the operator can do: none compiles, or dtrace(1) is not reached.
    pub(crate) fn choose(&mut self, consumers: &[Pid]) -> Result<(), DtraceError> {
        self.choose_while(consumers, &|| true).map(drop)
    }

    /// The same as long as that is `wanted`.
    fn choose_while(
        &mut self,
        consumers: &[Pid],
        wanted: &dyn Fn() -> bool,
    ) -> Result<&'static Program, DtraceError> {
        let choice = choose(&self.runner, self.options.causes, consumers, wanted)?;
        Ok(self.choice.insert(choice).program)
    }

    /// The kernel that it runs on, if a command runs it. It is asked over that command.
    pub(crate) fn kernel(&self, wanted: &dyn Fn() -> bool) -> KernelInfo {
        match &self.runner {
            Runner::Keeper(_) => KernelInfo::default(),
            Runner::Command(command) => command.kernel(wanted),
        }
    }

    /// How often it reads its buffers, in nanoseconds.
    pub(crate) fn switch_ns(&self) -> u64 {
        self.options.switchrate.period_ns()
    }

    /// The name of the program; empty until one is chosen.
    pub(crate) fn program_name(&self) -> &'static str {
        self.choice.as_ref().map_or("", |choice| choice.program.name)
    }

    /// Why the program has no cause probes, if it was to have them.
    pub(crate) fn no_causes(&self) -> Option<&str> {
        self.choice.as_ref()?.no_causes.as_deref()
    }

    /// The text of the program as dtrace(1) gets it for these consumers.
    pub(crate) fn program_text(&self, consumers: &[Pid]) -> String {
        let DtraceOptions { bufsize, switchrate, .. } = &self.options;
        let choice = self.choice.as_ref();
        choice
            .map_or(String::new(), |c| c.program.tuned(bufsize, switchrate, self.marks, consumers))
    }
}

/// The first program that compiles: for the newest generation of kernels with the cause probes, if they are wanted, then
/// for each without.
fn choose(
    runner: &Runner,
    causes: bool,
    consumers: &[Pid],
    wanted: &dyn Fn() -> bool,
) -> Result<ProgramChoice, DtraceError> {
    let mut no_causes = None;
    if causes {
        match runner.compile(&WITH_CAUSES, consumers, wanted) {
            Ok(()) => return Ok(ProgramChoice { program: &WITH_CAUSES, no_causes }),
            Err(DtraceError::Compile(why)) => no_causes = Some(why),
            Err(error) => return Err(error),
        }
    }
    let mut failures = Vec::new();
    for program in &PLAIN {
        match runner.compile(program, consumers, wanted) {
            Ok(()) => {
                if let Some(why) = &no_causes {
                    tracing::warn!(
                        "going on without the cause probes, which do not compile on this kernel: {why}"
                    );
                }
                return Ok(ProgramChoice { program, no_causes });
            }
            Err(DtraceError::Compile(why)) => failures.push(format!("{}: {why}", program.name)),
            Err(error) => return Err(error),
        }
    }
    Err(DtraceError::Compile(failures.join("\n")))
}
