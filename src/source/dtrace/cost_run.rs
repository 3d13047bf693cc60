//! A run of dtrace(1) with the D program of a live run, for measuring what it costs other processes (`check --cost`): its
//! records are read and thrown away.

use std::io::{PipeReader, Read};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::process::readable;
use super::{DtraceError, DtraceWitness, Runner};
use crate::source::beginning::Beginning;
use crate::source::keeper::Started;

/// How long dtrace(1) may take to end once it was killed: a kernel may be busy with its probes.
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// A dtrace(1) that traces. What runs it, which [`DtraceWitness`] has, ends it if nothing else does.
#[derive(Debug)]
pub(crate) struct CostRun {
    runner: Runner,
    grace: Duration,
    /// Can be read once it has ended.
    end: PipeReader,
}

impl DtraceWitness {
    /// Starts it, and waits until it traces.
    ///
    /// # Errors
    /// It ends before that, or takes longer than its limit for the start.
    pub(crate) fn cost_run(&self) -> Result<CostRun, DtraceError> {
        let (runner, limits) = (self.runner.clone(), self.options.limits);
        let program = self.choice.as_ref().map(|choice| choice.program);
        let program =
            program.ok_or_else(|| DtraceError::Unusable("no D program is chosen".to_owned()))?;
        let Started { stdout, stderr, end, .. } = runner.start(program, &[])?;
        let messages = Beginning::of(stderr);
        let (begun, begins) = channel();
        std::thread::spawn(move || discard(stdout, &begun));
        let why = match begins.recv_timeout(limits.startup) {
            Ok(()) => return Ok(CostRun { runner, grace: limits.grace, end }),
            Err(RecvTimeoutError::Timeout) => {
                format!("dtrace has not begun to trace within {:?}", limits.startup)
            }
            Err(RecvTimeoutError::Disconnected) => {
                format!("dtrace ended before it traced: {}", messages.text().trim())
            }
        };
        runner.kill()?;
        Err(DtraceError::Unusable(why))
    }
}

impl CostRun {
    /// Ends it, and waits until it has: no probe is enabled any more.
    ///
    /// # Errors
    /// It does not end.
    pub(crate) fn end(self) -> Result<(), DtraceError> {
        self.runner.terminate()?;
        if readable([Some(&self.end)], self.grace) == [true] {
            return Ok(());
        }
        self.runner.kill()?;
        match readable([Some(&self.end)], LAST_PATIENCE) {
            [true] => Ok(()),
            [false] => Err(DtraceError::Unusable("dtrace does not end".to_owned())),
        }
    }
}

/// Reads to the end, throws it away, and sends a message when the first bytes have come.
fn discard(mut stdout: PipeReader, begun: &Sender<()>) {
    let mut buffer = vec![0; 64 << 10];
    let mut is_first = true;
    while let Ok(1..) = stdout.read(&mut buffer) {
        if std::mem::take(&mut is_first) {
            // It fails if that has taken too long already.
            let _ = begun.send(());
        }
    }
}
