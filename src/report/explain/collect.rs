//! The observer behind `explain`: collects what both witnesses report of one pid while a recording is played.

use std::collections::BTreeMap;

use crate::check::Call;
use crate::check::finding::{Finding, Observer};
use crate::input::Input;
use crate::model::{KernelTime, Kevent, Pid, TreeId, filter, note};
use crate::report::evidence::consumer_name;
use crate::report::evidence::event::{TimelineEntry, TimelineEvent};
use crate::wire::decode::Reason;
use crate::wire::drops::StderrMessage;
use crate::wire::record::{Copyout, Record, Register};

/// More entries about one pid than this are left out, and counted.
const MAX_ENTRIES: usize = 10_000;

/// Follows the pipeline of a replay for one pid.
pub(crate) struct Collector {
    pid: Pid,
    /// What was reported, in the order of reading.
    pub entries: Vec<TimelineEntry>,
    pub findings: Vec<Finding>,
    trees: BTreeMap<TreeId, String>,
    /// The processes that are consumers, and their trees.
    consumers: Vec<(TreeId, Pid)>,
    /// Entries that found no room.
    pub(crate) left_out: u64,
    newest: KernelTime,
    /// Its creates after which the queue was not drained yet.
    undrained: Vec<KernelTime>,
    /// Its exits after which no call returned yet.
    unscanned: Vec<KernelTime>,
}

impl Collector {
    pub(crate) fn new(pid: Pid) -> Collector {
        Collector {
            pid,
            entries: vec![],
            findings: vec![],
            trees: BTreeMap::new(),
            consumers: vec![],
            left_out: 0,
            newest: KernelTime(0),
            undrained: vec![],
            unscanned: vec![],
        }
    }

    fn add(&mut self, at: KernelTime, event: TimelineEvent) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(TimelineEntry { at, event });
        } else {
            self.left_out += 1;
        }
    }

    fn gap(&mut self, what: String) {
        self.add(self.newest, TimelineEvent::Gap(what));
    }

    fn event(&mut self, record: &Record) {
        self.newest = self.newest.max(record.at());
        let at = record.at();
        match *record {
            Record::Create { child, forker, .. } if child == self.pid => {
                self.undrained.push(at);
                self.add(at, TimelineEvent::Created { forker });
            }
            Record::Create { child, forker, .. } if forker == self.pid => {
                self.add(at, TimelineEvent::Forked { child });
            }
            Record::Exit { pid, status, .. } if pid == self.pid => {
                self.unscanned.push(at);
                self.add(at, TimelineEvent::Exited { status });
            }
            Record::Exec { pid, .. } if pid == self.pid => self.add(at, TimelineEvent::Exec),
            Record::ExecFail { pid, errno, .. } if pid == self.pid => {
                self.add(at, TimelineEvent::ExecFailed { errno });
            }
            Record::RegFail { child, errno, .. } if child == self.pid => {
                self.add(at, TimelineEvent::NotRegistered { errno });
            }
            Record::Influx { child, .. } if child == self.pid => {
                self.add(at, TimelineEvent::Skipped)
            }
            Record::Register(Register { ident, filter, fflags, own: true, consumer, .. })
                if filter == filter::PROC && ident == u64::from(self.pid.get()) =>
            {
                let consumer = self.name_of(consumer);
                self.add(at, TimelineEvent::Registered { consumer, fflags });
            }
            Record::Copyout(Copyout { ident, data, fflags, consumer, flags, filter, .. })
                if filter == filter::PROC =>
            {
                let event = Kevent { ident, flags: flags.into(), fflags, data, udata: 0 };
                if self.is_about(&event) {
                    let consumer = self.name_of(consumer);
                    self.add(at, TimelineEvent::Received { consumer, event });
                }
            }
            _ => {}
        }
    }

    /// Whether it is about the process, or names it as a forker.
    fn is_about(&self, event: &Kevent) -> bool {
        let pid = u64::from(self.pid.get());
        let is_birth = event.fflags & (note::CHILD | note::EXIT) == note::CHILD;
        event.ident == pid || is_birth && u64::try_from(event.data) == Ok(pid)
    }

    /// The consumer with this pid, by name if it is known; 0 is the only one of its stream.
    fn name_of(&self, consumer: Pid) -> String {
        let is_it = |(_, pid): &&(TreeId, Pid)| consumer.get() == 0 || *pid == consumer;
        match self.consumers.iter().rev().find(is_it) {
            Some((tree, pid)) => consumer_name(self.tree_name(*tree).unwrap_or_default(), *pid),
            None => format!("pid {consumer}"),
        }
    }

    /// The name of this tree, once it is known.
    pub(super) fn tree_name(&self, tree: TreeId) -> Option<&str> {
        self.trees.get(&tree).map(String::as_str)
    }

    /// What a call that began at `entered` shows of the process besides its notes.
    fn scan(&mut self, entered: KernelTime, call: &Call) {
        let returned = call.notes.len();
        let over = |exited: &mut KernelTime| *exited < call.at;
        if self.unscanned.extract_if(.., over).any(|exited| entered <= exited) {
            let ns = call.at.since(entered);
            self.add(call.at, TimelineEvent::Scan { ns, returned });
        }
        let before = |created: &mut KernelTime| call.drained && *created < entered;
        if self.undrained.extract_if(.., before).count() > 0 {
            self.add(call.at, TimelineEvent::Drained { returned });
        }
    }
}

impl Observer for Collector {
    fn call(&mut self, call: &Call) {
        if call.tracker != 0 {
            return;
        }
        let (pid, batch, at) = (self.pid, call.seq, call.at);
        if let Some(entered) = call.entered {
            self.scan(entered, call);
        }
        for attach in call.registered.iter().filter(|attach| attach.pid == pid) {
            self.add(at, TimelineEvent::Attached { batch, errno: attach.errno });
        }
        for event in &call.notes {
            if self.is_about(event) {
                self.add(at, TimelineEvent::Kevent { batch, event: *event });
            }
        }
    }

    fn input(&mut self, input: &Input<'_>) {
        match input {
            Input::Tree { id, name } => drop(self.trees.insert(*id, (*name).to_owned())),
            Input::Consumer { id, pid: Some(pid) } => self.consumers.push((*id, *pid)),
            Input::DtraceUp { .. } => self.gap("dtrace was started".to_owned()),
            Input::DtraceDown { .. } => self.gap("dtrace ended".to_owned()),
            Input::BatchesLost { count, .. } => {
                self.gap(format!("{count} kevent(2) calls could not be kept"));
            }
            Input::Batch(_)
            | Input::Stdout { .. }
            | Input::Stderr { .. }
            | Input::Config(_)
            | Input::Consumer { .. }
            | Input::Forks { .. }
            | Input::TreeGone { .. }
            | Input::End => {}
        }
    }

    fn record(&mut self, record: &Result<Record, Reason>) {
        match record {
            Ok(record) => self.event(record),
            Err(reason) => self.gap(format!("a line of dtrace's was unreadable ({reason})")),
        }
    }

    fn message(&mut self, line: &[u8], message: Option<&StderrMessage<'_>>) {
        if !matches!(message, None | Some(StderrMessage::Notice(_))) {
            self.gap(String::from_utf8_lossy(line).into_owned());
        }
    }

    fn finding(&mut self, finding: &Finding) {
        if finding.pid == self.pid && self.findings.len() < MAX_ENTRIES {
            self.findings.push(*finding);
        }
    }
}
