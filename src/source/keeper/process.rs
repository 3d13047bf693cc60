//! The processes that the keeper starts: a trial compilation, and a dtrace(1) whose end a thread waits for.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::UsageWho;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, getpid, getppid, setpgid, setsid};

use super::platform;
use crate::source::beginning::Beginning;
use crate::source::clock;
use crate::source::dtrace::programs::ProgramFile;

/// How often a trial compilation is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How dtrace(1) gets its program.
#[derive(Debug)]
pub(in crate::source) enum Script {
    /// As a file, which goes when it has ended.
    File(ProgramFile),
    /// As its stdin, which ends behind the text.
    Stdin(String),
}

/// A process in a group of its own, so that the terminal's ^C is not its to handle. Dropped, it is killed and reaped.
#[derive(Debug)]
struct GroupProcess {
    child: Child,
    reaped: bool,
    /// Its program, if that is a file.
    _program: Option<ProgramFile>,
}

impl GroupProcess {
    fn start(command: &mut Command, script: Script) -> io::Result<GroupProcess> {
        let keeper = getpid();
        let is_dtrace = matches!(script, Script::File(_));
        command
            .env("LC_ALL", "C")
            .stdin(if is_dtrace { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: between fork(2) and exec(2) it makes system calls and nothing else.
        unsafe {
            command.pre_exec(move || {
                // Without a terminal ssh(1) fails where it would ask; in the background of one it would be stopped.
                match is_dtrace {
                    true => setpgid(Pid::from_raw(0), Pid::from_raw(0))?,
                    false => drop(setsid()?),
                }
                platform::die_with_parent()?;
                // It may have ended before that was asked for.
                if getppid() == keeper { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
            });
        }
        let mut child = command.spawn()?;
        let program = match script {
            Script::File(file) => Some(file),
            Script::Stdin(text) => {
                let stdin = child.stdin.take();
                // On a thread of its own: ssh(1) may be long about its greeting before it reads. It fails if that has ended.
                std::thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(text.as_bytes())));
                None
            }
        };
        Ok(GroupProcess { child, reaped: false, _program: program })
    }

    /// The ends of its pipes, once.
    fn take_pipes(&mut self) -> Vec<OwnedFd> {
        let stdout = self.child.stdout.take().map(OwnedFd::from);
        let stderr = self.child.stderr.take().map(OwnedFd::from);
        stdout.into_iter().chain(stderr).collect()
    }

    /// Whether it has ended. It stays a zombie until it is reaped: its pid cannot be another process's before that.
    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags) {
            Ok(WaitStatus::StillAlive) => false,
            Ok(_) => true,
            // EINVAL: it died of a signal that nix does not know. ECHILD: it was reaped elsewhere.
            Err(errno) => errno != Errno::EINTR,
        }
    }

    /// To its group, which is its own as long as it has not been reaped.
    fn signal(&self, signal: Signal) {
        // It fails if no process of the group is left.
        let _ = killpg(self.pid(), signal);
    }

    /// Kills it if it has not ended by itself, and what it has started; reaps it, and returns how it ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.reaped {
            self.signal(Signal::SIGKILL);
        }
        self.reaped = true;
        self.child.wait()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for GroupProcess {
    fn drop(&mut self) {
        // If it was reaped, nothing is left to do.
        let _ = self.end();
    }
}

/// A dtrace(1) and the thread that waits for its end. Dropped, it is killed and reaped.
#[derive(Debug)]
pub(in crate::source) struct Supervised {
    pid: Pid,
    /// `None` once it has been reaped: its pid may be another process's then.
    process: Arc<Mutex<Option<GroupProcess>>>,
    waiting: Option<JoinHandle<()>>,
}

