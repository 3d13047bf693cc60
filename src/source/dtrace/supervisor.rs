//! The supervisor of dtrace(1): carries out what the policy decides, reads its pipes, and tells the pipeline.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::drains::{Begun, Messages, Records};
use super::policy::{Action, Limits, Policy, View};
use super::process::{End, Process, readable};
use super::programs::Program;
use super::{Error, STDERR_BUFFERS, STDOUT_BUFFERS};
use crate::model::Pid;
use crate::source::clock;
use crate::source::keeper::{self, Gone, Keeper};
use crate::source::message::{Message, Stream, TextLane};
use crate::source::stop::Stop;

/// What keeps dtrace(1) running. Between two events it blocks in one poll(2).
pub(crate) struct Supervisor {
    keeper: Keeper,
    program: &'static Program,
    limits: Limits,
    to: SyncSender<Message>,
    /// Called at the first record of each dtrace.
    begun: Begun,
    stop: Stop,
    consumers: ConsumerPids,
    /// The consumers of the dtrace that was started last.
    watched: Vec<Pid>,
    /// Can be read once the end was asked for (again), or there are other consumers.
    wake: PipeReader,
}

/// The consumers that dtrace(1) is to watch. Clones share them. A dtrace that watches others is started again.
#[derive(Clone)]
pub(crate) struct ConsumerPids {
    pids: Arc<Mutex<Vec<Pid>>>,
    /// Wakes the supervisor.
    waker: Arc<PipeWriter>,
}

impl ConsumerPids {
    /// From now on these are to be watched.
    pub(crate) fn set(&self, pids: Vec<Pid>) {
        *self.pids.lock().unwrap_or_else(PoisonError::into_inner) = pids;
        // It fails when the supervisor has ended.
        let _ = (&*self.waker).write_all(b"x");
    }

    fn get(&self) -> Vec<Pid> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Supervisor {
    pub(super) fn new(
        keeper: Keeper,
        program: &'static Program,
        consumers: Vec<Pid>,
        limits: Limits,
        to: SyncSender<Message>,
        begun: Begun,
        stop: Stop,
    ) -> Result<Supervisor, Error> {
        let (wake, waker) = pipe().map_err(Error::Pipe)?;
        let waker = Arc::new(waker);
        let pids = Arc::new(Mutex::new(consumers));
        let consumers = ConsumerPids { pids, waker: Arc::clone(&waker) };
        stop.on_request(move |requests| {
            // The second request is the last that says something new; a pipe has room for both.
            if requests <= 2 {
                let _ = (&*waker).write_all(b"x");
            }
        });
        Ok(Supervisor {
            keeper,
            program,
            limits,
            to,
            begun,
            stop,
            consumers,
            watched: Vec::new(),
            wake,
        })
    }

    /// Those of its dtrace.
    pub(crate) fn consumers(&self) -> ConsumerPids {
        self.consumers.clone()
    }

    /// Runs until the stop, or until the keeper is gone.
    ///
    /// # Errors
    /// The keeper is gone.
    pub(crate) fn run(mut self) -> Result<(), Gone> {
        let mut process = None;
        let result = self.attend(&mut process);
        if process.is_some() {
            self.say(Message::DtraceDown { at: clock::now() });
        }
        result
    }

    /// Leaves a process only if the keeper is gone.
    fn attend(&mut self, process: &mut Option<Process>) -> Result<(), Gone> {
        let mut policy = Policy::new(self.limits);
        loop {
            let view = View {
                now: Duration::from_nanos(clock::now().0),
                exited: process.as_ref().is_some_and(|p| p.ended().is_some()),
                last_output: process
                    .as_ref()
                    .and_then(|p| Some(Duration::from_nanos(p.last_output()?.0))),
                outdated: process.is_some() && self.consumers.get() != self.watched,
                stops: self.stop.requests(),
            };
            match policy.next(&view) {
                Action::Wait(time) => self.wait(process.as_mut(), time),
                Action::Start => {
                    *process = self.start()?;
                    if process.is_none() {
                        policy.failed(view.now);
                    }
                }
                Action::Terminate(silent) => {
                    if let Some(silent) = silent {
                        tracing::warn!(
                            "dtrace has printed nothing for {silent:.1?}: restarting it"
                        );
                    }
                    self.keeper.terminate()?;
                }
                Action::Kill => self.keeper.kill()?,
                Action::Bury => {
                    if let Some(end) = process.as_ref().and_then(Process::ended) {
                        self.ended(end, &policy, &view)?;
                    }
                    *process = None;
                }
                Action::Over => return Ok(()),
            }
        }
    }

    fn wait(&mut self, process: Option<&mut Process>, time: Duration) {
        let woken = match process {
            Some(process) => process.attend(&self.wake, time),
            None => readable([Some(&self.wake)], time) == [true],
        };
        if woken {
            let _ = self.wake.read(&mut [0]);
        }
    }

    fn start(&mut self) -> Result<Option<Process>, Gone> {
        self.watched = self.consumers.get();
        let lane = |stream, buffers| TextLane::new(stream, buffers, self.to.clone());
        // Sent before its first record can be read. If it does not start, the outage is sent right after.
        self.say(Message::DtraceUp { at: clock::now() });
        match self.keeper.start_dtrace(self.program, &self.watched) {
            Ok(started) => {
                let records =
                    Records::new(lane(Stream::Stdout, STDOUT_BUFFERS), Arc::clone(&self.begun));
                let messages = Messages::new(lane(Stream::Stderr, STDERR_BUFFERS));
                tracing::info!("dtrace started, pid {}", started.pid);
                Ok(Some(Process::new(started, Box::new(records), Box::new(messages))))
            }
            Err(error) => {
                self.say(Message::DtraceDown { at: clock::now() });
                match error {
                    keeper::Error::Gone(gone) => Err(gone),
                    why => {
                        tracing::error!("cannot start dtrace: {why}");
                        Ok(None)
                    }
                }
            }
        }
    }

    fn ended(&self, end: End, policy: &Policy, view: &View) -> Result<(), Gone> {
        let End::With(status) = end else { return Err(self.keeper.is_gone()) };
        self.say(Message::DtraceDown { at: clock::now() });
        match policy.retry_at() {
            Some(_) if view.outdated && view.stops == 0 => {
                tracing::info!("starting dtrace again, to watch another consumer");
            }
            Some(at) if view.stops == 0 => {
                let wait = at.saturating_sub(view.now);
                tracing::warn!("dtrace ended ({status}); starting it again in {wait:.1?}");
            }
            _ => tracing::info!("dtrace ended ({status})"),
        }
        Ok(())
    }

    /// A full channel is waited for: that dtrace was started, or is gone, must not be lost.
    fn say(&self, message: Message) {
        // It fails when the pipeline is gone, which then needs no report.
        let _ = self.to.send(message);
    }
}
