//! Collects everything that both witnesses report of one pid while a recording is played.

use std::collections::VecDeque;

use crate::check::finding::{Finding, Observer};
use crate::input::{Batch, Input};
use crate::model::{KernelTime, Kevent, Pid, TreeId, filter, note};
use crate::report::evidence::event::{TimelineEntry, TimelineEvent};
use crate::wire::decode::Reason;
use crate::wire::drops::Message;
use crate::wire::record::{Copyout, Mark, Record, Register};

/// More entries about one pid than this are left out, and counted.
const MAX_ENTRIES: usize = 10_000;
/// How far, in calls, a batch and its mark may be read apart. Capacities repeat after 1024 calls.
const MARKS: usize = 512;

/// Follows the pipeline of a replay for one pid.
pub struct Collector {
    pid: Pid,
    /// What was reported, in the order of reading.
    pub entries: Vec<TimelineEntry>,
    /// The verdicts on it.
    pub findings: Vec<Finding>,
    /// The names of the trees.
    pub trees: Vec<String>,
    /// The processes that are consumers, and their trees.
    consumers: Vec<(TreeId, Pid)>,
    /// Entries that found no room.
    pub left_out: u64,
    newest: KernelTime,
    marks: VecDeque<Mark>,
    /// Entries that wait for the mark of their batch: its number, its capacity, and their place.
    waiting: VecDeque<(u64, u32, usize)>,
    /// The latest batches: number, capacity, and how many events.
    batches: VecDeque<(u64, u32, usize)>,
    created: Option<KernelTime>,
    exited: Option<KernelTime>,
}

impl Collector {
    /// A collector without anything yet.
    pub fn new(pid: Pid) -> Collector {
        Collector {
            pid,
            entries: vec![],
            findings: vec![],
            trees: vec![],
            consumers: vec![],
            left_out: 0,
            newest: KernelTime(0),
            marks: VecDeque::new(),
            waiting: VecDeque::new(),
            batches: VecDeque::new(),
            created: None,
            exited: None,
        }
    }

    fn add(&mut self, at: Option<KernelTime>, event: TimelineEvent) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(TimelineEntry { at, event });
        } else {
            self.left_out += 1;
        }
    }

    fn gap(&mut self, what: String) {
        self.add(Some(self.newest), TimelineEvent::Gap(what));
    }

    fn event(&mut self, record: &Record) {
        self.newest = self.newest.max(record.at());
        let at = Some(record.at());
        match *record {
            Record::Create { child, forker, .. } if child == self.pid => {
                (self.created, self.exited) = (at, None);
                self.add(at, TimelineEvent::Created { forker });
            }
            Record::Create { child, forker, .. } if forker == self.pid => {
                self.add(at, TimelineEvent::Forked { child });
            }
            Record::Exit { pid, status, .. } if pid == self.pid => {
                self.exited = at;
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
            Record::Mark(mark) => self.mark(mark),
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
        let known = self.consumers.iter().rev().find(is_it);
        let named = known.and_then(|(tree, _)| self.consumer_of(*tree));
        named.unwrap_or_else(|| format!("pid {consumer}"))
    }

    /// `nosh, pid 812,`: the consumer that this tree is; `None` for a tree of the exporter's own kqueue.
    pub fn consumer_of(&self, tree: TreeId) -> Option<String> {
        let (_, pid) = self.consumers.iter().rev().find(|(id, _)| *id == tree)?;
        let name = self.trees.get(usize::from(tree.0)).map_or("", String::as_str);
        Some(format!("{name}, pid {pid},"))
    }

    fn mark(&mut self, mark: Mark) {
        let of_mark = |(seq, capacity, _): &(u64, u32, usize)| mark.is_of(*seq, *capacity);
        let counted = self.batches.iter().rev().find(|batch| of_mark(batch));
        let counted = counted.and_then(|(_, _, events)| i32::try_from(*events).ok());
        if let Some(returned) = mark.returned.or(counted) {
            self.scan(mark, returned);
        }
        if let Some(i) = self.waiting.iter().position(of_mark) {
            while let Some((_, _, place)) = self.waiting.get(i).copied().filter(of_mark) {
                self.waiting.remove(i);
                self.entries[place].at = Some(mark.at);
            }
            return;
        }
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// A call that returned so many events.
    fn scan(&mut self, mark: Mark, returned: i32) {
        if self.exited.is_some_and(|exited| mark.entered <= exited && exited < mark.at) {
            self.exited = None;
            let ns = mark.at.since(mark.entered);
            self.add(Some(mark.at), TimelineEvent::Scan { ns, returned });
        }
        let all = u32::try_from(returned).is_ok_and(|returned| returned < mark.capacity);
        if self.created.is_some_and(|created| all && created < mark.entered) {
            self.created = None;
            self.add(Some(mark.at), TimelineEvent::Drained { returned });
        }
    }

    fn batch(&mut self, batch: &Batch<'_>) {
        if self.batches.len() == MARKS {
            self.batches.pop_front();
        }
        self.batches.push_back((batch.seq, batch.capacity, batch.events.len()));
        let (own, seq) = (self.pid, batch.seq);
        let attached = batch.attached.iter().filter(|a| a.pid == own);
        let attached = attached.map(|a| TimelineEvent::Attached { batch: seq, errno: a.errno });
        let events = batch.events.iter().filter(|event| self.is_about(event));
        let events = events.map(|event| TimelineEvent::Kevent { batch: seq, event: *event });
        let reported: Vec<TimelineEvent> = attached.chain(events).collect();
        if reported.is_empty() {
            return;
        }
        let mark = self.marks.iter().find(|mark| mark.is_of(batch.seq, batch.capacity));
        let at = mark.map(|mark| mark.at);
        for event in reported {
            if at.is_none() && self.entries.len() < MAX_ENTRIES {
                if self.waiting.len() == MARKS {
                    self.waiting.pop_front();
                }
                self.waiting.push_back((batch.seq, batch.capacity, self.entries.len()));
            }
            self.add(at, event);
        }
    }
}

impl Observer for Collector {
    fn input(&mut self, input: &Input<'_>) {
        match input {
            Input::Tree { name, .. } => self.trees.push((*name).to_owned()),
            Input::Consumer { id, pid: Some(pid) } => self.consumers.push((*id, *pid)),
            Input::Batch(batch) => self.batch(batch),
            Input::DtraceUp { .. } => self.gap("dtrace was started".to_owned()),
            Input::DtraceDown { .. } => self.gap("dtrace ended".to_owned()),
            Input::BatchesLost { count, .. } => {
                self.gap(format!("{count} kevent(2) calls could not be kept"));
            }
            Input::Stdout { .. }
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

    fn message(&mut self, line: &[u8], message: Option<&Message<'_>>) {
        if !matches!(message, None | Some(Message::Notice(_))) {
            self.gap(String::from_utf8_lossy(line).into_owned());
        }
    }

    fn finding(&mut self, finding: &Finding) {
        if finding.pid == self.pid && self.findings.len() < MAX_ENTRIES {
            self.findings.push(*finding);
        }
    }
}
