//! What keeps one dtrace(1) running: carries out what the policy decides, and tells the pipeline.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::drains::{Causes, Messages, Records};
use super::pipes::Drain;
use super::policy::{Action, Limits, Policy, View};
use super::process::Process;
use super::programs::Program;
use super::{Error, SIDE_BUFFERS, STDOUT_BUFFERS};
use crate::source::clock;
use crate::source::keeper::{self, Gone, Keeper};
use crate::source::message::{Message, Stream, TextLane};
use crate::source::stop::Stop;

/// Which of the two processes, and where its words go.
pub(super) enum Role {
    Main { to: SyncSender<Message>, begun: Arc<AtomicBool> },
    Causes { to: SyncSender<Message> },
}

impl Role {
    fn name(&self) -> &'static str {
        match self {
            Role::Main { .. } => "dtrace",
            Role::Causes { .. } => "dtrace (cause probes)",
        }
    }

    fn drains(&self) -> (Box<dyn Drain>, Box<dyn Drain>) {
        let name = self.name();
        match self {
            Role::Main { to, begun } => {
                let stdout = TextLane::new(Stream::Stdout, STDOUT_BUFFERS, to.clone());
                let stderr = TextLane::new(Stream::Stderr, SIDE_BUFFERS, to.clone());
                (
                    Box::new(Records::new(stdout, Arc::clone(begun))),
                    Box::new(Messages::new(name, Some(stderr))),
                )
            }
            Role::Causes { to } => {
                let stdout = TextLane::new(Stream::Stdout, SIDE_BUFFERS, to.clone());
                (Box::new(Causes::new(stdout)), Box::new(Messages::new(name, None)))
            }
        }
    }

    /// The main program was started, or is gone. A full channel is waited for: this must not be lost, and nobody
    /// waits for the supervisor.
    fn say(&self, message: Message) {
        if let Role::Main { to, .. } = self {
            // It fails when the pipeline is gone, and then nobody wants to know.
            let _ = to.send(message);
        }
    }
}

/// What keeps one of the processes running.
pub(super) struct Supervisor {
    pub(super) keeper: Keeper,
    pub(super) program: &'static Program,
    pub(super) kqueue: RawFd,
    pub(super) limits: Limits,
    pub(super) role: Role,
    pub(super) stop: Stop,
}

impl Supervisor {
    /// On a thread of its own, which ends after the stop, or without the keeper.
    pub(super) fn spawn(self, thread: &str) -> Result<JoinHandle<Result<(), Gone>>, Error> {
        Builder::new().name(thread.to_owned()).spawn(move || self.run()).map_err(Error::Thread)
    }

    fn run(&self) -> Result<(), Gone> {
        let mut process = None;
        let result = self.attend(&mut process);
        if let Some(process) = process {
            process.abandon();
            self.role.say(Message::DtraceDown { at: clock::now() });
        }
        result
    }

    /// Leaves a process only where the keeper is gone.
    fn attend(&self, process: &mut Option<Process>) -> Result<(), Gone> {
        let mut policy = Policy::new(self.limits);
        loop {
            let stops = self.stop.requests();
            let view = View {
                now: Duration::from_nanos(clock::now().0),
                exited: process.as_ref().map_or(Ok(false), Process::has_ended)?,
                heard: process.as_ref().and_then(|p| Some(Duration::from_nanos(p.heard()?.0))),
                stops,
            };
            match policy.next(&view) {
                Action::Wait(time) => self.stop.wait(stops, time),
                Action::Start => {
                    *process = self.start()?;
                    if process.is_none() {
                        policy.failed(view.now);
                    }
                }
                Action::Terminate(silent) => {
                    if let Some(silent) = silent {
                        let name = self.role.name();
                        tracing::warn!("{name} has said nothing for {silent:.1?}: restarting it");
                    }
                    process.as_ref().map_or(Ok(()), Process::terminate)?;
                }
                Action::Kill => process.as_ref().map_or(Ok(()), Process::kill)?,
                Action::Bury => {
                    if let Some(process) = process.take() {
                        self.bury(process, &policy, &view)?;
                    }
                }
                Action::Over => return Ok(()),
            }
        }
    }

    fn start(&self) -> Result<Option<Process>, Gone> {
        let (stdout, stderr) = self.role.drains();
        // Said before its first word can be read. Where it does not start, the outage is said right after.
        self.role.say(Message::DtraceUp { at: clock::now() });
        match Process::start(&self.keeper, self.program, self.kqueue, stdout, stderr) {
            Ok(process) => {
                tracing::info!("{} started, pid {}", self.role.name(), process.id());
                Ok(Some(process))
            }
            Err(error) => {
                self.role.say(Message::DtraceDown { at: clock::now() });
                let name = self.role.name();
                or_gone(error).map(|why| {
                    tracing::error!("cannot start {name}: {why}");
                    None
                })
            }
        }
    }

    fn bury(&self, process: Process, policy: &Policy, view: &View) -> Result<(), Gone> {
        let name = self.role.name();
        let ended = process.bury();
        self.role.say(Message::DtraceDown { at: clock::now() });
        let ended = match ended {
            Ok(status) => status.to_string(),
            Err(error) => or_gone(error)?,
        };
        match policy.retry_at() {
            Some(at) if view.stops == 0 => {
                let wait = at.saturating_sub(view.now);
                tracing::warn!("{name} ended ({ended}); starting it again in {wait:.1?}");
            }
            _ => tracing::info!("{name} ended ({ended})"),
        }
        Ok(())
    }
}

/// Without a keeper nothing can be tried again; anything else is to be said.
fn or_gone(error: keeper::Error) -> Result<String, Gone> {
    match error {
        keeper::Error::Gone(gone) => Err(gone),
        other => Ok(other.to_string()),
    }
}
