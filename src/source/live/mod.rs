//! The live source: both witnesses and the fork counters of a running FreeBSD kernel.

mod controller;
mod tree;

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use super::barrier::Ended;
use super::barrier::GatedCommand;
use super::clock;
use super::dtrace::{self, Dtrace, STDERR_BUFFERS, STDOUT_BUFFERS};
use super::keeper::Gone;
use super::kqueue::{BATCH_BUFFERS, Kernel, Notes, Pace, Reader};
use super::message::{self, Message};
use super::stop::Stop;
use super::sysctl::kernel_info;
use super::target::{Root, Target};
use crate::input::{Input, Sink};
use crate::model::TreeId;
use crate::recording::Meta;
use controller::{AtEnd, Event, LiveController, Witnesses};
use tree::{RootSource, Tree};

/// What to watch, and how.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Config {
    /// The trees; their numbers are their places here.
    pub targets: Vec<Target>,
    /// Which notes to ask for.
    pub notes: Notes,
    /// How long the reader sleeps before each kevent(2) call: a slow consumer on purpose.
    pub stall: Duration,
    /// How dtrace(1) is run.
    pub dtrace: dtrace::Options,
    /// End so long after the last command among the targets has ended; `None` to go on for ever.
    pub linger: Option<Duration>,
    /// Keep the commands' stderr for [`Ended::stderr`], instead of passing it on to this process's.
    pub keep_stderr: bool,
    /// This program, which is started to keep dtrace and to wait in a command's place: `None` for the one that runs.
    pub own_program: Option<PathBuf>,
}

