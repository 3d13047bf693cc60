//! Decides the facts whose wait is over: the queue was drained of their note, DTrace's record can no longer come, or there is
//! no room or time to wait any longer. What is given up so stays undecided.

use super::life::{FactState, Life};
use super::trackerr::TrackerrCover;
use super::waiting::{Evidence, WaitingFact};
use super::{Basis, Context, Lives};
use crate::check::causes::KnoteFork;
use crate::check::judge::UNORDERED_NS;
use crate::check::stats::BoundedTable;
use crate::check::timeline::event::Progress;
use crate::model::{Fact, KernelTime, TreeId, Verdict, Witness, note};

/// How long a death that was decided as lost is remembered, to know a late note when it comes.
const LINGER_NS: u64 = 10_000_000_000;
/// How many generations may have been created in the wrong order.
const MAX_LINE: usize = 64;

impl Lives {
    /// Time has passed: notes that DTrace has not confirmed within the settle time, or longer if threads were held up, stay
    /// unconfirmed; not before dtrace(1) has reported what it dropped, and not before it is known whether that time has really
    /// passed.
    pub(crate) fn come_to(&mut self, cx: &mut Context, progress: Progress) {
        let Progress { at, complete, compared, ticked } = progress;
        let (complete, compared) = match self.tree {
            None => (complete, compared),
            // There may be no marks where all notes are in DTrace's own stream.
            Some(_) => (complete.min(ticked), ticked),
        };
        self.now = self.now.max(at);
        self.complete_drains(cx, complete);
        let (now, patience_ns) = (self.now, self.patience_ns);
        let passed = now.min(compared);
        let is_due = |since: KernelTime| since.plus(patience_ns) <= passed && since <= complete;
        while let Some(waiting) = self.waiting.due(Evidence::Record, is_due) {
            self.settle(cx, Evidence::Record, waiting, Basis::Complete);
        }
        let is_due = |since: KernelTime| since.plus(LINGER_NS) <= now;
        while let Some(waiting) = self.waiting.due(Evidence::LateNote, is_due) {
            self.settle(cx, Evidence::LateNote, waiting, Basis::Complete);
        }
    }

    /// The input has ended: what has not been decided by now stays undecided.
    pub(crate) fn finish(&mut self, cx: &mut Context) {
        self.complete_drains(cx, self.now);
        self.give_up_all(cx);
    }

    /// What still waits stays undecided.
    pub(super) fn give_up_all(&mut self, cx: &mut Context) {
        while let Some((evidence, waiting)) = self.waiting.oldest() {
            self.settle(cx, evidence, waiting, Basis::GivenUp);
        }
    }

    /// Makes room in a full table: what has its verdicts is forgotten, then the oldest unsettled life is given up, and DTrace
    /// counts as blind for it. What stays is alive as far as is known: one life of each pid at most.
    pub(super) fn make_room(&mut self, cx: &mut Context) {
        self.forget_strangers(cx);
        while self.table.len() >= self.config.capacity {
            let Some((evidence, waiting)) = self.waiting.oldest() else { return };
            let WaitingFact { life, at, .. } = waiting;
            if self.table.find(life).is_some() && evidence != Evidence::LateNote {
                cx.verdicts.stats.evictions[BoundedTable::Incarnations.index()] += 1;
                cx.sight.given_up(self.tracker, at, self.now);
            }
            self.settle(cx, evidence, waiting, Basis::GivenUp);
        }
    }

    /// A wait is over: judges what waited, and lets go of the lives that were kept for it.
    pub(super) fn settle(
        &mut self,
        cx: &mut Context,
        evidence: Evidence,
        WaitingFact { life, fact, .. }: WaitingFact,
        basis: Basis,
    ) {
        let Some(slot) = self.table.find(life) else { return };
        match (evidence, basis) {
            (Evidence::LateNote, _) => {}
            (Evidence::ChildNote, Basis::Complete) => self.settle_birth(cx, slot),
            (Evidence::ExitNote, Basis::Complete) => self.settle_death(cx, slot),
            (Evidence::Record, Basis::Complete) => self.settle_unconfirmed(cx, slot, fact),
            (Evidence::ChildNote | Evidence::ExitNote, Basis::GivenUp) => {
                self.give_up_birth(cx, slot);
                self.give_up_death(cx, slot);
            }
            (Evidence::Record, Basis::GivenUp) if !self.table[slot].state(fact).is_decided() => {
                self.judge(cx, slot, fact, basis);
            }
            (Evidence::Record, Basis::GivenUp) => {}
        }
        if evidence == Evidence::ChildNote {
            let forker = self.table.forker_at_create(slot);
            if let Some(forker) = forker {
                self.table.unpin(forker);
            }
        }
        self.table.unpin(slot);
    }

