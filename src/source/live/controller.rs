//! The thread that looks after the others: it finds the roots of the trees, lets commands begin, reads the fork
//! counters, and ends everything in its order.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Error, panicked};
use crate::model::{Pid, TreeId};
use crate::source::barrier::{CommandProcess, Ended, GatedCommand};
use crate::source::clock;
use crate::source::dtrace::Supervised;
use crate::source::keeper::Keeper;
use crate::source::kqueue::{Event, Kernel, RootRequest};
use crate::source::message::Message;
use crate::source::stop::Stop;
use crate::source::sysctl::ForkCounter;

const TICK: Duration = Duration::from_millis(100);
/// How often the fork counters are read.
const FORKS_EVERY: Duration = Duration::from_secs(2);
/// Counters that took longer to read, in nanoseconds, are of no known time.
const FORKS_WITHIN_NS: u64 = 10_000_000;
/// From dtrace's first record until a command begins or a running tree is tracked: the reader's first marked calls come
/// before it.
const MARKS_FIRST: Duration = Duration::from_millis(500);
/// How often a pid file is read while its tree has no root.
const PID_FILE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct LiveController {
    pub(super) trees: Vec<Tree>,
    pub(super) keeper: Keeper,
    pub(super) linger: Option<Duration>,
    /// How long a run that is to end may wait for dtrace to begin.
    pub(super) patience: Duration,
    pub(super) stop: Stop,
    pub(super) witnesses: Witnesses,
    pub(super) to: SyncSender<Message>,
}

/// The threads of kqueue and of dtrace, and the ways to them.
pub(super) struct Witnesses {
    pub(super) requests: Sender<RootRequest>,
    pub(super) heard: Receiver<Event>,
    pub(super) reading: JoinHandle<(Box<dyn Kernel>, io::Result<()>)>,
    pub(super) reader_stop: Stop,
    pub(super) supervised: Supervised,
    pub(super) dtrace_stop: Stop,
}

impl Witnesses {
    /// One of their threads has ended, though nobody asked it to.
    fn is_lost(&self) -> bool {
        self.reading.is_finished() || self.supervised.threads.iter().any(JoinHandle::is_finished)
    }
}

impl LiveController {
    /// How the command among the trees ended, if there was one.
    pub(super) fn run(mut self) -> Result<Option<Ended>, Error> {
        let mut forks = Some(ForkCounter::default());
        let (mut read_forks, mut read_files) =
            (Every::new(FORKS_EVERY), Every::new(PID_FILE_EVERY));
        let mut commands_over: Option<Instant> = None;
        let mut begun: Option<Instant> = None;
        let started = Instant::now();
        self.request_roots(Tree::is_command);
        while !self.stop.is_requested() && !self.witnesses.is_lost() {
            while let Ok(event) = self.witnesses.heard.try_recv() {
                self.hear(event);
            }
            if self.witnesses.supervised.begun.load(Ordering::Acquire)
                && begun.get_or_insert_with(Instant::now).elapsed() >= MARKS_FIRST
            {
                self.trees.iter_mut().for_each(Tree::begin);
                // Not before: of what a busy tree does until dtrace traces there is no truth, and more calls than
                // there are capacities could not be told apart by the first marks.
                if read_files.is_due() {
                    self.request_roots(|_| true);
                }
            }
            if read_forks.is_due() {
                self.count_forks(&mut forks);
            }
            self.trees.iter_mut().for_each(Tree::reap);
            if let Some(linger) = self.linger.filter(|_| self.commands_are_over()) {
                let over = *commands_over.get_or_insert_with(Instant::now);
                if over.elapsed() >= linger {
                    break;
                }
            }
            if self.linger.is_some() && begun.is_none() && started.elapsed() >= self.patience {
                let waited = self.patience;
                return self.end().and(Err(Error::NeverBegan(waited)));
            }
            self.stop.wait(0, TICK);
        }
        self.end()
    }

