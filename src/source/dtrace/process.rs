//! One dtrace(1) process of the keeper's, with a thread at each of its pipes.

use std::io::{ErrorKind, Read};
use std::os::fd::RawFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};

use super::programs::Program;
use crate::model::MonoTime;
use crate::source::clock;
use crate::source::keeper::{Error, Gone, Keeper, Started};

/// Whoever takes what comes out of a pipe. It must not wait: dtrace(1) blocked on a full pipe for 30 s is killed by
/// the kernel's deadman (13.2 `dtrace.c:205`, `dtrace_deadman_user`).
pub(crate) trait Drain: Send {
    /// Bytes as they were read at `at`, cut anywhere.
    fn take(&mut self, at: MonoTime, bytes: &[u8]);
    /// The pipe has ended.
    fn end(&mut self, at: MonoTime);
}

/// A dtrace(1) process.
#[derive(Debug)]
pub(crate) struct Process {
    keeper: Keeper,
    program: &'static Program,
    pid: u32,
    drains: Vec<JoinHandle<()>>,
    watch: Watch,
}

/// What the threads at the pipes and the supervisor tell each other.
#[derive(Clone, Debug, Default)]
struct Watch {
    heard: Arc<AtomicU64>,
    abandoned: Arc<AtomicBool>,
}

impl Process {
    /// Has the keeper start it.
    pub(crate) fn start(
        keeper: &Keeper,
        program: &'static Program,
        kqueue: RawFd,
        out: Box<dyn Drain>,
        err: Box<dyn Drain>,
    ) -> Result<Process, Error> {
        let Started { pid, stdout, stderr } = keeper.start_dtrace(program, kqueue)?;
        let (drains, watch) = (Vec::new(), Watch::default());
        let mut process = Process { keeper: keeper.clone(), program, pid, drains, watch };
        let drained = process
            .drain("dtrace-stdout", stdout, out, true)
            .and_then(|()| process.drain("dtrace-stderr", stderr, err, false));
        match drained {
            Ok(()) => Ok(process),
            Err(error) => {
                process.bury()?;
                Err(Error::Failed(format!("cannot start a thread: {error}")))
            }
        }
    }

    /// Its pid.
    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// When it last wrote to stdout, if it ever did.
    pub(crate) fn heard(&self) -> Option<MonoTime> {
        Some(MonoTime(self.watch.heard.load(Ordering::Relaxed))).filter(|at| at.0 != 0)
    }

    /// Whether it has ended. It must still be buried.
    pub(crate) fn has_ended(&self) -> Result<bool, Gone> {
        self.keeper.has_ended(self.program)
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) -> Result<(), Gone> {
        self.keeper.terminate(self.program)
    }

    /// Ends it.
    pub(crate) fn kill(&self) -> Result<(), Gone> {
        self.keeper.kill(self.program)
    }

    /// Has it reaped, killed where it has not ended by itself, reads what is left in its pipes, and says how it ended.
    pub(crate) fn bury(self) -> Result<ExitStatus, Error> {
        let ended = self.keeper.bury(self.program);
        if let Err(Error::Gone(_)) = ended {
            self.abandon();
        } else {
            self.join();
        }
        ended
    }

    /// Without a keeper: reads until its pipes end, as they do with it and the keeper; or no further than the next
    /// word, should both live on.
    pub(crate) fn abandon(self) {
        self.watch.abandoned.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(self) {
        for drain in self.drains {
            if drain.join().is_err() {
                tracing::error!("a thread that reads dtrace's output panicked");
            }
        }
    }

    fn drain(
        &mut self,
        name: &str,
        mut pipe: impl Read + Send + 'static,
        mut to: Box<dyn Drain>,
        is_life: bool,
    ) -> std::io::Result<()> {
        let Watch { heard, abandoned } = self.watch.clone();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while !abandoned.load(Ordering::Relaxed) {
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
                if is_life {
                    heard.store(at.0, Ordering::Relaxed);
                }
                to.take(at, &buffer[..n]);
            }
            to.end(clock::now());
        })?;
        self.drains.push(thread);
        Ok(())
    }
}