    /// The queue was drained of a birth.
    fn settle_birth(&mut self, cx: &mut Context, slot: usize) {
        let forker = self.forker(slot);
        if forker.is_some_and(|forker| self.is_unsettled(forker)) {
            self.settle_ancestors(cx, slot);
        }
        self.settle_one_birth(cx, slot, forker);
    }

    /// Whether a process is lost by inheritance depends on its forker, which may have been created later.
    fn settle_ancestors(&mut self, cx: &mut Context, slot: usize) {
        let mut line = vec![slot];
        while let Some(forker) = self.forker(line[line.len() - 1])
            && self.is_unsettled(forker)
        {
            if line.len() > MAX_LINE || line.contains(&forker) {
                break;
            }
            line.push(forker);
        }
        for ancestor in line.into_iter().skip(1).rev() {
            self.settle_one_birth(cx, ancestor, self.forker(ancestor));
        }
    }

    fn is_unsettled(&self, slot: usize) -> bool {
        !self.table[slot].birth_over && self.table[slot].created.is_some()
    }

    /// No NOTE_CHILD of this life can come any more: what is known of its birth by now is all. Judges that, if it is a fact.
    fn settle_one_birth(&mut self, cx: &mut Context, slot: usize, forker: Option<usize>) {
        self.table[slot].birth_over = true;
        if self.table[slot].registered.is_some() {
            return;
        }
        let Life { asked, created, .. } = self.table[slot];
        if let (None, Some(forker), Some(created)) = (asked, forker, created) {
            // The forker was created later, by the clocks of two CPUs.
            self.table[slot].asked = self.inherited(cx, forker, created);
        }
        let knote_fork = self.knote_fork(cx, slot);
        self.table[slot].trackerr_cover = self.trackerr_cover(cx, slot, forker, knote_fork);
        self.table[slot].knote_fork = knote_fork;
        if !self.table[slot].birth.is_decided() {
            self.judge_birth_without_note(cx, slot, forker);
        }
    }

    /// Judges a birth of which kqueue has reported nothing, if it is a fact of a tree.
    fn judge_birth_without_note(&mut self, cx: &mut Context, slot: usize, forker: Option<usize>) {
        let Some(tree) = self.tree_of_birth(cx, slot, forker) else { return };
        if self.table[slot].tree.replace(tree).is_none()
            && let Some(exited) = self.table[slot].exited
        {
            // Its death may have been settled before, as that of a process of no tree.
            self.wait(slot, Evidence::ExitNote, Fact::Death, exited);
        }
        self.judge(cx, slot, Fact::Birth, Basis::Complete);
        if let Life { created: Some(created), exit_note: None, .. } = self.table[slot] {
            self.note_overtaking_exit(cx, slot, tree, created);
        }
    }

    /// Whether NOTE_TRACKERR has reported that the kernel could not track this life.
    fn trackerr_cover(
        &self,
        cx: &Context,
        slot: usize,
        forker: Option<usize>,
        knote_fork: KnoteFork,
    ) -> TrackerrCover {
        let is_merged = cx.verdicts.stats.regime.is_merged();
        if is_merged && self.table[slot].child_note.is_some() && self.queues.len() < 2 {
            // One knote announces a child and watches for its exit: it did not fail.
            return TrackerrCover::No;
        }
        let by_forker = match forker.map(|forker| &self.table[forker]) {
            None => TrackerrCover::Unclear,
            Some(forker) => match forker.trackerr.cover(&self.table[slot]) {
                // It may have been taken for that of another life.
                TrackerrCover::No if forker.shares_pid => TrackerrCover::Unclear,
                reported => reported,
            },
        };
        match (knote_fork, by_forker) {
            // What NOTE_TRACKERR is about is another child.
            (KnoteFork::PassedOver | KnoteFork::NoneFailed, _) => TrackerrCover::No,
            // It may have been about another child.
            (KnoteFork::Missed, TrackerrCover::Yes) => TrackerrCover::Unclear,
            _ => by_forker,
        }
    }