    /// The reader first, so that dtrace still marks its last calls; then dtrace.
    fn end(self) -> Result<Option<Ended>, Error> {
        let ended = self.trees.iter().find_map(|tree| tree.ended.clone());
        let LiveController { trees, stop, to, witnesses, .. } = self;
        let Witnesses { reading, reader_stop, supervised, dtrace_stop, .. } = witnesses;
        trees.into_iter().for_each(Tree::abandon);
        reader_stop.request();
        let mut result = match reading.join() {
            Ok((kernel, result)) => {
                // On FreeBSD 10.4 and older a queue that is closed while a tracked process forks crashes the kernel
                // (D18316): it stays open until this process ends.
                std::mem::forget(kernel);
                result.map_err(Error::Kevent)
            }
            Err(_) => Err(panicked("the kqueue reader")),
        };
        dtrace_stop.request();
        let mut hurried = false;
        while supervised.threads.iter().any(|thread| !thread.is_finished()) {
            stop.wait(stop.requests(), TICK);
            if stop.requests() > 1 && !hurried {
                hurried = true;
                dtrace_stop.request();
            }
        }
        for thread in supervised.threads {
            let attended = thread.join().map_err(|_| panicked("dtrace's supervisor"))?;
            result = result.and(attended.map_err(Error::KeeperGone));
        }
        drop(to);
        result.map(|()| ended)
    }

    fn request_roots(&mut self, which: impl Fn(&Tree) -> bool) {
        for tree in self.trees.iter_mut().filter(|tree| which(tree)) {
            if let Some(request) = tree.request(&self.keeper) {
                // It fails when the reader has ended, which ends this loop.
                let _ = self.witnesses.requests.send(request);
            }
        }
    }

    fn hear(&mut self, event: Event) {
        let (id, event) = match event {
            Event::Searched { tracked } => {
                tracing::info!("registered who was there before; {tracked} processes are tracked");
                return;
            }
            Event::Taken { by, tree, pid } => {
                let other = self.trees.get(usize::from(by.0)).map_or("", |t| &t.name).to_owned();
                (tree, Fate::Refused(format!("process {pid} is tracked as part of tree {other:?}")))
            }
            Event::Attached { tree, pid } => (tree, Fate::Attached(pid)),
            Event::Refused { tree, pid, errno } => {
                let why = io::Error::from_raw_os_error(errno);
                (tree, Fate::Refused(format!("process {pid} cannot be tracked: {why}")))
            }
            Event::Ended { tree } => (tree, Fate::Ended),
        };
        if let Some(tree) = self.trees.get_mut(usize::from(id.0)) {
            tree.meet(event);
        }
    }

    fn count_forks(&self, forks: &mut Option<ForkCounter>) {
        let before = clock::now();
        match forks.as_mut().map(ForkCounter::read) {
            Some(Ok(total)) => {
                let at = clock::now();
                // Held up in between, nobody can say when the counters stood so; the next ones tell the same.
                if at.0.saturating_sub(before.0) <= FORKS_WITHIN_NS {
                    // The pipeline may be slow; this thread must not be.
                    let _ = self.to.try_send(Message::Forks { at, total });
                }
            }
            // Only where a stand-in is watched.
            Some(Err(error)) if error.kind() == ErrorKind::Unsupported => *forks = None,
            Some(Err(error)) => {
                tracing::warn!("going on without the kernel's fork counters: {error}");
                *forks = None;
            }
            None => {}
        }
    }

    fn commands_are_over(&self) -> bool {
        let mut commands = self.trees.iter().filter_map(Tree::command_is_over).peekable();
        commands.peek().is_some() && commands.all(|over| over)
    }
}

/// Something that is to happen again and again, at once for the first time.
struct Every {
    period: Duration,
    last: Option<Instant>,
}

impl Every {
    fn new(period: Duration) -> Every {
        Every { period, last: None }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= self.period);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// Where the root of a tree comes from, and what has become of that.
#[derive(Debug)]
pub(super) enum Source {
    /// A process that ran before us.
    Pid(Pid),
    /// Whatever the file names. The last pid that ended or could not be tracked is not tried again; a problem is said
    /// once.
    File { path: PathBuf, number: u16, gone: Option<Pid>, complaint: Option<String> },
    /// A command that has not begun.
    Gated(GatedCommand),
    /// A command that runs.
    Running(CommandProcess),
    /// A command that has ended.
    Over,
}

impl Source {
    /// The pid file with this number among the keeper's.
    pub(super) fn file(path: PathBuf, number: u16) -> Source {
        Source::File { path, number, gone: None, complaint: None }
    }
}

/// What the reader says about a root.
enum Fate {
    Attached(Pid),
    /// It cannot be tracked, and why.
    Refused(String),
    /// It has ended by itself.
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No root is known.
    Empty,
    /// The reader was asked to track it.
    Asked(Pid),
    /// It is tracked.
    Attached(Pid),
    /// It will not be tracked (again).
    Lost,
}

/// One tree.
#[derive(Debug)]
pub(super) struct Tree {
    id: TreeId,
    name: String,
    source: Source,
    state: State,
    /// How its command ended.
    ended: Option<Ended>,
}

impl Tree {
    pub(super) fn new(id: TreeId, name: String, source: Source) -> Tree {
        Tree { id, name, source, state: State::Empty, ended: None }
    }

