//! The thread that looks after the others: it finds the roots of the trees, lets commands begin, reads the fork
//! counters, and ends everything in its order. Between two events it blocks, until the next time at which it has to
//! act.

use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::consumers::Consumers;
use super::tree::Tree;
use super::{LiveError, join, panicked};
use crate::input::Input;
use crate::model::TreeId;
use crate::source::barrier::CommandEnd;
use crate::source::clock;
use crate::source::dtrace::ConsumerPids;
use crate::source::inbox::MessageSender;
use crate::source::keeper::{Gone, Keeper};
use crate::source::kqueue::{IdlePace, KqueueApi, RootEvent, RootRequest};
use crate::source::message::Message;
use crate::source::stop::Stop;
use crate::source::sysctl::ForkCounter;

/// How often the fork counters are read.
const FORKS_EVERY: Duration = Duration::from_secs(5);
/// Counters that took longer to read, in nanoseconds, are of no known time.
const FORKS_WITHIN_NS: u64 = 10_000_000;
/// From dtrace's first record until a command begins or a running tree is tracked: the reader's first marked calls come
/// before it.
const MARKS_FIRST: Duration = Duration::from_millis(500);
/// How often a pid file is read while its tree has no root, and how often it is looked whether a consumer still runs.
const PID_FILE_EVERY: Duration = Duration::from_secs(1);

/// What the controller waits for.
#[derive(Debug)]
pub(super) enum LiveEvent {
    Root(RootEvent),
    /// dtrace has printed its first record.
    Begun,
    CommandEnded(TreeId, io::Result<CommandEnd>),
    /// A thread of a witness has ended.
    ThreadEnded,
    Stop,
}

/// Sends an event when it is dropped: at the end of a thread, even if that panics.
pub(super) struct AtEnd(pub(super) Sender<LiveEvent>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        // It fails when the controller has ended.
        let _ = self.0.send(LiveEvent::ThreadEnded);
    }
}

pub(super) struct LiveController {
    pub(super) trees: Vec<Tree>,
    pub(super) consumers: Consumers,
    pub(super) keeper: Keeper,
    pub(super) linger: Option<Duration>,
    /// How long a run that is to end may wait for dtrace to begin.
    pub(super) patience: Duration,
    pub(super) stop: Stop,
    pub(super) witnesses: Witnesses,
    pub(super) to: MessageSender,
    pub(super) events: Receiver<LiveEvent>,
    /// For the threads that wait for commands.
    pub(super) notify: Sender<LiveEvent>,
    pub(super) forks: ForkCounter,
}

/// What the reader's thread ends with: its kernel, and why it ended.
pub(super) type Reading = (Box<dyn KqueueApi>, io::Result<()>);

/// The threads of kqueue, if there are targets, and of dtrace, and the ways to them.
pub(super) struct Witnesses {
    pub(super) requests: Sender<RootRequest>,
    pub(super) pace: IdlePace,
    pub(super) reading: Option<JoinHandle<Reading>>,
    pub(super) reader_stop: Stop,
    pub(super) consumers: ConsumerPids,
    pub(super) tracing: JoinHandle<Result<(), Gone>>,
    pub(super) dtrace_stop: Stop,
}

/// The times at which the controller has to act even if nothing happens.
#[derive(Default)]
struct Deadlines {
    forks: Option<Instant>,
    /// The trees begin.
    begin: Option<Instant>,
    /// Pid files are read again.
    roots: Option<Instant>,
    /// Consumers are looked after.
    consumers: Option<Instant>,
    /// dtrace has had enough time to begin.
    never_began: Option<Instant>,
    /// The witnesses have gone on for long enough after the last command.
    over: Option<Instant>,
}

impl Deadlines {
    fn next(&self) -> Option<Instant> {
        let Deadlines { forks, begin, roots, consumers, never_began, over } = *self;
        [forks, begin, roots, consumers, never_began, over].into_iter().flatten().min()
    }
}

/// Whether it has come; then it is gone.
fn is_due(deadline: &mut Option<Instant>) -> bool {
    deadline.take_if(|at| *at <= Instant::now()).is_some()
}