    /// What the cause probes show of knote_fork for it. That they show nothing counts only if nothing of them is missing.
    fn knote_fork(&self, cx: &Context, slot: usize) -> KnoteFork {
        let life = &self.table[slot];
        let (Some(forker), Some(created)) = (life.forker, life.created) else {
            return KnoteFork::Unknown;
        };
        let from = created.minus(UNORDERED_NS);
        match cx.causes.about(life.pid, forker, created) {
            KnoteFork::NoneFailed if cx.sight.missed(Witness::Dtrace, from, created) => {
                KnoteFork::Missed
            }
            known => known,
        }
    }

    /// The tree of which a birth without NOTE_CHILD is a fact: that of its forker, unless children were not asked for, or it was
    /// forked before the forker was registered.
    pub(super) fn tree_of_birth(
        &self,
        cx: &Context,
        slot: usize,
        forker: Option<usize>,
    ) -> Option<TreeId> {
        let life = &self.table[slot];
        let forker = forker.map(|forker| &self.table[forker]);
        let before = |forker: &Life| {
            forker.registered.is_some_and(|registered| life.created < Some(registered.entered))
        };
        match forker.filter(|forker| forker.tree.is_some()) {
            Some(forker) if !self.asks_for_child(cx, life, forker) => None,
            Some(forker) if life.tree.is_none() && before(forker) => None,
            Some(forker) => life.tree.or(forker.tree),
            None => life.tree.filter(|_| self.asks_for(cx, life, note::TRACK)),
        }
    }

    /// The queue was drained of a death.
    fn settle_death(&mut self, cx: &mut Context, slot: usize) {
        let life = &self.table[slot];
        if life.death.is_final() || life.tree.is_none() || life.exit_note.is_some() {
            return;
        }
        if !self.asks_for_exit(cx, life) {
            return self.change(cx, slot, |life| life.death = FactState::NoFact);
        }
        self.judge(cx, slot, Fact::Death, Basis::Complete);
        if self.table[slot].death.verdict().is_some_and(Verdict::is_lost) {
            self.wait(slot, Evidence::LateNote, Fact::Death, self.now);
        }
    }

    /// A note has come, and the time is over in which DTrace's record might have confirmed it.
    fn settle_unconfirmed(&mut self, cx: &mut Context, slot: usize, fact: Fact) {
        let life = &self.table[slot];
        if !life.has_record(fact) && !life.state(fact).is_decided() {
            self.table[slot].birth_over |= fact == Fact::Birth;
            self.judge(cx, slot, fact, Basis::Complete);
        }
    }

    fn give_up_birth(&mut self, cx: &mut Context, slot: usize) {
        let life = &self.table[slot];
        if life.registered.is_some() || life.birth.is_decided() || life.created.is_none() {
            return;
        }
        if let Some(tree) = self.tree_of_birth(cx, slot, self.forker(slot)) {
            self.table[slot].tree = Some(tree);
            self.judge(cx, slot, Fact::Birth, Basis::GivenUp);
        }
    }

    fn give_up_death(&mut self, cx: &mut Context, slot: usize) {
        let life = &self.table[slot];
        let over = life.exited.is_some() || self.table.newest(life.pid) != Some(slot);
        if life.tree.is_none() || !over || life.death.is_final() {
            return;
        }
        match life.exit_note.is_some() || self.asks_for_exit(cx, life) {
            true => self.judge(cx, slot, Fact::Death, Basis::GivenUp),
            false => self.change(cx, slot, |life| life.death = FactState::NoFact),
        }
    }
}
