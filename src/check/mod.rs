//! The cross-checker: a pure state machine. Both witnesses' words go in with their own time stamps, verdicts come out.
//! It does no IO, reads no clock and starts no thread; the same words give the same verdicts whatever the order in which
//! the two streams were read, within the reorder horizon.
//!
//! `align` puts the two streams into DTrace's order, `ledger` joins the words about each incarnation, `verdict`
//! and `settle` decide.

mod align;
mod blind;
mod clock;
mod clues;
pub mod damage;
pub mod finding;
mod latest;
mod ledger;
mod notes;
mod passes;
mod reconcile;
mod records;
mod settle;
pub mod stats;
pub mod strategies;
mod table;
mod verdict;

use crate::input::Batch;
pub use crate::input::Config;
use crate::model::{KernelTime, MonoTime, TreeId};
use crate::wire::decode::Reason;
use crate::wire::drops::DropKind;
use crate::wire::record::Record;
use align::{Align, Placed, Step};
use clues::Cause;
use finding::Finding;
use ledger::Ledger;
use reconcile::Reconcile;
use records::{Arrival, Waiting};
use stats::{BlindReason, Fill, Stats, Table};

/// The cross-checker.
pub struct Checker {
    align: Align,
    ledger: Ledger,
    reconcile: Reconcile,
    /// Since when a line is missing that could not be decoded; ends with the next record.
    missing_since: Option<(KernelTime, BlindReason)>,
    first: Option<KernelTime>,
    /// The number behind the batches that were lost, until one that came later has its place.
    lost: Option<u64>,
    /// When dtrace told of drops, until a mark tells what time that was on its own clock.
    dropped: Option<MonoTime>,
    up: bool,
}

impl Checker {
    /// A checker that has heard nothing yet.
    pub fn new(config: Config) -> Checker {
        Checker {
            align: Align::new(config.reorder_ns, config.settle_ns, config.capacity),
            ledger: Ledger::new(config),
            reconcile: Reconcile::default(),
            missing_since: None,
            first: None,
            lost: None,
            dropped: None,
            up: false,
        }
    }

    /// Declares a tree, so that its counts are there from the start.
    pub fn tree(&mut self, id: TreeId, name: &str) {
        self.ledger.tree(id).name = name.to_owned();
    }

    /// A tree has no process to watch.
    pub fn tree_gone(&mut self, id: TreeId) {
        self.ledger.tree(id).attached = false;
    }

    /// One of DTrace's records, read at `read`.
    pub fn record(&mut self, record: Record, read: MonoTime) {
        self.ledger.stats.records[record.kind().index()] += 1;
        if let Record::Begin { at, wall } | Record::Tick { at, wall } = record {
            self.ledger.stats.wall = Some((at, wall));
        }
        // Causes come from another dtrace, whose clock of reading is its own: they are counted, kept as clues, and order
        // nothing.
        match record {
            Record::RegFail { at, forker, child, errno } => {
                self.ledger.lately.cause(Cause { at, forker, child, errno: Some(errno) });
                *self.ledger.stats.trackerr_causes.entry(errno).or_default() += 1;
                return;
            }
            Record::Influx { at, forker, child } => {
                self.ledger.lately.cause(Cause { at, forker, child, errno: None });
                self.ledger.stats.influx_skips += 1;
                return;
            }
            _ => {}
        }
        let at = record.at();
        let before = self.align.newest();
        match self.align.record(at, record, read) {
            Arrival::Held => {}
            Arrival::Queued => {
                self.sees(at, &record, before);
                self.blind_where_a_clock_jumped();
            }
            Arrival::Refused(Reason::Duplicate, _) => self.bad_line(Reason::Duplicate),
            Arrival::Refused(reason, from) => {
                self.ledger.stats.bad_lines[reason.index()] += 1;
                // Behind it others may come that are as late, and take places among those that came before it.
                let to = self.align.newest().unwrap_or(from).max(self.align.now()).max(from);
                self.ledger.dtrace.add(from, to, BlindReason::Late);
                if self.align.newest() >= Some(at) {
                    self.sees(at, &record, before);
                }
            }
        }
        if self.align.is_ready() {
            self.run();
        }
    }

    /// DTrace is there and has come to the time of this record.
    #[inline]
    fn sees(&mut self, at: KernelTime, record: &Record, before: Option<KernelTime>) {
        let is_news = matches!(record, Record::Begin { .. }) || self.first.is_none();
        if is_news || self.missing_since.is_some() {
            self.sees_again(at, record, before);
        } else {
            self.ledger.dtrace.close(at);
        }
    }

