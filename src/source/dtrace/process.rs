//! One dtrace(1) process of the keeper's, with a thread at its pipes.

use std::os::fd::RawFd;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use super::pipes::{Drain, Pipes, Watch};
use super::programs::Program;
use crate::model::MonoTime;
use crate::source::keeper::{Error, Gone, Keeper};

/// A dtrace(1) process.
#[derive(Debug)]
pub(crate) struct Process {
    keeper: Keeper,
    program: &'static Program,
    pid: u32,
    reading: Option<JoinHandle<()>>,
    watch: Watch,
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
        let started = keeper.start_dtrace(program, kqueue)?;
        let (pid, watch) = (started.pid, Watch::default());
        let pipes = Pipes::new(started, out, err, watch.clone());
        let mut process = Process { keeper: keeper.clone(), program, pid, reading: None, watch };
        match Builder::new().name("dtrace-pipes".to_owned()).spawn(|| pipes.run()) {
            Ok(thread) => {
                process.reading = Some(thread);
                Ok(process)
            }
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

    /// Without a keeper: dtrace has ended with it, or nobody can end it.
    pub(crate) fn abandon(self) {
        self.watch.abandoned.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(self) {
        if self.reading.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that reads dtrace's output panicked");
        }
    }
}
