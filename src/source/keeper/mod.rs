//! Two processes, so that only one is root's. The *keeper* owns dtrace(1): it starts, signals and reaps it, and hands
//! its pipes over a socket pair. The exporter, which started the keeper and may then become another user, asks for that
//! and does everything else.
//!
//! A run as an unprivileged user has a keeper as well: there is one way to run dtrace, and the tests use it.

mod cpu;
mod modules;
mod platform;
pub(in crate::source) mod process;
mod protocol;
mod root;

use std::io::{self, ErrorKind, PipeReader};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::protocol::{Outcome, Reply, Request};
use super::dtrace::programs::Program;
use super::target::root_pid;
use crate::model::Pid;

pub(crate) use self::cpu::CpuMeter;
pub(crate) use self::platform::close_inherited;
pub use self::root::{KeeperJob, run};

/// The hidden subcommand that keeps dtrace for the process at the other end of its stdin.
pub(crate) const SUBCOMMAND: &str = "keep-dtrace";

/// How long an answer may take that waits for no other process: a kernel may be busy with its probes when a dtrace is reaped.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long its own end may take.
const GRACE: Duration = Duration::from_secs(5);

/// What to do if descriptors are missing.
const NO_ROOM: &str = "raise the limit of open files (ulimit -n)";

/// The keeper does not answer, and no other process can run dtrace.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the keeper, which runs dtrace, {0}: start the exporter again")]
pub struct Gone(String);

/// What the keeper could not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    #[error(transparent)]
    Gone(#[from] Gone),
    /// It would not be right.
    #[error("{0}")]
    Refused(String),
    /// The system would not let it.
    #[error("{0}")]
    Failed(String),
}

/// A keeper. Clones are the same one; with the last it ends, and all that it runs.
#[derive(Clone, Debug)]
pub(crate) struct Keeper(Arc<KeeperInner>);

#[derive(Debug)]
struct KeeperInner {
    socket: Mutex<UnixStream>,
    child: Mutex<Child>,
    compile: Duration,
}

/// A dtrace that the keeper has started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
    /// At its end the keeper writes its wait(2) status here, in four bytes; without them the keeper is gone.
    pub(crate) end: PipeReader,
}

impl Started {
    /// With its stdout, its stderr and the pipe that reports its end.
    pub(super) fn of(pid: u32, descriptors: Vec<OwnedFd>) -> Result<Started, KeeperError> {
        let mut pipes = descriptors.into_iter().map(PipeReader::from);
        match (pipes.next(), pipes.next(), pipes.next()) {
            (Some(stdout), Some(stderr), Some(end)) => Ok(Started { pid, stdout, stderr, end }),
            // Another thread took the descriptors that were free.
            _ => Err(KeeperError::Failed(format!("its pipes did not come over: {NO_ROOM}"))),
        }
    }
}

impl Keeper {
    /// Starts `program` (ourselves) as a keeper for this process.
    pub(crate) fn start(program: &Path, job: &KeeperJob) -> io::Result<Keeper> {
        // Neither end is limited as the pipes are: a process that holds one can reach nothing but the other.
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(SUBCOMMAND)
            .args(job.arguments())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let (socket, child) = (Mutex::new(ours), Mutex::new(child));
        Ok(Keeper(Arc::new(KeeperInner { socket, child, compile: job.compile })))
    }

    /// Compiles a program without running it. Returns dtrace's text about it, if there is any.
    ///
    /// # Errors
    /// [`KeeperError::Refused`] with dtrace's message.
    pub(crate) fn compile(
        &self,
        program: &'static Program,
        consumers: &[Pid],
    ) -> Result<String, KeeperError> {
        self.add_consumers(consumers)?;
        let patience = self.0.compile + PATIENCE;
        Ok(self.ask(Request::Compile(program), patience)?.or_error()?.text)
    }

    /// Runs a program for the reader in this process, and for these consumers. A dtrace that runs still is killed.
    pub(crate) fn start_dtrace(
        &self,
        program: &'static Program,
        consumers: &[Pid],
    ) -> Result<Started, KeeperError> {
        self.has_room_for_pipes()?;
        self.add_consumers(consumers)?;
        let reply = self.ask(Request::Start(program), PATIENCE)?.or_error()?;
        let started = Started::of(reply.number as u32, reply.descriptors);
        if started.is_err() {
            self.kill()?;
        }
        started
    }

