//! The supervisor of dtrace(1), which keeps one running: it carries out what the policy decides, reads the pipes, and sends
//! their bytes, starts and ends to the pipeline.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::link::{LinkMessages, LinkRecords};
use super::output::{Begun, Messages, StdoutLines};
use super::policy::{Action, RestartPolicy, View};
use super::process::{DtraceProcess, End, readable};
use super::programs::Program;
use super::{DtraceError, DtraceWitness, Runner, STDERR_BUFFERS, STDOUT_BUFFERS};
use crate::input::Input;
use crate::model::{MonoTime, Pid};
use crate::source::clock;
use crate::source::inbox::MessageSender;
use crate::source::keeper::{Gone, Started};
use crate::source::message::{Message, Stream, TextLane};
use crate::source::stop::Stop;
use crate::source::sysctl::KernelInfo;

/// What keeps dtrace(1) running. Between two events it blocks in one poll(2).
pub(crate) struct Supervisor {
    dtrace: DtraceWitness,
    /// How the log calls it.
    name: String,
    /// Why it could not be started the last time.
    complaint: Option<String>,
    /// Called with the kernel that dtrace(1) runs on, if a command runs it.
    on_kernel: Option<Box<dyn Fn(KernelInfo) + Send>>,
    to: MessageSender,
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
    /// What starts `dtrace` for these consumers, and keeps it running until `stop`. `begun` is called at the first record of
    /// each dtrace.
    ///
    /// # Errors
    /// [`DtraceError::Pipe`]. That dtrace itself cannot be started is an outage, not an error.
    pub(crate) fn new(
        dtrace: DtraceWitness,
        consumers: Vec<Pid>,
        to: MessageSender,
        begun: impl Fn() + Send + Sync + 'static,
        stop: Stop,
    ) -> Result<Supervisor, DtraceError> {
        let (wake, waker) = pipe().map_err(DtraceError::Pipe)?;
        let waker = Arc::new(waker);
        let pids = Arc::new(Mutex::new(consumers));
        let consumers = ConsumerPids { pids, waker: Arc::clone(&waker) };
        stop.on_request(move |requests| {
            // The second request is the last that changes anything; a pipe has room for both.
            if requests <= 2 {
                let _ = (&*waker).write_all(b"x");
            }
        });
        let name = match dtrace.host.as_str() {
            "" => "dtrace".to_owned(),
            host => format!("dtrace of {host}"),
        };
        Ok(Supervisor {
            dtrace,
            name,
            complaint: None,
            on_kernel: None,
            to,
            begun: Arc::new(begun),
            stop,
            consumers,
            watched: Vec::new(),
            wake,
        })
    }