impl LiveController {
    /// How the command among the trees ended, if there was one.
    pub(super) fn run(mut self) -> Result<Option<CommandEnd>, LiveError> {
        let now = Instant::now();
        let mut deadlines = Deadlines {
            forks: Some(now),
            consumers: (!self.consumers.is_empty()).then_some(now),
            never_began: self.linger.map(|_| now + self.patience),
            ..Deadlines::default()
        };
        self.request_roots(Tree::is_command);
        loop {
            self.do_what_is_due(&mut deadlines);
            if is_due(&mut deadlines.never_began) {
                let waited = self.patience;
                return self.end().and(Err(LiveError::NeverBegan(waited)));
            }
            if is_due(&mut deadlines.over) {
                return self.end();
            }
            self.set_deadlines(&mut deadlines);
            match self.event_before(deadlines.next()) {
                Some(LiveEvent::Stop | LiveEvent::ThreadEnded) => return self.end(),
                Some(LiveEvent::Root(event)) => self.root_event(event),
                Some(LiveEvent::CommandEnded(id, ended)) => {
                    self.with_tree(id, |tree| tree.command_ended(ended));
                }
                // Once: it was begun already if a dtrace begins again.
                Some(LiveEvent::Begun) if !self.has_begun() && deadlines.begin.is_none() => {
                    deadlines.never_began = None;
                    deadlines.begin = Some(Instant::now() + MARKS_FIRST);
                }
                Some(LiveEvent::Begun) | None => {}
            }
        }
    }

    /// What there is to do at this time, but for an end.
    fn do_what_is_due(&mut self, deadlines: &mut Deadlines) {
        if is_due(&mut deadlines.begin) {
            self.begin();
            deadlines.roots = Some(Instant::now());
        }
        if is_due(&mut deadlines.roots) {
            self.request_roots(|_| true);
        }
        if is_due(&mut deadlines.consumers) {
            self.look_after_consumers();
            deadlines.consumers = Some(Instant::now() + PID_FILE_EVERY);
        }
        if is_due(&mut deadlines.forks) && self.count_forks() {
            deadlines.forks = Some(Instant::now() + FORKS_EVERY);
        }
    }

    /// When trees that wait for their pid files are looked after, and when the run is over.
    fn set_deadlines(&self, deadlines: &mut Deadlines) {
        if self.has_begun() && deadlines.roots.is_none() {
            let waits = self.trees.iter().any(Tree::waits_for_its_file);
            deadlines.roots = waits.then(|| Instant::now() + PID_FILE_EVERY);
        }
        if let Some(linger) = self.linger.filter(|_| self.commands_are_over()) {
            deadlines.over.get_or_insert_with(|| Instant::now() + linger);
        }
    }

    fn has_begun(&self) -> bool {
        self.witnesses.pace.is_idle()
    }

