//! The live source: both witnesses and the fork counters of a running FreeBSD kernel.

mod config;
mod consumers;
mod controller;
mod pid_file;
mod remote;
mod stdin;
mod tree;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

pub use super::barrier::CommandEnd;
use super::barrier::GatedCommand;
use super::clock;
use super::dtrace::{DtraceWitness, KeeperScope, STDERR_BUFFERS, STDOUT_BUFFERS, Supervisor};
use super::inbox::{MessageSender, inbox};
use super::keeper::{CpuMeter, Keeper};
use super::kqueue::{BATCH_BUFFERS, IdlePace, KqueueApi, KqueueReader};
use super::stop::Stop;
use super::sysctl::{ForkCounter, KernelInfo, kernel_info};
use super::target::{Root, Target};
use crate::input::{Input, Sink};
use crate::model::{Pid, TreeId};
use crate::recording::Meta;
pub use config::{LiveConfig, LiveError, check};
use consumers::Consumers;
use controller::{AtEnd, LiveController, LiveEvent, Witnesses};
use pid_file::PidFile;
pub use remote::{Remote, RemoteConfig};
pub use stdin::Stdin;
use tree::{RootSource, Tree};

/// A live source whose prerequisites were found. Its keeper runs and its commands wait, all of them as the user that
/// this process was then; the rest can be done as any user.
pub struct Live {
    config: LiveConfig,
    dtrace: DtraceWitness,
    keeper: Keeper,
    /// `None` if consumers alone are watched.
    kernel: Option<Box<dyn KqueueApi>>,
    trees: Vec<Tree>,
    consumers: Consumers,
    stop: Stop,
}

impl Live {
    /// Opens a kqueue, if there are targets, and finds dtrace(1).
    ///
    /// # Errors
    /// [`LiveError`], with what the operator can do.
    pub fn prepare(
        config: LiveConfig,
        open: impl FnOnce() -> io::Result<Box<dyn KqueueApi>>,
    ) -> Result<Live, LiveError> {
        check(&config)?;
        // First: if there is no such kernel, it is not dtrace that is missing.
        let kernel = match config.targets.is_empty() {
            true => None,
            false => Some(open().map_err(LiveError::Kqueue)?),
        };
        let program = match &config.own_program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe(),
        };
        let program = program.map_err(LiveError::Program)?;
        let scope = scope(&config);
        let pid_files = scope.pid_files.clone();
        let (mut dtrace, keeper) = DtraceWitness::by_keeper(&program, &config.dtrace, scope)?;
        // No pid file was read yet. For a trial compilation, any pid will do: the keeper takes that of this process.
        let own_pid = Pid::new(std::process::id().into());
        let consumer = own_pid.filter(|_| !config.consumers.is_empty());
        dtrace.choose(consumer.as_slice())?;
        let trees = trees(&config, &program, &pid_files)?;
        let mut consumers = Consumers::of(&config, &pid_files)?;
        consumers.look(&keeper);
        Ok(Live { config, dtrace, keeper, kernel, trees, consumers, stop: Stop::default() })
    }

    /// Ends [`Live::run`], from any thread: the first request cleanly, the second one by killing dtrace.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Whether a kqueue of our own is read: not if consumers alone are watched.
    pub(crate) fn reads_kqueue(&self) -> bool {
        self.kernel.is_some()
    }

    /// The meter of the processor time that the keeper and dtrace(1) use.
    pub(crate) fn cpu_meter(&self) -> CpuMeter {
        self.keeper.cpu_meter()
    }

    /// How often dtrace(1) reads its buffers, in nanoseconds.
    pub(crate) fn switch_ns(&self) -> u64 {
        self.dtrace.switch_ns()
    }

    /// What a recording of this source says about its origin.
    pub fn meta(&self, note: &str) -> Meta {
        meta(kernel_info(), self.dtrace.program_text(&self.consumers.pids()), note)
    }

    /// Starts everything and pushes what comes into `sink`, on this thread, until it is stopped or `sink` breaks off.
    /// The last is always [`Input::End`], unless `sink` broke off. A sink that is slow loses nothing but time until the
    /// rings are full; then what is lost is counted, and pushed as such. Gives back how the command among the targets
    /// ended, if there was one.
    ///
    /// # Errors
    /// [`LiveError`]: what was read before was pushed.
    pub fn run(self, sink: &mut impl Sink) -> Result<Option<CommandEnd>, LiveError> {
        let Live { config, dtrace, keeper, kernel, trees, consumers, stop } = self;
        if push_trees(sink, &config.targets, &consumers).is_break() {
            return Ok(None);
        }
        let (to, from) = inbox(STDOUT_BUFFERS + STDERR_BUFFERS + BATCH_BUFFERS);
        let (notify, events) = channel();
        stop.on_request({
            let notify = notify.clone();
            move |_| drop(notify.send(LiveEvent::Stop))
        });
        let pids = consumers.pids();
        let witnesses = witnesses(&config, dtrace, kernel, pids, to.clone(), &notify)?;
        let controller = LiveController {
            trees,
            consumers,
            keeper,
            linger: config.linger,
            patience: 2 * config.dtrace.limits.startup,
            stop: stop.clone(),
            witnesses,
            to,
            events,
            notify,
            forks: ForkCounter::default(),
        };
        let controller = spawn("controller", || controller.run())?;
        let broken = from.deliver_to(sink, &stop);
        let result = controller.join().unwrap_or_else(|_| Err(panicked("controller")));
        if broken.is_continue() {
            let _ = sink.push(Input::End);
        }
        result
    }
}