    fn is_command(&self) -> bool {
        matches!(self.source, Source::Gated(_))
    }

    /// The root that the reader is to track, where there is one and it was not asked for.
    fn request(&mut self, keeper: &Keeper) -> Option<RootRequest> {
        if self.state != State::Empty {
            return None;
        }
        let (pid, newborn) = match &mut self.source {
            Source::Pid(pid) => (*pid, false),
            Source::Gated(gated) => (Pid::new(gated.process.id().into())?, true),
            Source::File { path, number, gone, complaint } => match keeper.read_pid_file(*number) {
                Ok(pid) if Some(pid) == *gone => return None,
                Ok(pid) => {
                    *complaint = None;
                    (pid, false)
                }
                Err(error) => {
                    let text = error.to_string();
                    if complaint.as_ref() != Some(&text) {
                        let path = path.display();
                        tracing::warn!(
                            "tree {:?} waits for its pid file {path}: {text}",
                            self.name
                        );
                        *complaint = Some(text);
                    }
                    return None;
                }
            },
            Source::Running(_) | Source::Over => return None,
        };
        self.state = State::Asked(pid);
        Some(RootRequest { tree: self.id, pid, newborn })
    }

    fn meet(&mut self, fate: Fate) {
        match fate {
            Fate::Attached(pid) => {
                tracing::info!("tree {:?}: tracking process {pid}", self.name);
                self.state = State::Attached(pid);
            }
            Fate::Refused(why) => {
                tracing::warn!("tree {:?} has no root: {why}", self.name);
                self.lose_root();
            }
            Fate::Ended => {
                tracing::info!("tree {:?}: its root has ended", self.name);
                self.lose_root();
            }
        }
    }

    /// There is no root any more. A pid file may name another one.
    fn lose_root(&mut self) {
        let pid = match self.state {
            State::Asked(pid) | State::Attached(pid) => Some(pid),
            State::Empty | State::Lost => None,
        };
        self.state = match &mut self.source {
            Source::File { gone, .. } => {
                *gone = pid;
                State::Empty
            }
            _ => State::Lost,
        };
        // A command that cannot be tracked must not begin, and nobody is to wait for it.
        if self.is_command() {
            self.give_up();
        }
    }

    /// DTrace has begun: lets the command begin, if it is tracked.
    fn begin(&mut self) {
        if !matches!((&self.source, self.state), (Source::Gated(_), State::Attached(_))) {
            return;
        }
        if let Source::Gated(gated) = std::mem::replace(&mut self.source, Source::Over) {
            match gated.release() {
                Ok(process) => self.source = Source::Running(process),
                Err(error) => tracing::error!("tree {:?}: cannot begin: {error}", self.name),
            }
        }
    }

    /// Reaps the command once it has ended. NOTE_EXIT comes a moment before it can be reaped.
    fn reap(&mut self) {
        let ended = match &mut self.source {
            Source::Running(process) => process.try_wait(),
            Source::Gated(gated) => gated.process.try_wait(),
            _ => return,
        };
        match ended {
            Ok(None) => return,
            Ok(Some(ended)) => {
                tracing::info!("tree {:?}: the command ended: {}", self.name, ended.status);
                self.ended = Some(ended);
            }
            Err(error) => tracing::error!("tree {:?}: cannot wait: {error}", self.name),
        }
        self.source = Source::Over;
    }

    /// Whether its command is over; `None` where it is no command.
    fn command_is_over(&self) -> Option<bool> {
        match self.source {
            Source::Pid(_) | Source::File { .. } => None,
            Source::Gated(_) | Source::Running(_) => Some(false),
            Source::Over => Some(true),
        }
    }

    /// Gives up a command that has not begun. One that runs is left alone.
    fn abandon(mut self) {
        self.give_up();
    }

    fn give_up(&mut self) {
        if let Source::Gated(gated) = std::mem::replace(&mut self.source, Source::Over)
            && let Err(error) = gated.abandon()
        {
            tracing::warn!("tree {:?}: {error}", self.name);
        }
    }
}