/// Why a live source cannot begin, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to watch, or two trees have one name.
    #[error("{0}")]
    Targets(String),
    /// DTrace is not there.
    #[error(transparent)]
    Dtrace(#[from] dtrace::Error),
    /// It is not known where this program is.
    #[error("cannot find this program, which runs dtrace as well: {0}")]
    Program(io::Error),
    /// It was there, and has gone.
    #[error(transparent)]
    KeeperGone(#[from] Gone),
    /// kqueue is not there.
    #[error("cannot open a kqueue that tracks processes: {0}")]
    Kqueue(io::Error),
    /// kevent(2) failed.
    #[error("kevent(2) failed, so kqueue tells nothing any more: {0}")]
    Kevent(io::Error),
    /// A command cannot be started.
    #[error("cannot start the command of tree {name:?}: {source}")]
    Command {
        /// The tree.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// dtrace has not traced anything, however often it was started.
    #[error("dtrace has not begun to trace within {0:?}; what it said is in the log above")]
    NeverBegan(Duration),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A live source whose prerequisites were found. Its keeper runs and its commands wait, all of them as the user that
/// this process was then; whatever user it becomes, the rest can be done.
pub struct Live {
    config: Config,
    dtrace: Dtrace,
    kernel: Box<dyn Kernel>,
    trees: Vec<Tree>,
    stop: Stop,
}

impl Live {
    /// Opens a kqueue and finds dtrace(1).
    ///
    /// # Errors
    /// [`Error`], worded for the person who runs the exporter.
    pub fn prepare(
        config: Config,
        open: impl FnOnce() -> io::Result<Box<dyn Kernel>>,
    ) -> Result<Live, Error> {
        check(&config.targets)?;
        // First: where there is no such kernel, it is not dtrace that is missing.
        let kernel = open().map_err(Error::Kqueue)?;
        let program = match &config.own_program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe(),
        };
        let program = program.map_err(Error::Program)?;
        let dtrace = Dtrace::find(&program, &config.dtrace, pid_files(&config.targets))?;
        let trees = trees(&config, &program)?;
        Ok(Live { config, dtrace, kernel, trees, stop: Stop::default() })
    }

    /// Ends [`Live::run`], from any thread: the first request cleanly, the second one by killing dtrace.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// What a recording of this source says about its origin.
    pub fn meta(&self, note: &str) -> Meta {
        let kernel = kernel_info();
        Meta {
            uname: kernel.uname,
            osreldate: kernel.osreldate,
            program: self.dtrace.program_text(),
            note: note.to_owned(),
            start_mono_ns: clock::now().0,
            start_real_ns: clock::wall_now(),
        }
    }

    /// Starts everything and pushes what comes into `sink`, on this thread, until it is stopped or `sink` breaks off.
    /// The last is always [`Input::End`], unless `sink` broke off. A sink that is slow loses nothing but time until the
    /// rings are full; then what is lost is counted, and pushed as such. Gives back how the command among the targets
    /// ended, if there was one.
    ///
    /// # Errors
    /// [`Error`]: what was read before was pushed.
    pub fn run(self, sink: &mut impl Sink) -> Result<Option<Ended>, Error> {
        let Live { config, dtrace, kernel, trees, stop } = self;
        let keeper = dtrace.keeper();
        for (target, id) in config.targets.iter().zip(0..) {
            if sink.push(Input::Tree { id: TreeId(id), name: &target.name }).is_break() {
                return Ok(None);
            }
        }
        let (to, from) = message::channel(STDOUT_BUFFERS + STDERR_BUFFERS + BATCH_BUFFERS);
        let (notify, events) = channel();
        stop.on_request({
            let notify = notify.clone();
            move |_| drop(notify.send(Event::Stop))
        });
        let witnesses = witnesses(&config, dtrace, kernel, to.clone(), &notify)?;
        let controller = LiveController {
            trees,
            keeper,
            linger: config.linger,
            patience: 2 * config.dtrace.limits.startup,
            stop: stop.clone(),
            witnesses,
            to,
            events,
            notify,
        };
        let controller = spawn("controller", || controller.run())?;
        let broken = consume(&from, sink, &stop);
        let result = controller.join().unwrap_or_else(|_| Err(panicked("controller")));
        if broken.is_continue() {
            let _ = sink.push(Input::End);
        }
        result
    }
}

/// Whether these can be watched together.
///
/// # Errors
/// There is nothing to watch, or two trees have one name.
pub fn check(targets: &[Target]) -> Result<(), Error> {
    if targets.is_empty() {
        return Err(Error::Targets(
            "nothing to watch: give --kqueue.target, or a command after --; to serve, a [[tree]] in \
             --config.file is as good"
                .to_owned(),
        ));
    }
    if targets.len() > usize::from(u16::MAX) {
        return Err(Error::Targets(format!("more than {} trees", u16::MAX)));
    }
    let mut names = HashSet::new();
    match targets.iter().find(|target| !names.insert(&target.name)) {
        Some(twice) => Err(Error::Targets(format!("two trees are named {:?}", twice.name))),
        None => Ok(()),
    }
}

/// Starts both witnesses.
fn witnesses(
    config: &Config,
    dtrace: Dtrace,
    kernel: Box<dyn Kernel>,
    to: SyncSender<Message>,
    notify: &Sender<Event>,
) -> Result<Witnesses, Error> {
    let (requests, to_attach) = channel();
    let (reader_stop, dtrace_stop, pace) = (Stop::default(), Stop::default(), Pace::default());
    // Both fail when the controller has ended.
    let (begun, of_root) = (notify.clone(), notify.clone());
    let begun = move || drop(begun.send(Event::Begun));
    let of_root = Box::new(move |event| drop(of_root.send(Event::Root(event))));
    let supervisor = dtrace.supervisor(to.clone(), begun, dtrace_stop.clone())?;
    let (notes, stall) = (config.notes, config.stall);
    let reader = Reader::new(kernel, notes, stall, to_attach, of_root, pace.clone(), to);
    let (end, stop) = (AtEnd(notify.clone()), reader_stop.clone());
    let reading = spawn("kqueue", move || {
        let _end = end;
        reader.run(&stop)
    })?;
    let end = AtEnd(notify.clone());
    let tracing = spawn("dtrace", move || {
        let _end = end;
        supervisor.run()
    });
    let tracing = tracing.inspect_err(|_| reader_stop.request())?;
    Ok(Witnesses { requests, pace, reading, reader_stop, tracing, dtrace_stop })
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    Builder::new().name(name.to_owned()).spawn(run).map_err(Error::Thread)
}

/// The pid files among the targets, in their order: the keeper knows them by number.
fn pid_files(targets: &[Target]) -> Vec<PathBuf> {
    let path = |target: &Target| match &target.root {
        Root::PidFile(path) => Some(path.clone()),
        _ => None,
    };
    targets.iter().filter_map(path).collect()
}

/// The trees, with the commands among them behind their barriers.
fn trees(config: &Config, program: &Path) -> Result<Vec<Tree>, Error> {
    let mut pid_files = 0..;
    let mut tree = |(target, id): (&Target, u16)| {
        let source = match &target.root {
            Root::Pid(pid) => RootSource::Pid(*pid),
            Root::PidFile(path) => {
                RootSource::file(path.clone(), pid_files.next().unwrap_or_default())
            }
            Root::Command(command) => RootSource::Gated(
                GatedCommand::start(program, command, config.keep_stderr)
                    .map_err(|source| Error::Command { name: target.name.clone(), source })?,
            ),
        };
        Ok(Tree::new(TreeId(id), target.name.clone(), source))
    };
    config.targets.iter().zip(0..).map(&mut tree).collect()
}

/// Everything that comes, until nobody can send any more. `Break` where the sink wanted no more.
fn consume(from: &Receiver<Message>, sink: &mut impl Sink, stop: &Stop) -> ControlFlow<()> {
    let mut flow = ControlFlow::Continue(());
    for message in from {
        // After a break it still reads on: nobody must wait for room in vain.
        if flow.is_continue() {
            flow = message.deliver(sink);
            if flow.is_break() {
                stop.request();
            }
        }
    }
    flow
}

fn panicked(thread: &str) -> Error {
    Error::Thread(io::Error::other(format!("{thread} panicked: this is a bug")))
}
