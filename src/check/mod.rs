//! The cross-checker: a pure state machine. The evidence of both witnesses goes in with its own time stamps, verdicts come
//! out. It does no IO, reads no clock and starts no thread; the same evidence gives the same verdicts in any order in which
//! the two streams were read, within the reorder horizon.
//!
//! Four stages, in one direction:
//!
//! 1. `timeline` puts both streams into DTrace's order: a stream of typed events (`timeline/event.rs`).
//! 2. `sight` knows what each witness may have missed, and when.
//! 3. `lives` joins the evidence about each life of each pid, and knows when a fact has waited long enough.
//! 4. `judge` gives the verdict: pure functions of the evidence.
//!
//! What is decided goes to `verdicts`: counts (`stats`), findings (`finding`), and the observers of decided facts (`damage`,
//! `strategies`, `clues`).

mod timeline;

mod sight;

mod lives;

pub(crate) mod judge;

mod causes;
mod clues;
pub mod damage;
pub mod finding;
mod latest;
pub mod stats;
pub mod strategies;
mod verdicts;

pub use crate::input::Config;
use crate::input::{Batch, MOST_CONSUMERS};
use crate::model::{MonoTime, Pid, TreeId};
use crate::wire::decode::Reason;
use crate::wire::drops::DropKind;
use crate::wire::record::Record;
use causes::{Cause, Causes};
use finding::Observer;
use lives::{Context, Lives};
use sight::Sight;
use stats::{BoundedTable, Fill, Stats};
pub use timeline::event::Call;
use timeline::event::{Event, Next};
use timeline::{Arrival, Arrivals, Timeline};
use verdicts::Verdicts;

/// The cross-checker.
pub struct Checker {
    config: Config,
    timeline: Timeline,
    cx: Context,
    /// By tracker: first the exporter's own kqueue, then the consumers.
    lives: Vec<Lives>,
    /// The exporter's own kqueue watches something: one of its trees is declared, or its reader has called kevent(2). Otherwise
    /// it keeps nothing of what the host does.
    has_mirror: bool,
    /// A call of its reader has come.
    calls_kevent: bool,
    /// dtrace was started once: the next start is a restart.
    was_started: bool,
}

impl Checker {
    /// A checker without any evidence yet.
    pub fn new(config: Config) -> Checker {
        let cx = Context {
            sight: Sight::new(config.settle_ns),
            causes: Causes::default(),
            verdicts: Verdicts::default(),
        };
        let (timeline, lives) = (Timeline::new(config), vec![Lives::new(config, 0, None)]);
        Checker {
            config,
            timeline,
            cx,
            lives,
            has_mirror: true,
            calls_kevent: false,
            was_started: false,
        }
    }

    /// Declares a tree, so that its counts are there from the start.
    pub fn tree(&mut self, id: TreeId, name: &str) {
        let stats = self.cx.verdicts.tree(id);
        stats.name = name.to_owned();
        self.has_mirror |= stats.consumer.is_none();
    }

    /// A tree has no process to watch.
    pub(crate) fn tree_gone(&mut self, id: TreeId) {
        self.cx.verdicts.tree(id).attached = false;
    }

    /// From now on this tree is what the process `pid`, a user's own tracker, gets from kevent(2). `None`: it has ended, which
    /// DTrace shows too, in its order.
    pub fn consumer(&mut self, id: TreeId, pid: Option<Pid>) {
        let stats = self.cx.verdicts.tree(id);
        stats.attached = pid.is_some();
        stats.consumer.get_or_insert_default().pid = pid;
        let tracker = self.lives.iter().position(|lives| lives.consumer() == Some(id));
        if tracker.is_none() && self.lives.len() > MOST_CONSUMERS {
            return;
        }
        let tracker = tracker.unwrap_or_else(|| {
            self.lives.push(Lives::new(self.config, self.lives.len(), Some(id)));
            self.has_mirror = self.calls_kevent || self.cx.verdicts.has_mirrored_tree();
            self.lives.len() - 1
        });
        // That it has ended is in DTrace's stream.
        if let Some(pid) = pid {
            self.timeline.consumer(tracker, pid);
            if let Some(lives) = self.lives.get_mut(tracker) {
                lives.consumer_is(pid);
            }
        }
    }

    /// One of DTrace's records, read at `read`.
    pub fn record(&mut self, record: Record, read: MonoTime, observer: &mut impl Observer) {
        self.stats_mut().records[record.kind().index()] += 1;
        // Causes order nothing: they are looked up when a birth is settled, later than the reorder horizon. In recordings from
        // before they came from a dtrace of their own.
        let causes = &mut self.cx.causes;
        match record {
            Record::RegFail { at, forker, child, errno } => {
                *self.cx.verdicts.stats.trackerr_causes.entry(errno).or_default() += 1;
                return causes.seen(Cause { at, forker, child, errno: Some(errno) });
            }
            Record::Influx { at, forker, child } => {
                self.cx.verdicts.stats.influx_skips += 1;
                return causes.seen(Cause { at, forker, child, errno: None });
            }
            Record::Causes { .. } => return causes.announce(),
            _ => {}
        }
        let Arrivals { held, record: arrival } = self.timeline.record(record, read);
        if let Some((held, arrival)) = held {
            self.arrived(&held, arrival);
        }
        self.arrived(&record, arrival);
        if self.timeline.is_ready() {
            self.run(observer);
        }
    }

