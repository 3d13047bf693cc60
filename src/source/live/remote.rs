//! Consumers of another host: nothing runs there but dtrace(1), and a command brings what it prints.

use std::ops::ControlFlow;
use std::time::Duration;

use super::{LiveError, join, meta, spawn};
use crate::input::{Input, MOST_CONSUMERS, Sink};
use crate::model::{Pid, TreeId};
use crate::recording::Meta;
use crate::source::dtrace::{self, DtraceWitness, STDERR_BUFFERS, STDOUT_BUFFERS, Supervisor};
use crate::source::inbox::inbox;
use crate::source::stop::Stop;
use crate::source::sysctl::KernelInfo;
use crate::source::target::{Root, Target};

/// What to watch on another host, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteConfig {
    /// The value of the `host` label; empty for the only host.
    pub host: String,
    /// The words of the command that runs dtrace(1) there.
    pub command: Vec<String>,
    /// How dtrace(1) is run.
    pub dtrace: dtrace::DtraceOptions,
    /// The consumers, each by its pid there; their numbers are their places here.
    pub consumers: Vec<Target>,
}

/// A host that is watched over a command. It need not be reachable yet.
pub struct Remote {
    host: String,
    consumers: Vec<NamedPid>,
    dtrace: DtraceWitness,
    kernel: KernelInfo,
    stop: Stop,
}

impl Remote {
    /// Nothing is started yet.
    ///
    /// # Errors
    /// [`LiveError::Targets`]: there is no consumer, or one is not named by its pid.
    pub(crate) fn new(config: RemoteConfig) -> Result<Remote, LiveError> {
        let RemoteConfig { host, command, dtrace, consumers } = config;
        let consumers = named_pids(&host, &consumers)?;
        let dtrace = DtraceWitness::by_command(&command, &dtrace, &host);
        let (kernel, stop) = (KernelInfo::default(), Stop::default());
        Ok(Remote { host, consumers, dtrace, kernel, stop })
    }

    /// Reaches dtrace(1) there and chooses the D program, for a run that is to fail now if it cannot. The kernel there.
    ///
    /// # Errors
    /// [`LiveError::Dtrace`].
    pub(crate) fn reach(&mut self) -> Result<KernelInfo, LiveError> {
        self.dtrace.choose(&pids(&self.consumers))?;
        self.kernel = self.dtrace.kernel(&|| true);
        Ok(self.kernel.clone())
    }

    pub(crate) fn dtrace(&self) -> &DtraceWitness {
        &self.dtrace
    }

    /// The host's name; empty for the only one.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// How often dtrace(1) reads its buffers, in nanoseconds.
    pub(crate) fn switch_ns(&self) -> u64 {
        self.dtrace.switch_ns()
    }

    /// Ends [`Remote::run`], from any thread.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// What a recording of it says about its origin, as far as it was [reached](Remote::reach).
    pub(crate) fn meta(&self, note: &str) -> Meta {
        meta(self.kernel.clone(), self.dtrace.program_text(&pids(&self.consumers)), note)
    }

    /// Pushes what dtrace(1) prints into `sink`, on this thread, until it is stopped or `sink` breaks off. A host that
    /// cannot be reached is an outage: it is tried again. `kernel` is called whenever that host's kernel has become known.
    ///
    /// # Errors
    /// A thread or a pipe cannot be made.
    pub(crate) fn run(
        self,
        sink: &mut impl Sink,
        kernel: impl Fn(KernelInfo) + Send + 'static,
    ) -> Result<(), LiveError> {
        let Remote { consumers, dtrace, stop, .. } = self;
        if push_consumers(sink, &consumers).is_break() {
            return Ok(());
        }
        let (to, from) = inbox(STDOUT_BUFFERS + STDERR_BUFFERS);
        let supervisor =
            Supervisor::new(dtrace, pids(&consumers), to, || (), stop.clone())?.on_kernel(kernel);
        let tracing = spawn("dtrace", || supervisor.run())?;
        let mut runs = Runs { sink, consumers: &consumers };
        let broken = from.deliver_to(&mut runs, &stop);
        join(tracing, "dtrace's supervisor")?.map_err(LiveError::KeeperGone)?;
        if broken.is_continue() {
            let _ = sink.push(Input::End);
        }
        Ok(())
    }
}

/// The sink of one run after the other: a host that was booted is another run of the same consumers.
struct Runs<'a, S> {
    sink: &'a mut S,
    consumers: &'a [NamedPid],
}

impl<S: Sink> Sink for Runs<'_, S> {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        self.sink.push(input)?;
        match input {
            Input::End => push_consumers(self.sink, self.consumers),
            _ => ControlFlow::Continue(()),
        }
    }

    fn idle(&mut self) -> Option<Duration> {
        self.sink.idle()
    }
}

/// A consumer that is named by its pid.
pub(super) struct NamedPid {
    name: String,
    pid: Pid,
}

fn pids(consumers: &[NamedPid]) -> Vec<Pid> {
    consumers.iter().map(|consumer| consumer.pid).collect()
}

/// Names the consumers to `sink`; their numbers are their places.
pub(super) fn push_consumers(sink: &mut impl Sink, consumers: &[NamedPid]) -> ControlFlow<()> {
    for (NamedPid { name, pid }, id) in consumers.iter().zip((0..).map(TreeId)) {
        sink.push(Input::Tree { id, name })?;
        sink.push(Input::Consumer { id, pid: Some(*pid) })?;
    }
    ControlFlow::Continue(())
}

/// The consumers of a host.
///
/// # Errors
/// There is none, there are too many, or one is not named by its pid.
pub(super) fn named_pids(host: &str, consumers: &[Target]) -> Result<Vec<NamedPid>, LiveError> {
    let of = if host.is_empty() { String::new() } else { format!(" of {host}") };
    if consumers.is_empty() || consumers.len() > MOST_CONSUMERS {
        return Err(LiveError::Targets(format!(
            "nothing to watch{of}, or too much: name 1 to {MOST_CONSUMERS} consumers by their pids there, \
             --consumer NAME=pid:NUMBER, as `kqproc_exporter consumers --dtrace.command COMMAND` lists them"
        )));
    }
    let named_pid = |Target { name, root }: &Target| match root {
        Root::Pid(pid) => Ok(NamedPid { name: name.clone(), pid: *pid }),
        Root::PidFile(file) => Err(LiveError::Targets(format!(
            "consumer {name:?}{of}: nothing here can read {file} of that host; give the pid that is in it, {name}=pid:NUMBER",
            file = file.display()
        ))),
        Root::Command(_) => Err(LiveError::Targets(format!(
            "consumer {name:?}{of} is a command: give the pid of a process of that host"
        ))),
    };
    consumers.iter().map(named_pid).collect()
}