    /// DTrace has just begun, or something is missing before this record.
    #[cold]
    fn sees_again(&mut self, at: KernelTime, record: &Record, before: Option<KernelTime>) {
        if self.first.is_none() {
            let first = self.align.first().unwrap_or(at);
            self.first = Some(first);
            self.ledger.dtrace.begins(first);
            self.reconcile.begins(first);
        }
        self.ledger.dtrace.close(at);
        if let (Record::Begin { .. }, Some(before)) = (record, before) {
            self.ledger.dtrace.add(before, at, BlindReason::Outage);
            self.reconcile.begins(at);
        }
        if let Some((from, reason)) = self.missing_since.take() {
            // What was missed before the first record lies before dawn anyway.
            let from = from.max(self.first.unwrap_or(at));
            self.ledger.dtrace.add(from, at, reason);
        }
    }

    /// A line of dtrace's stdout that is no record: whatever it was to say is missing between its neighbours.
    pub fn bad_line(&mut self, reason: Reason) {
        self.ledger.stats.bad_lines[reason.index()] += 1;
        if reason != Reason::Duplicate {
            let since = self.align.newest().unwrap_or_default();
            self.missing_since.get_or_insert((since, BlindReason::BadLine));
        }
    }

    /// dtrace said, in a message read at `read`, that something was dropped since its last report.
    pub fn drops(&mut self, kind: DropKind, count: u64, read: MonoTime) {
        let total = &mut self.ledger.stats.drops[kind.index()];
        *total = total.saturating_add(count);
        self.missed(read, BlindReason::Drops);
    }

    /// dtrace said something on stderr, read at `read`, that nobody understands: it may be a drop.
    pub fn unknown_message(&mut self, read: MonoTime) {
        self.ledger.stats.unknown_messages += 1;
        self.missed(read, BlindReason::Drops);
    }

    /// Something is missing since the pass of dtrace's before the one that tells of it. That one has printed the last
    /// record that was read, unless stdout was read ahead of stderr; so what had been read by the time of that record is of
    /// a pass before.
    fn missed(&mut self, read: MonoTime, reason: BlindReason) {
        let newest = self.align.newest();
        let placed = (read.0 != 0)
            .then(|| Some((self.align.clock.earliest(read)?, self.align.clock.latest(read)?)));
        match placed {
            None => self.ledger.dtrace.everywhere(),
            // Nothing was read yet: from the beginning until a mark tells what time it is.
            Some(None) => {
                self.ledger.dtrace.unsure(KernelTime(0), reason);
                self.dropped = Some(read);
            }
            Some(Some((earliest, latest))) => {
                let passes = earliest.minus(2 * self.ledger.config.switch_ns);
                let from = passes.min(newest.map_or(earliest, |newest| self.align.read_by(newest)));
                self.ledger.dtrace.add(from, latest, reason);
            }
        }
    }

    /// dtrace was started.
    pub fn dtrace_up(&mut self) {
        self.ledger.stats.dtrace_restarts += u64::from(std::mem::replace(&mut self.up, true));
        self.reconcile.restart();
        self.align.regain_sight();
    }

    /// dtrace is gone.
    pub fn dtrace_down(&mut self) {
        let since = self.align.newest().unwrap_or_default();
        self.ledger.dtrace.open(since, BlindReason::Outage);
        self.align.lose_sight();
        self.run();
    }

    /// A kevent(2) call of the reader.
    pub fn batch(&mut self, batch: &Batch<'_>) {
        if self.align.batch(batch) {
            // As it is said, like the news that a tree is gone: not only once the batch has its place.
            for attach in batch.attached.iter().filter(|attach| attach.errno == 0) {
                self.ledger.tree(attach.tree).attached = true;
            }
            if self.align.is_ready() {
                self.run();
            }
        }
    }

    /// Batches that were read and could not be kept: between the call before them and the one after them kqueue may have
    /// said anything.
    pub fn batches_lost(&mut self, first: u64, count: u64) {
        let next = first.saturating_add(count);
        self.align.skip_batches(next);
        let lost = &mut self.ledger.stats.evictions[Table::Events.index()];
        *lost = lost.saturating_add(count);
        self.lost = self.lost.max(Some(next));
        self.ledger.kqueue.unsure(self.align.marked, BlindReason::Overflow);
    }