/// Names the trees to `sink`, and then the consumers.
fn push_trees(sink: &mut impl Sink, targets: &[Target], consumers: &Consumers) -> ControlFlow<()> {
    for (target, id) in targets.iter().zip((0..).map(TreeId)) {
        sink.push(Input::Tree { id, name: &target.name })?;
    }
    for (id, name, pid) in consumers.all() {
        sink.push(Input::Tree { id, name })?;
        sink.push(Input::Consumer { id, pid })?;
    }
    ControlFlow::Continue(())
}

/// Starts the witnesses: dtrace(1), and unless consumers alone are watched, the reader of our kqueue.
fn witnesses(
    config: &LiveConfig,
    dtrace: DtraceWitness,
    kernel: Option<Box<dyn KqueueApi>>,
    consumers: Vec<Pid>,
    to: MessageSender,
    notify: &Sender<LiveEvent>,
) -> Result<Witnesses, LiveError> {
    let (requests, to_attach) = channel();
    let (reader_stop, dtrace_stop, pace) = (Stop::default(), Stop::default(), IdlePace::default());
    // Both fail when the controller has ended.
    let (begun, of_root) = (notify.clone(), notify.clone());
    let begun = move || drop(begun.send(LiveEvent::Begun));
    let of_root = Box::new(move |event| drop(of_root.send(LiveEvent::Root(event))));
    let supervisor = Supervisor::new(dtrace, consumers, to.clone(), begun, dtrace_stop.clone())?;
    let consumers = supervisor.consumers();
    let reading = kernel.map(|kernel| {
        let (notes, stall) = (config.notes, config.stall);
        let reader = KqueueReader::new(kernel, notes, stall, to_attach, of_root, pace.clone(), to);
        let stop = reader_stop.clone();
        spawn_witness("kqueue", notify, move || reader.run(&stop))
    });
    let reading = reading.transpose()?;
    let tracing = spawn_witness("dtrace", notify, || supervisor.run())
        .inspect_err(|_| reader_stop.request())?;
    Ok(Witnesses { requests, pace, reading, reader_stop, consumers, tracing, dtrace_stop })
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, LiveError> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(LiveError::Thread)
}

/// The same; the controller is notified at its end.
fn spawn_witness<T: Send + 'static>(
    name: &str,
    notify: &Sender<LiveEvent>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, LiveError> {
    let at_end = AtEnd(notify.clone());
    spawn(name, move || {
        let _at_end = at_end;
        run()
    })
}

/// What the keeper may read and watch. It knows the pid files, of targets and then of consumers, by their numbers.
fn scope(config: &LiveConfig) -> KeeperScope {
    let path = |target: &Target| match &target.root {
        Root::PidFile(path) => Some(path.clone()),
        _ => None,
    };
    let pid = |consumer: &Target| match consumer.root {
        Root::Pid(pid) => Some(pid),
        _ => None,
    };
    KeeperScope {
        trees: !config.targets.is_empty(),
        pid_files: config.targets.iter().chain(&config.consumers).filter_map(path).collect(),
        consumers: config.consumers.iter().filter_map(pid).collect(),
    }
}

/// The trees, with the commands among them behind their barriers.
fn trees(
    config: &LiveConfig,
    program: &Path,
    pid_files: &[PathBuf],
) -> Result<Vec<Tree>, LiveError> {
    let tree = |(target, id): (&Target, u16)| {
        let source = match &target.root {
            Root::Pid(pid) => RootSource::Pid(*pid),
            Root::PidFile(path) => RootSource::File(PidFile::new(path, pid_files)),
            Root::Command(command) => RootSource::Gated(
                GatedCommand::start(program, command, config.keep_stderr)
                    .map_err(|source| LiveError::Command { name: target.name.clone(), source })?,
            ),
        };
        Ok(Tree::new(TreeId(id), target.name.clone(), source))
    };
    config.targets.iter().zip(0..).map(tree).collect()
}

/// What a recording that begins now says about its origin.
fn meta(kernel: KernelInfo, program: String, note: &str) -> Meta {
    Meta {
        uname: kernel.uname,
        osreldate: kernel.osreldate,
        program,
        note: note.to_owned(),
        start_mono_ns: clock::now().0,
        start_real_ns: clock::wall_now(),
    }
}

fn join<T>(thread: JoinHandle<T>, name: &str) -> Result<T, LiveError> {
    thread.join().map_err(|_| panicked(name))
}

fn panicked(thread: &str) -> LiveError {
    LiveError::Thread(io::Error::other(format!("{thread} panicked: this is a bug")))
}