    /// Counts a record that was refused, and keeps the host's time of one that was queued. A refused record, or one whose time
    /// stamp is not confirmed yet, does not show what time it is.
    fn arrived(&mut self, record: &Record, arrival: Arrival) {
        match (arrival, record) {
            (Arrival::Refused(reason, _), _) => self.stats_mut().bad_lines[reason.index()] += 1,
            (Arrival::Queued, Record::Begin { at, wall }) => {
                self.cx.causes.begin(*at);
                self.stats_mut().wall = Some((*at, *wall));
            }
            (Arrival::Queued, Record::Tick { at, wall }) => {
                self.stats_mut().wall = Some((*at, *wall));
            }
            (Arrival::Queued | Arrival::Held, _) => {}
        }
    }

    /// A line of dtrace's stdout that is no record.
    pub(crate) fn bad_line(&mut self, reason: Reason) {
        self.stats_mut().bad_lines[reason.index()] += 1;
        if reason != Reason::Duplicate {
            self.timeline.bad_line();
        }
    }

    /// dtrace(1) reported, in a message read at `read`, that something was dropped since its last report.
    pub fn drops(&mut self, kind: DropKind, count: u64, read: MonoTime) {
        let total = &mut self.stats_mut().drops[kind.index()];
        *total = total.saturating_add(count);
        self.timeline.drops(read);
    }

    /// dtrace(1) printed on stderr, read at `read`, what is not understood: it may be about drops.
    pub(crate) fn unknown_message(&mut self, read: MonoTime) {
        self.stats_mut().unknown_messages += 1;
        self.timeline.drops(read);
    }

    /// dtrace was started.
    pub(crate) fn dtrace_up(&mut self) {
        let restarted = std::mem::replace(&mut self.was_started, true);
        self.stats_mut().dtrace_restarts += u64::from(restarted);
        self.timeline.dtrace_up();
    }

    /// dtrace is gone.
    pub(crate) fn dtrace_down(&mut self, observer: &mut impl Observer) {
        self.timeline.dtrace_down();
        self.run(observer);
    }

    /// A kevent(2) call of the reader.
    pub fn batch(&mut self, batch: &Batch<'_>, observer: &mut impl Observer) {
        (self.has_mirror, self.calls_kevent) = (true, true);
        if self.timeline.call(batch) {
            // At once, as a tree that is gone is marked at once: the call may wait long for its place.
            for attach in batch.attached.iter().filter(|attach| attach.errno == 0) {
                self.cx.verdicts.tree(attach.tree).attached = true;
            }
            if self.timeline.is_ready() {
                self.run(observer);
            }
        }
    }

    /// Calls `first..first + count` were read and could not be kept.
    pub(crate) fn batches_lost(&mut self, first: u64, count: u64) {
        let lost = &mut self.stats_mut().evictions[BoundedTable::Events.index()];
        *lost = lost.saturating_add(count);
        self.timeline.calls_lost(first.saturating_add(count));
    }

    /// The kernel's count of forks, read at `at`.
    pub fn forks(&mut self, at: MonoTime, total: u64) {
        self.timeline.forks(at, total);
    }

    /// Nothing more will come.
    pub fn end(&mut self, observer: &mut impl Observer) {
        self.timeline.end();
        self.run(observer);
        self.lives.iter_mut().for_each(|lives| lives.finish(&mut self.cx));
        self.cx.verdicts.hand_on(observer);
        let (first, last) = self.timeline.span();
        self.cx.sight.finish(first, last);
    }

    fn run(&mut self, observer: &mut impl Observer) {
        while let Some(next) = self.timeline.next() {
            let event = match next {
                Next::Event(event) => event,
                Next::Gap(gap) => {
                    self.cx.sight.gap(gap);
                    continue;
                }
            };
            let lives = &mut self.lives[usize::from(!self.has_mirror)..];
            let progress = self.timeline.progress();
            lives.iter_mut().for_each(|lives| lives.come_to(&mut self.cx, progress));
            match &event {
                // No record that is stamped later was printed before it.
                Event::Create { at, newest_stamp, child, .. } if at == newest_stamp => {
                    self.cx.sight.created(*at, *child);
                }
                Event::Call(call) => observer.call(call),
                _ => {}
            }
            lives.iter_mut().for_each(|lives| lives.take(&mut self.cx, &event));
            self.cx.verdicts.hand_on(observer);
            if let Event::Call(call) = event {
                self.timeline.reuse(call);
            }
        }
    }

    /// Brings the gauges up to date: once for an input, not for each of its records.
    pub fn publish(&mut self) {
        for lives in &mut self.lives {
            lives.publish(&mut self.cx);
        }
        let Context { verdicts, sight, .. } = &mut self.cx;
        sight.publish(&mut verdicts.stats);
        self.timeline.publish(&mut verdicts.stats);
        let entries = self.lives.iter().map(|lives| lives.len() as u64).sum();
        let capacity = (self.config.capacity as u64).saturating_mul(self.lives.len() as u64);
        self.stats_mut().tables[BoundedTable::Incarnations.index()] = Fill { entries, capacity };
    }

    fn stats_mut(&mut self) -> &mut Stats {
        &mut self.cx.verdicts.stats
    }

    /// What has been counted so far; the gauges are those of the last [`Checker::publish`].
    pub fn stats(&self) -> &Stats {
        &self.cx.verdicts.stats
    }
}