    /// A mark tells what time it is: everything has its place that waited for that.
    fn place(&mut self, placed: &Placed) {
        let clock = &self.align.clock;
        if self.lost.take_if(|next| placed.head.seq >= *next).is_some() {
            self.ledger.kqueue.sure(placed.at, BlindReason::Overflow);
        }
        if let Some(to) = self.dropped.take().and_then(|read| clock.latest(read)) {
            self.ledger.dtrace.sure(to, BlindReason::Drops);
        }
        if let Some(to) = self.align.hurried.take().and_then(|after| clock.latest(after)) {
            self.ledger.overflowed = self.ledger.overflowed.max(to);
        }
    }

    /// The kernel's count of forks, read at `at`.
    pub fn forks(&mut self, at: MonoTime, total: u64) {
        self.reconcile.sample(at, total);
    }

    /// Nothing more will come.
    pub fn end(&mut self) {
        if self.align.newest().is_none() {
            // Not one record: DTrace was blind throughout.
            self.ledger.dtrace.everywhere();
        }
        self.align.end();
        if let Some((from, reason)) = self.missing_since.take() {
            let to = self.align.newest().unwrap_or(from);
            self.ledger.dtrace.add(from, to.max(from), reason);
        }
        // DTrace says nothing of what came after its last record.
        let last = self.align.newest().unwrap_or_default();
        self.ledger.dtrace.open(last.plus(1), BlindReason::Outage);
        self.run();
        self.ledger.finish();
        let first = self.first.unwrap_or_default();
        self.ledger.dtrace.finish(first, last.max(first));
    }

    /// How long a note was waited for, nobody knows either.
    fn blind_where_a_clock_jumped(&mut self) {
        if let Some((from, to)) = self.align.jumped.take() {
            let from = from.minus(self.ledger.config.settle_ns);
            self.ledger.dtrace.add(from, to, BlindReason::Clock);
        }
    }

    fn run(&mut self) {
        while let Some(step) = self.align.next() {
            self.blind_where_a_clock_jumped();
            match step {
                Step::Record(record) => {
                    self.ledger.advance(record.at, |now| self.align.told(now));
                    self.apply(&record);
                }
                Step::Batch(placed) => {
                    if placed.entered.is_some() {
                        self.place(&placed);
                    } else if self.align.hurried.is_some() {
                        // It came before the records that it belongs behind.
                        self.ledger.dtrace.unsure(placed.at, BlindReason::Overflow);
                    }
                    self.ledger.advance(placed.at, |now| self.align.told(now));
                    let Align { attached, events, .. } = &mut self.align;
                    let count = attached.len().min(placed.head.attached as usize);
                    let attached = attached.drain(..count);
                    let count = events.len().min(placed.head.events as usize);
                    self.ledger.batch(&placed, attached, events.iter().take(count));
                    events.drain(..count);
                }
            }
        }
    }

    fn apply(&mut self, &Waiting { record, printed, .. }: &Waiting) {
        match record {
            Record::Create { at, child, forker, .. } => {
                self.reconcile.create();
                self.ledger.create(at, printed, child, forker);
            }
            Record::Exit { at, pid, status, .. } => self.ledger.exit(at, pid, status),
            _ => {}
        }
        if let Some((from, to)) = self.reconcile.advance(record.at(), &self.align.clock)
            && !self.ledger.dtrace.overlaps(from, to)
        {
            self.ledger.dtrace.add(from, to, BlindReason::Reconcile);
        }
    }

    /// Brings the gauges up to date: once for an input, not for each of its records.
    pub fn publish(&mut self) {
        let stats = &mut self.ledger.stats;
        stats.dtrace_blind_ns = self.ledger.dtrace.ns;
        stats.kqueue_blind_ns = self.ledger.kqueue.ns;
        stats.dtrace_blind_now = self.ledger.dtrace.now();
        stats.evictions[Table::Records.index()] = self.align.hurried_records;
        stats.evictions[Table::Events.index()] += std::mem::take(&mut self.align.hurried_batches);
        stats.clock = self.align.now().0;
        stats.began = self.first.unwrap_or_default().0;
        let (entries, capacity) =
            (self.ledger.table.len() as u64, self.ledger.config.capacity as u64);
        stats.tables[Table::Incarnations.index()] = Fill { entries, capacity };
        for (table, fill) in self.align.fill() {
            stats.tables[table.index()] = fill;
        }
        stats.reconcile_delta = self.reconcile.delta;
    }

    /// What has been counted so far; the gauges are those of the last [`Checker::publish`].
    pub fn stats(&self) -> &Stats {
        &self.ledger.stats
    }

    /// The findings since the last call.
    pub fn findings(&mut self) -> std::vec::Drain<'_, Finding> {
        self.ledger.findings.drain(..)
    }
}
