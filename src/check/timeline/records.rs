//! Sorts DTrace's records by their time stamps. A stamp far from the others waits for a second record that confirms it;
//! a record from before the reorder horizon, or printed twice, is refused.

use std::collections::VecDeque;

use crate::model::KernelTime;
use crate::wire::decode::Reason;
use crate::wire::record::Record;

/// A time stamp this far from its neighbours needs a second one that confirms it. dtrace's heartbeat comes every 5 s, or at
/// 10 Hz from a consumer.d that is run by hand, so a right one is soon confirmed.
const JUMP_NS: u64 = 60_000_000_000;

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// It waits for its turn.
    Queued,
    /// It waits for a second record that confirms its time.
    Held,
    /// Why it was refused, and from when DTrace's records are incomplete for it.
    Refused(Reason, KernelTime),
}

/// What became of a record that has just been read, and of one that was held until then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arrivals {
    pub(crate) held: Option<(Record, Arrival)>,
    pub(crate) record: Arrival,
}

impl From<Arrival> for Arrivals {
    fn from(record: Arrival) -> Arrivals {
        Arrivals { held: None, record }
    }
}

/// A record that waits for its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedRecord {
    pub(crate) at: KernelTime,
    pub(crate) record: Record,
    /// The greatest time stamp among this record and those printed before it. If a clock stepped back, the record may have happened
    /// after what is stamped so.
    pub(crate) newest_stamp: KernelTime,
}

/// The records that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct RecordQueue {
    /// In the order of their times.
    queue: VecDeque<QueuedRecord>,
    /// A record whose time nothing confirms yet.
    held: Option<Record>,
    /// The latest time stamp so far.
    newest: Option<KernelTime>,
    /// The last record that was handed on.
    last: Option<Record>,
}

impl RecordQueue {
    /// The latest time stamp so far.
    pub(crate) fn newest(&self) -> Option<KernelTime> {
        self.newest
    }

    /// The one whose turn is next.
    pub(crate) fn first(&self) -> Option<&QueuedRecord> {
        self.queue.front()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes a record of the time `at` that has just been read, when everything before `now` was handed on. One from the
    /// `future` has a garbled time stamp, unless the next one confirms it: then a clock has jumped.
    pub(crate) fn take(
        &mut self,
        at: KernelTime,
        record: Record,
        now: KernelTime,
        future: bool,
    ) -> Arrivals {
        match self.newest {
            Some(_) if now.since(at) > JUMP_NS => Arrival::Refused(Reason::Implausible, now).into(),
            Some(_) if at < now => Arrival::Refused(Reason::Late, at).into(),
            Some(newest) if at.since(newest) <= JUMP_NS && !future => {
                let held = self.held.take();
                let implausible = |held| (held, Arrival::Refused(Reason::Implausible, newest));
                Arrivals { held: held.map(implausible), record: self.insert(at, record) }
            }
            _ => self.confirm(at, record, now),
        }
    }

    /// Takes a record far from all others, or the very first: if the one before was as far, they confirm each other.
    fn confirm(&mut self, at: KernelTime, record: Record, now: KernelTime) -> Arrivals {
        match self.held.take() {
            Some(held) if held == record => {
                self.held = Some(held);
                Arrival::Refused(Reason::Duplicate, at).into()
            }
            Some(held) if held.at().distance(at) <= JUMP_NS => Arrivals {
                held: Some((held, self.insert(held.at(), held))),
                record: self.insert(at, record),
            },
            held => {
                self.held = Some(record);
                let from = self.newest.unwrap_or(now);
                let implausible = |held| (held, Arrival::Refused(Reason::Implausible, from));
                Arrivals { held: held.map(implausible), record: Arrival::Held }
            }
        }
    }

    /// No other will come that could confirm one.
    pub(crate) fn end(&mut self) {
        if let Some(record) = self.held.take() {
            self.insert(record.at(), record);
        }
    }

    /// Hands on the first one.
    pub(crate) fn hand_on(&mut self) -> Option<QueuedRecord> {
        let first = self.queue.pop_front()?;
        self.last = Some(first.record);
        Some(first)
    }

    fn insert(&mut self, at: KernelTime, record: Record) -> Arrival {
        self.newest = self.newest.max(Some(at));
        match self.queue.back() {
            Some(last) if last.at >= at => return self.insert_between(at, record),
            None if self.last == Some(record) => return Arrival::Refused(Reason::Duplicate, at),
            _ => {}
        }
        self.queue.push_back(QueuedRecord { at, record, newest_stamp: at });
        Arrival::Queued
    }

    /// Takes a record that comes out of order, or at the same time as the one before.
    fn insert_between(&mut self, at: KernelTime, record: Record) -> Arrival {
        let place = self.queue.partition_point(|other| other.at <= at);
        let before = match place {
            0 => self.last,
            _ => self.queue.get(place - 1).map(|other| other.record),
        };
        if before == Some(record) {
            return Arrival::Refused(Reason::Duplicate, at);
        }
        let newest_stamp = self.newest.unwrap_or(at);
        self.queue.insert(place, QueuedRecord { at, record, newest_stamp });
        Arrival::Queued
    }
}