impl Supervised {
    /// Starts it. With it come, good for reading alone, its stdout, its stderr, and a pipe with four bytes at its end: the
    /// wait(2) status in little-endian order.
    pub(in crate::source) fn start(
        command: &mut Command,
        script: Script,
    ) -> io::Result<(Supervised, Vec<OwnedFd>)> {
        let (status, mut end) = io::pipe()?;
        let mut process = GroupProcess::start(command, script)?;
        let mut descriptors = process.take_pipes();
        descriptors.push(status.into());
        descriptors.iter().try_for_each(|pipe| platform::for_reading_only(pipe.as_fd()))?;
        let pid = process.pid();
        let process = Arc::new(Mutex::new(Some(process)));
        let reaps = Arc::clone(&process);
        let waiting = std::thread::Builder::new().name("dtrace".to_owned()).spawn(move || {
            wait_for_end(pid);
            let mut process = reaps.lock().unwrap_or_else(PoisonError::into_inner);
            // Locked until it is reaped: its processor time is either that of a process or that of a reaped child.
            let ended = process.take().map(|mut process| process.end());
            drop(process);
            if let Some(Ok(status)) = ended {
                // It fails if the exporter is gone, and then the keeper ends as well.
                let _ = end.write_all(&status.into_raw().to_le_bytes());
            }
        })?;
        Ok((Supervised { pid, process, waiting: Some(waiting) }, descriptors))
    }

    pub(in crate::source) fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    /// Sends a signal to its group, if it has not ended.
    pub(in crate::source) fn signal(&self, signal: Signal) {
        if let Some(process) = &*self.process.lock().unwrap_or_else(PoisonError::into_inner) {
            process.signal(signal);
        }
    }
}

/// Processor time, user's and system's, of all children of this process: of those that were reaped, and of this dtrace as
/// long as it has not been.
pub(super) fn children_cpu(dtrace: Option<&Supervised>) -> nix::Result<Duration> {
    let process = dtrace.map(|one| one.process.lock().unwrap_or_else(PoisonError::into_inner));
    let reaped = clock::processor_time(UsageWho::RUSAGE_CHILDREN)?;
    match process.as_ref().and_then(|process| process.as_ref()) {
        // Of another process, the clock alone can be read on every system, and to the nanosecond (clock_getcpuclockid(3)).
        Some(running) => {
            let clock = clock_getcpuclockid(running.pid())?;
            Ok(reaped + Duration::from(clock_gettime(clock)?))
        }
        None => Ok(reaped),
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.join();
        }
    }
}

/// Blocks until a child has ended. It stays a zombie.
fn wait_for_end(pid: Pid) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
}

/// How a process has ended, and the beginnings of what it wrote.
#[derive(Debug)]
pub(in crate::source) struct ProcessEnd {
    pub(in crate::source) status: ExitStatus,
    pub(in crate::source) stdout: String,
    pub(in crate::source) stderr: String,
}

/// Runs a command to its end, for `patience` at most and as long as `wanted`.
pub(in crate::source) fn run(
    command: &mut Command,
    script: Script,
    patience: Duration,
    wanted: impl Fn() -> bool,
) -> io::Result<ProcessEnd> {
    let mut process = GroupProcess::start(command, script)?;
    let stdout = process.child.stdout.take().map(Beginning::of);
    let stderr = process.child.stderr.take().map(Beginning::of);
    let deadline = Instant::now() + patience;
    while !process.has_ended() {
        if Instant::now() >= deadline || !wanted() {
            process.end()?;
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("no answer within {patience:?}"),
            ));
        }
        std::thread::sleep(POLL);
    }
    let status = process.end()?;
    let text = |output: Option<Beginning>| output.map(Beginning::text).unwrap_or_default();
    Ok(ProcessEnd { status, stdout: text(stdout), stderr: text(stderr) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_of_a_dtrace_that_has_ended_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let (dtrace, _pipes) =
            Supervised::start(&mut command, Script::Stdin(String::new())).expect("started");
        let used = || children_cpu(Some(&dtrace)).expect("a time");
        let begun = used();
        while used() - begun < Duration::from_millis(20) {
            std::thread::sleep(POLL);
        }
        let before = used();
        drop(dtrace);
        // getrusage(2) rounds the two parts of it down to microseconds.
        assert!(children_cpu(None).expect("a time") + Duration::from_micros(2) >= before);
    }
}