    /// The next event, unless `deadline` comes before it.
    fn event_before(&self, deadline: Option<Instant>) -> Option<LiveEvent> {
        let Some(deadline) = deadline else {
            // It cannot fail: this thread has a sender itself.
            return Some(self.events.recv().unwrap_or(LiveEvent::Stop));
        };
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(LiveEvent::Stop),
        }
    }

    /// DTrace traces, and the first calls of the reader have their marks: commands begin, and what runs already is tracked.
    /// Not before: of what a busy tree does until then there is no truth.
    fn begin(&mut self) {
        for tree in &mut self.trees {
            let Some(mut process) = tree.begin() else { continue };
            let (id, notify) = (tree.id, self.notify.clone());
            let wait = move || drop(notify.send(LiveEvent::CommandEnded(id, process.wait())));
            if let Err(error) = Builder::new().name("command".to_owned()).spawn(wait) {
                tree.command_ended(Err(error));
            }
        }
        self.witnesses.pace.all_begun();
    }

    /// The reader first, so that dtrace still marks its last calls; then dtrace.
    fn end(self) -> Result<Option<CommandEnd>, LiveError> {
        let LiveController { trees, stop, to, witnesses, .. } = self;
        let Witnesses { reading, reader_stop, tracing, dtrace_stop, .. } = witnesses;
        let ended = trees.iter().find_map(|tree| tree.ended.clone());
        trees.into_iter().for_each(Tree::abandon);
        reader_stop.request();
        let result = match reading.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok((kernel, result))) => {
                // On FreeBSD 10.4 and older a queue that is closed while a tracked process forks crashes the kernel
                // (D18316): it stays open until this process ends.
                std::mem::forget(kernel);
                result.map_err(LiveError::Kevent)
            }
            Some(Err(_)) => Err(panicked("the kqueue reader")),
        };
        dtrace_stop.request();
        let at_once = dtrace_stop.clone();
        stop.on_request(move |requests| {
            if requests > 1 {
                at_once.request();
            }
        });
        let traced = join(tracing, "dtrace's supervisor")?;
        drop(to);
        result.and(traced.map_err(LiveError::KeeperGone)).map(|()| ended)
    }

    fn request_roots(&mut self, which: impl Fn(&Tree) -> bool) {
        for tree in self.trees.iter_mut().filter(|tree| which(tree)) {
            if let Some(request) = tree.request(&self.keeper) {
                // It fails when the reader has ended, which ends this loop.
                let _ = self.witnesses.requests.send(request);
            }
        }
    }

    /// A consumer that has ended is waited for. With a new one dtrace is started again, to watch it as well.
    fn look_after_consumers(&mut self) {
        let changes = self.consumers.look(&self.keeper);
        for &(id, pid) in &changes {
            // It must not be lost, so room is waited for.
            self.to.send(Message::Plain(Input::Consumer { id, pid }));
        }
        if changes.iter().any(|(_, pid)| pid.is_some()) {
            self.witnesses.consumers.set(self.consumers.pids());
        }
    }

    fn root_event(&mut self, event: RootEvent) {
        match event {
            RootEvent::Searched { tracked } => {
                tracing::info!("registered who was there before; {tracked} processes are tracked");
            }
            RootEvent::Attached { tree, pid } => {
                self.with_tree(tree, |tree| tree.root_attached(pid));
            }
            RootEvent::Refused { tree, pid, errno } => {
                let why = io::Error::from_raw_os_error(errno);
                let why = format!("process {pid} cannot be tracked: {why}");
                self.with_tree(tree, |tree| tree.root_refused(&why));
            }
            RootEvent::Taken { tree, pid, by } => {
                let other = self.trees.get(usize::from(by.0)).map_or("", |tree| &tree.name);
                let why = format!("process {pid} is tracked as part of tree {other:?}");
                self.with_tree(tree, |tree| tree.root_refused(&why));
            }
            RootEvent::Ended { tree } => self.with_tree(tree, Tree::root_ended),
        }
    }

    fn with_tree(&mut self, id: TreeId, act: impl FnOnce(&mut Tree)) {
        if let Some(tree) = self.trees.get_mut(usize::from(id.0)) {
            act(tree);
        }
    }

    /// Sends the fork counters. Whether they can be read again.
    fn count_forks(&mut self) -> bool {
        let before = clock::now();
        match self.forks.read() {
            Ok(total) => {
                let at = clock::now();
                // If it took longer, it is not known when they stood so.
                if at.0.saturating_sub(before.0) <= FORKS_WITHIN_NS {
                    // The pipeline may be slow; this thread must not be.
                    let _ = self.to.try_send(Message::Plain(Input::Forks { at, total }));
                }
                true
            }
            // Only with a stand-in for FreeBSD's kernel.
            Err(error) if error.kind() == ErrorKind::Unsupported => false,
            Err(error) => {
                tracing::warn!("going on without the kernel's fork counters: {error}");
                false
            }
        }
    }

    fn commands_are_over(&self) -> bool {
        let mut commands = self.trees.iter().filter_map(Tree::command_is_over).peekable();
        commands.peek().is_some() && commands.all(|over| over)
    }
}
