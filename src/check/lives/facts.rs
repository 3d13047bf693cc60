//! What a reported or decided fact changes besides its verdict: the counts of its tree, the gauges of living processes,
//! the delays of notes, and what it proves about the forker.

use super::life::{FactState, Life, Presence};
use super::waiting::{Evidence, WaitingFact};
use super::{Context, Lives};
use crate::check::clues::UnannouncedForker;
use crate::check::judge;
use crate::check::stats::{Order, TreeStats};
use crate::model::{Fact, KernelTime, Regime, TreeId, Verdict};

/// A host whose threads were once held up for so long may hold one up for so many times that.
const HELD_UP_TIMES: u64 = 4;
/// Nothing is waited for longer than so many settle times.
const MOST_SETTLE_TIMES: u64 = 20;

impl Lives {
    /// A witness has reported this fact of a tree.
    pub(super) fn count_reported(&mut self, cx: &mut Context, slot: usize, fact: Fact) {
        if matches!(self.table[slot].state(fact), FactState::Unreported | FactState::NoFact) {
            self.change(cx, slot, |life| *life.state_mut(fact) = FactState::Waiting);
            let tree = self.counts_of(cx, slot);
            match fact {
                Fact::Birth => tree.births_reported += 1,
                Fact::Death => tree.deaths_reported += 1,
            }
        }
    }

    /// What a birth shows that both witnesses have reported: how late NOTE_CHILD was, and who was alive.
    pub(super) fn learn_from_birth(&mut self, cx: &mut Context, slot: usize, verdict: Verdict) {
        let life = &mut self.table[slot];
        let (Some(created), Some(note)) = (life.created, life.child_note) else { return };
        life.proven = life.proven.max(created);
        self.raise_patience(note.at, created);
        if verdict != Verdict::Undecided {
            self.counts_of(cx, slot).child_latency.add(note.at.since(created));
        }
        if verdict.is_good() {
            self.prove_forker(cx, slot, created, note.at);
        }
    }

    /// NOTE_CHILD named the forker, when it came at `at`: that was alive at `created`, and had a knote.
    fn prove_forker(&mut self, cx: &mut Context, slot: usize, created: KernelTime, at: KernelTime) {
        let named = self.table[slot].forker;
        let forker = self.table.forker_at_create(slot);
        if let Some(forker) = forker {
            let forker = &mut self.table[forker];
            forker.proven = forker.proven.max(created);
        }
        let Some(named) = named else { return };
        if forker.is_none_or(|forker| !self.table[forker].is_tracked()) {
            let recent = &mut cx.verdicts.observers(self.tracker).recent;
            recent.named(UnannouncedForker { forker: named, forked: created, at });
        }
        if self.may_predate_dtrace(named) {
            self.assume_registered_before_dtrace(cx, named, created);
        }
    }

    /// What a death shows that both witnesses have reported: how late NOTE_EXIT was.
    pub(super) fn learn_from_death(&mut self, cx: &mut Context, slot: usize, verdict: Verdict) {
        let life = &self.table[slot];
        let (Some(exited), Some(note)) = (life.exited, life.exit_note) else { return };
        // The queue was drained then, and the note was not in it.
        self.raise_patience(exited, note.not_before);
        if verdict != Verdict::Undecided {
            self.counts_of(cx, slot).exit_latency.add(note.at.since(exited));
        }
    }

    /// One was queued, or fired, so long after the other. Where it is not certain that they are about one life, waiting longer does
    /// no harm.
    fn raise_patience(&mut self, earlier: KernelTime, later: KernelTime) {
        let most = self.config.settle_ns.saturating_mul(MOST_SETTLE_TIMES);
        let patience_ns = later.since(earlier).saturating_mul(HELD_UP_TIMES).min(most);
        self.patience_ns = self.patience_ns.max(patience_ns);
    }

    /// Counts a collision when its life has ended: which of the two notes' data won, and what that shows of the kernel.
    pub(super) fn count_collision(&mut self, cx: &mut Context, slot: usize) {
        let life = &self.table[slot];
        if !life.child_note.is_some_and(|note| note.is_collision()) {
            return;
        }
        let winner = judge::winner(life);
        self.counts_of(cx, slot).collisions[winner.index()] += 1;
        let regime = &mut cx.verdicts.stats.regime;
        if let (Some(shown), Regime::Unknown | Regime::MergedStatus) =
            (judge::regime_of(winner), *regime)
        {
            *regime = shown;
        }
    }

    /// Whether kqueue has reported nothing of the forker, and none of its reports is missing.
    pub(super) fn is_forker_unknown(&self, cx: &Context, slot: usize) -> bool {
        let forker = self.table.forker_at_create(slot);
        let missed = |created| cx.sight.missed(self.notes_in(), created, self.now);
        forker.is_some_and(|forker| !self.table[forker].is_tracked())
            && self.table[slot].created.is_some_and(|created| !missed(created))
    }

    /// Changes a life, and the gauges of its tree with it.
    pub(super) fn change(&mut self, cx: &mut Context, slot: usize, change: impl FnOnce(&mut Life)) {
        let life = &mut self.table[slot];
        let before = life.presence();
        change(life);
        let after = life.presence();
        if before == after {
            return;
        }
        let tree = self.counts_of(cx, slot);
        let mut count = |presence: Option<Presence>, step: fn(u64, u64) -> u64| match presence {
            Some(Presence::Tracked) => tree.tracked = step(tree.tracked, 1),
            Some(Presence::Lost) => tree.lost_alive = step(tree.lost_alive, 1),
            None => {}
        };
        // A wrong gauge must not end the exporter: it stops at zero.
        count(after, u64::saturating_add);
        count(before, u64::saturating_sub);
    }

    pub(super) fn violation(&self, cx: &mut Context, slot: usize, order: Order) {
        self.counts_of(cx, slot).order_violations[order.index()] += 1;
    }

    /// The counts of the tree that this life belongs to.
    pub(super) fn counts_of<'a>(&self, cx: &'a mut Context, slot: usize) -> &'a mut TreeStats {
        let tree = self.table[slot].tree.unwrap_or(TreeId(0));
        cx.verdicts.tree(tree)
    }

    /// From now on `fact` waits for this evidence.
    pub(super) fn wait(&mut self, slot: usize, evidence: Evidence, fact: Fact, at: KernelTime) {
        let life = self.table.pin(slot);
        self.waiting.push(evidence, WaitingFact { life, fact, at });
    }
}