    /// The same; `kernel` is called with the kernel that it finds.
    pub(crate) fn on_kernel(self, kernel: impl Fn(KernelInfo) + Send + 'static) -> Supervisor {
        Supervisor { on_kernel: Some(Box::new(kernel)), ..self }
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
            self.send(Input::DtraceDown { at: clock::now() });
        }
        result
    }

    /// Leaves a process only if the keeper is gone.
    fn attend(&mut self, process: &mut Option<DtraceProcess>) -> Result<(), Gone> {
        let mut policy = RestartPolicy::new(self.dtrace.options.limits);
        loop {
            let view = self.view(process.as_ref());
            match policy.next(&view) {
                Action::Wait(time) => self.wait(process.as_mut(), time),
                Action::Start => match self.start() {
                    Ok(started) => *process = Some(started),
                    Err(DtraceError::Gone(gone)) => return Err(gone),
                    Err(error) => {
                        self.complain(error.to_string());
                        policy.failed(view.now);
                    }
                },
                Action::Terminate(silent) => {
                    if let Some(silent) = silent {
                        let name = &self.name;
                        tracing::warn!(
                            "{name} has printed nothing for {silent:.1?}: restarting it"
                        );
                    }
                    self.dtrace.runner.terminate()?;
                }
                Action::Kill => self.dtrace.runner.kill()?,
                Action::Forget => {
                    if let Some(end) = process.as_ref().and_then(DtraceProcess::ended) {
                        self.ended(end, &policy, &view)?;
                    }
                    if view.last_output.is_none() {
                        self.doubt_choice();
                    }
                    *process = None;
                }
                Action::Over => return Ok(()),
            }
        }
    }

    fn view(&self, process: Option<&DtraceProcess>) -> View {
        let since_boot = |at: MonoTime| Duration::from_nanos(at.0);
        View {
            now: since_boot(clock::now()),
            exited: process.is_some_and(|process| process.ended().is_some()),
            last_output: process.and_then(DtraceProcess::last_output).map(since_boot),
            outdated: process.is_some() && self.consumers.get() != self.watched,
            stops: self.stop.requests(),
        }
    }

    fn wait(&mut self, process: Option<&mut DtraceProcess>, time: Duration) {
        let woken = match process {
            Some(process) => process.attend(&self.wake, time),
            None => readable([Some(&self.wake)], time) == [true],
        };
        if woken {
            let _ = self.wake.read(&mut [0]);
        }
    }

    fn start(&mut self) -> Result<DtraceProcess, DtraceError> {
        self.watched = self.consumers.get();
        let program = self.program()?;
        // Sent before its first record can be read. If it does not start, the outage is sent right after.
        self.send(Input::DtraceUp { at: clock::now() });
        let started = self.dtrace.runner.start(program, &self.watched).inspect_err(|_| {
            self.send(Input::DtraceDown { at: clock::now() });
        })?;
        tracing::info!("{} started, pid {}", self.name, started.pid);
        self.complaint = None;
        Ok(self.read(started))
    }

    /// The D program that compiles where it is to run.
    fn program(&mut self) -> Result<&'static Program, DtraceError> {
        if let Some(choice) = &self.dtrace.choice {
            return Ok(choice.program);
        }
        let wanted = || !self.stop.is_requested();
        let program = self.dtrace.choose_while(&self.watched, &wanted)?;
        if let Some(on_kernel) = &self.on_kernel {
            on_kernel(self.dtrace.kernel(&wanted));
        }
        Ok(program)
    }

    /// Another host may have another kernel by now.
    fn doubt_choice(&mut self) {
        if let Runner::Command(_) = self.dtrace.runner {
            self.dtrace.choice = None;
        }
    }

    /// What reads its pipes.
    fn read(&self, started: Started) -> DtraceProcess {
        let lane = |stream, buffers| TextLane::new(stream, buffers, self.to.clone());
        let (out, err) =
            (lane(Stream::Stdout, STDOUT_BUFFERS), lane(Stream::Stderr, STDERR_BUFFERS));
        let records = StdoutLines::new(out, Arc::clone(&self.begun));
        match self.dtrace.runner.link() {
            None => DtraceProcess::new(started, Box::new(records), Box::new(Messages::new(err))),
            Some(link) => {
                link.starts();
                let (to, name) = (self.to.clone(), self.name.clone());
                let booted = move || {
                    tracing::warn!(
                        "{name}: that host was booted; the pids of its consumers are others' now, so give the new ones"
                    );
                    // Its clock and its pids begin anew: what comes afterwards belongs to another run.
                    to.send(Message::Plain(Input::End));
                };
                let messages = LinkMessages::new(err, link.clone());
                let records = LinkRecords::new(records, link, booted);
                DtraceProcess::new(started, Box::new(records), Box::new(messages))
            }
        }
    }

    /// Logs why it cannot be started, unless that was the reason the last time too.
    fn complain(&mut self, why: String) {
        if self.complaint.as_ref() != Some(&why) && !self.stop.is_requested() {
            tracing::error!("cannot start {}: {why}", self.name);
            self.complaint = Some(why);
        }
    }

    /// Reports its end, unless the keeper is gone with it.
    fn ended(&self, end: End, policy: &RestartPolicy, view: &View) -> Result<(), Gone> {
        let how = match (end, &self.dtrace.runner) {
            (End::With(status), _) => status.to_string(),
            (End::Unknown, Runner::Keeper(keeper)) => return Err(keeper.is_gone()),
            (End::Unknown, Runner::Command(_)) => "its status is not known".to_owned(),
        };
        let name = &self.name;
        self.send(Input::DtraceDown { at: clock::now() });
        match policy.retry_at() {
            Some(_) if view.outdated && view.stops == 0 => {
                tracing::info!("starting {name} again, to watch another consumer");
            }
            Some(at) if view.stops == 0 => {
                let wait = at.saturating_sub(view.now);
                tracing::warn!("{name} ended ({how}); starting it again in {wait:.1?}");
            }
            _ => tracing::info!("{name} ended ({how})"),
        }
        Ok(())
    }

    /// Room is waited for: that dtrace was started, or is gone, must not be lost.
    fn send(&self, input: Input<'static>) {
        self.to.send(Message::Plain(input));
    }
}
