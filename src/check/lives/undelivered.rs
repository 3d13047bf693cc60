//! The lag of a consumer: the facts that it asked for and DTrace has seen, and whose notes it has not read yet. They
//! are late, not lost: the consumer may not have called kevent(2) since.

use std::collections::HashSet;

use super::waiting::Evidence;
use super::{Context, Lives};
use crate::model::{KernelTime, note};

/// The gauges need not be younger than this, in nanoseconds of DTrace's clock: to count takes a look at every fact that waits.
const FRESH_NS: u64 = 1_000_000_000;

/// The facts of a consumer that wait for their notes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Undelivered {
    count: u64,
    oldest: Option<KernelTime>,
}

impl Undelivered {
    fn add(&mut self, happened: KernelTime) {
        self.count += 1;
        self.oldest = Some(self.oldest.map_or(happened, |oldest| oldest.min(happened)));
    }
}

impl Lives {
    /// Brings the gauges of a consumer up to date.
    pub(crate) fn publish(&mut self, cx: &mut Context) {
        let Some(tree) = self.tree else { return };
        if !self.waiting.is_empty() && self.now.since(self.published) < FRESH_NS {
            return;
        }
        self.published = self.now;
        let Undelivered { count, oldest } = self.undelivered(cx);
        let consumer = cx.verdicts.tree(tree).consumer.get_or_insert_default();
        consumer.undelivered = count;
        consumer.lag_ns = oldest.map_or(0, |oldest| self.now.since(oldest));
    }

    /// What DTrace may have missed the delivery of is not counted: it may have been delivered.
    fn undelivered(&self, cx: &Context) -> Undelivered {
        let mut all = Undelivered::default();
        let awaiting = self.awaiting_child_note(cx);
        let is_seen = |at: KernelTime| !cx.sight.missed(self.notes_in(), at, self.now);
        for waiting in self.waiting.of(Evidence::ChildNote) {
            let slot = self.table.find(waiting.life);
            if slot.is_some_and(|slot| awaiting.contains(&slot)) && is_seen(waiting.at) {
                all.add(waiting.at);
            }
        }
        for waiting in self.waiting.of(Evidence::ExitNote) {
            let Some(slot) = self.table.find(waiting.life) else { continue };
            let life = &self.table[slot];
            let is_of_tree = life.tree.is_some() || awaiting.contains(&slot);
            let is_open = life.exit_note.is_none() && !life.death.is_final();
            let is_asked_for = is_of_tree && is_open && self.asks_for(cx, life, note::EXIT);
            if is_asked_for && is_seen(waiting.at) {
                all.add(waiting.at);
            }
        }
        all
    }

    /// The lives whose NOTE_CHILD is to come. A child of one of them is not known to be of the tree yet.
    pub(super) fn awaiting_child_note(&self, cx: &Context) -> HashSet<usize> {
        let mut awaiting = HashSet::new();
        for waiting in self.waiting.of(Evidence::ChildNote) {
            let Some(slot) = self.table.find(waiting.life) else { continue };
            let life = &self.table[slot];
            if life.birth_over || life.birth.is_decided() || life.is_tracked() {
                continue;
            }
            let forker = self.forker(slot);
            let is_of_one = forker.is_some_and(|forker| {
                awaiting.contains(&forker) && self.asks_for(cx, &self.table[forker], note::TRACK)
            });
            if is_of_one || self.tree_of_birth(cx, slot, forker).is_some() {
                awaiting.insert(slot);
            }
        }
        awaiting
    }
}
