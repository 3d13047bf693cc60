//! One dtrace(1) process: started, drained, signalled, buried.

use std::io::{self, ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::policy::Limits;
use crate::model::MonoTime;
use crate::source::clock;

/// Whoever takes what comes out of a pipe. It must not wait: dtrace(1) blocked on a full pipe for 30 s is killed by
/// the kernel's deadman (13.2 `dtrace.c:205`, `dtrace_deadman_user`).
pub(crate) trait Drain: Send {
    /// Bytes as they were read at `at`, cut anywhere.
    fn take(&mut self, at: MonoTime, bytes: &[u8]);
    /// The pipe has ended.
    fn end(&mut self, at: MonoTime);
}

/// A dtrace(1) process in a process group of its own, so that the terminal's ^C is ours to handle, with a thread at
/// each of its pipes.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    heard: Arc<AtomicU64>,
    drains: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(
        command: &mut Command,
        stdout: Box<dyn Drain>,
        stderr: Box<dyn Drain>,
    ) -> io::Result<Process> {
        let mut child = spawn(command)?;
        let heard = Arc::new(AtomicU64::new(0));
        let pipes = (child.stdout.take(), child.stderr.take());
        let mut process = Process { child, heard: Arc::clone(&heard), drains: Vec::new() };
        let (Some(out), Some(err)) = pipes else { return Ok(process) };
        let drained = drain("dtrace-stdout", out, stdout, Some(heard)).and_then(|thread| {
            process.drains.push(thread);
            process.drains.push(drain("dtrace-stderr", err, stderr, None)?);
            Ok(())
        });
        if let Err(error) = drained {
            process.bury()?;
            return Err(error);
        }
        Ok(process)
    }

    /// Its pid.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// When it last wrote to stdout, if it ever did.
    pub(crate) fn heard(&self) -> Option<MonoTime> {
        Some(MonoTime(self.heard.load(Ordering::Relaxed))).filter(|at| at.0 != 0)
    }

    /// Whether it has ended. It stays a zombie until it is buried: its pid cannot be anybody else's before.
    pub(crate) fn has_ended(&self) -> bool {
        has_ended(&self.child)
    }

    /// Sends a signal to its group.
    pub(crate) fn signal(&self, signal: Signal) {
        signal_group(&self.child, signal);
    }

    /// Reads what is left in its pipes, reaps it, and says how it ended. Kills it where it has not ended by itself.
    pub(crate) fn bury(mut self) -> io::Result<ExitStatus> {
        // Where it has ended, whatever it started may still hold its pipes open.
        self.signal(Signal::SIGKILL);
        let status = self.child.wait();
        for drain in self.drains {
            if drain.join().is_err() {
                tracing::error!("a thread that reads dtrace's output panicked");
            }
        }
        status
    }
}

/// Runs it to its end, for `patience` at most, and gives back its status and the beginning of its stderr.
pub(crate) fn run(
    command: &mut Command,
    limits: &Limits,
    patience: Duration,
) -> io::Result<(ExitStatus, String)> {
    let mut child = spawn(command)?;
    let stderr = child.stderr.take();
    // Only stderr is wanted, but a full pipe must not stop it.
    let stdout = child.stdout.take();
    let waste = std::thread::spawn(move || stdout.map(|mut o| io::copy(&mut o, &mut io::sink())));
    let words = std::thread::spawn(move || stderr.map(beginning).unwrap_or_default());
    let deadline = Instant::now() + patience;
    while !has_ended(&child) {
        if Instant::now() >= deadline {
            signal_group(&child, Signal::SIGKILL);
            child.wait()?;
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("no answer within {patience:?}"),
            ));
        }
        std::thread::sleep(limits.poll);
    }
    signal_group(&child, Signal::SIGKILL);
    let status = child.wait()?;
    let _ = waste.join();
    Ok((status, words.join().unwrap_or_default()))
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

fn has_ended(child: &Child) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(Pid::from_raw(child.id() as i32)), flags) {
        Ok(WaitStatus::StillAlive) => false,
        Ok(_) => true,
        // EINVAL: it died of a signal that nix does not know. ECHILD: somebody else has reaped it.
        Err(errno) => errno != nix::errno::Errno::EINTR,
    }
}

/// Only for a child that has not been reaped: its group cannot be anybody else's.
fn signal_group(child: &Child, signal: Signal) {
    // It fails where nobody is left to be told.
    let _ = killpg(Pid::from_raw(child.id() as i32), signal);
}

/// The first 16 KiB; the rest is read and dropped.
fn beginning(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.by_ref().take(16 << 10).read_to_end(&mut bytes);
    let _ = io::copy(&mut pipe, &mut io::sink());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn drain(
    name: &str,
    mut pipe: impl Read + Send + 'static,
    mut to: Box<dyn Drain>,
    heard: Option<Arc<AtomicU64>>,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!("cannot read dtrace's output: {error}");
                    break;
                }
            };
            let at = clock::now();
            if let Some(heard) = &heard {
                heard.store(at.0, Ordering::Relaxed);
            }
            to.take(at, &buffer[..n]);
        }
        to.end(clock::now());
    })
}