    fn add_consumers(&self, consumers: &[Pid]) -> Result<(), KeeperError> {
        for pid in consumers {
            self.ask(Request::AddConsumer(*pid), PATIENCE)?.or_error()?;
        }
        Ok(())
    }

    /// A dtrace whose pipes have no place here could not be read, so it is not even started.
    fn has_room_for_pipes(&self) -> Result<(), KeeperError> {
        let socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let free: io::Result<Vec<UnixStream>> = (0..3).map(|_| socket.try_clone()).collect();
        free.map(drop).map_err(|error| KeeperError::Failed(format!("{error}: {NO_ROOM}")))
    }

    pub(crate) fn terminate(&self) -> Result<(), Gone> {
        self.ask(Request::Terminate, PATIENCE).map(drop)
    }

    pub(crate) fn kill(&self) -> Result<(), Gone> {
        self.ask(Request::Kill, PATIENCE).map(drop)
    }

    /// The keeper has closed what it keeps open as long as it lives.
    pub(crate) fn is_gone(&self) -> Gone {
        let socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.gone(&socket, &ErrorKind::UnexpectedEof.into())
    }

    /// Reads one of the pid files of its [`KeeperJob`].
    pub(crate) fn read_pid_file(&self, number: u16) -> Result<Pid, KeeperError> {
        let reply = self.ask(Request::ReadPidFile(number), PATIENCE)?.or_error()?;
        let pid = u64::try_from(reply.number).ok().and_then(root_pid);
        pid.ok_or_else(|| KeeperError::Failed(format!("{} is no pid", reply.number)))
    }

    /// The meter of the processor time that it uses.
    pub(crate) fn cpu_meter(&self) -> CpuMeter {
        CpuMeter(Arc::downgrade(&self.0))
    }

    fn ask(&self, request: Request, patience: Duration) -> Result<Reply, Gone> {
        let socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.ask(&socket, request, patience)
    }
}

impl KeeperInner {
    fn ask(
        &self,
        socket: &UnixStream,
        request: Request,
        patience: Duration,
    ) -> Result<Reply, Gone> {
        let reply = socket
            .set_read_timeout(Some(patience))
            .and_then(|()| request.send(socket))
            .and_then(|()| Reply::receive(socket));
        reply.map_err(|error| self.gone(socket, &error))
    }

    /// It is asked no more: a late answer must not be taken for that of another request.
    fn gone(&self, socket: &UnixStream, error: &io::Error) -> Gone {
        let _ = socket.shutdown(Shutdown::Both);
        match self.ended() {
            Some(status) => Gone(format!("has ended ({status})")),
            None => Gone(format!("does not answer ({error})")),
        }
    }

    /// How the keeper ended, which it does soon once its socket is closed.
    fn ended(&self) -> Option<ExitStatus> {
        let deadline = Instant::now() + GRACE;
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => {}
                ended => return ended.ok().flatten(),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for KeeperInner {
    fn drop(&mut self) {
        let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It fails if the keeper has closed its end already.
        let _ = socket.shutdown(Shutdown::Both);
        if self.ended().is_none() {
            tracing::warn!("the keeper, which runs dtrace, does not end; dtrace may still run");
        }
    }
}

impl Reply {
    fn or_error(self) -> Result<Reply, KeeperError> {
        match self.outcome {
            Outcome::Done => Ok(self),
            Outcome::Refused => Err(KeeperError::Refused(self.text)),
            Outcome::Failed => Err(KeeperError::Failed(self.text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keeper that is silent: cat(1), which ends as a keeper does.
    #[test]
    fn a_keeper_that_does_not_answer_is_asked_no_more() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let child = Command::new("sh")
            .args(["-c", "cat >/dev/null"])
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .expect("started");
        let (socket, child) = (Mutex::new(ours), Mutex::new(child));
        let keeper = Keeper(Arc::new(KeeperInner { socket, child, compile: Duration::ZERO }));
        let ask = || keeper.ask(Request::Kill, Duration::from_millis(20));
        let gone = ask().expect_err("no answer").to_string();
        let expected =
            "the keeper, which runs dtrace, has ended (exit status: 0): start the exporter again";
        assert_eq!(gone, expected);
        assert_eq!(ask().expect_err("no answer").to_string(), expected);
    }
}
