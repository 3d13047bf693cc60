//! Verdicts on facts of which one witness spoke and the other will not: because the queue was drained after the fact,
//! because the settle time is over, or because the input ended.

use super::ledger::{Ledger, UNORDERED_NS};
use super::stats::{BlindReason, Table as Bounded};
use super::table::{Incarnation, Reported};
use crate::model::{Fact, KernelTime, Regime, Verdict, note};

/// How long a decided loss is remembered, to know a late note when it comes.
const LINGER_NS: u64 = 10_000_000_000;

/// How many generations may have been created in the wrong order.
const MAX_LINE: usize = 64;

impl Ledger {
    /// The queue was drained by a call that began at `entered`: what was queued before has been delivered, and what was
    /// not queued before never will be.
    pub(crate) fn settle_births(&mut self, entered: KernelTime) {
        while let Some((pinned, at)) = self.births.front().copied() {
            if at.plus(UNORDERED_NS) > entered {
                break;
            }
            self.births.pop_front();
            if let Some(slot) = self.table.find(pinned) {
                self.settle_birth(slot);
                self.release_birth(slot);
            }
        }
    }

    /// The queue was empty at `quiet`: NOTE_EXIT of whatever ended the settle time before that (more, where threads were
    /// held up) has been delivered, or never will be.
    pub(crate) fn settle_deaths(&mut self, quiet: KernelTime) {
        while let Some((pinned, at)) = self.deaths.front().copied() {
            if at.plus(self.patience_ns) > quiet {
                break;
            }
            self.deaths.pop_front();
            if let Some(slot) = self.table.find(pinned) {
                self.settle_death(slot);
                self.release(slot);
            }
        }
    }

    /// DTrace's order has come to `now`: notes that it has not confirmed within the settle time, or longer where threads
    /// were held up, stay unconfirmed; not before dtrace has `told` of everything that it dropped until then.
    #[inline(always)]
    pub(crate) fn advance(&mut self, now: KernelTime, told: impl Fn(KernelTime) -> KernelTime) {
        self.now = self.now.max(now);
        while let Some((pinned, at, fact)) = self.notes.front().copied() {
            if at.plus(self.patience_ns) > self.now || at > told(self.now) {
                break;
            }
            self.notes.pop_front();
            if let Some(slot) = self.table.find(pinned) {
                self.settle_note(slot, fact);
                self.release(slot);
            }
        }
        while let Some((pinned, at)) = self.lingering.front().copied() {
            if at.plus(LINGER_NS) > self.now {
                break;
            }
            self.lingering.pop_front();
            if let Some(slot) = self.table.find(pinned) {
                self.release(slot);
            }
        }
    }

    /// The input has ended: what has not been decided by now stays undecided.
    pub(crate) fn finish(&mut self) {
        while let Some((pinned, _)) = self.births.pop_front() {
            if let Some(slot) = self.table.find(pinned) {
                self.give_up_birth(slot);
                self.release_birth(slot);
            }
        }
        while let Some((pinned, _)) = self.deaths.pop_front() {
            if let Some(slot) = self.table.find(pinned) {
                self.give_up_death(slot);
                self.release(slot);
            }
        }
        while let Some((pinned, _, fact)) = self.notes.pop_front() {
            let Some(slot) = self.table.find(pinned) else { continue };
            self.give_up_note(slot, fact);
            self.release(slot);
        }
    }

    fn give_up_note(&mut self, slot: usize, fact: Fact) {
        let inc = &self.table[slot];
        match fact {
            Fact::Birth if inc.birth.is_none() => self.decide_birth(slot, Verdict::Undecided),
            Fact::Death if inc.death.is_none() => self.decide_death(slot, Verdict::Undecided),
            _ => {}
        }
    }

    /// Makes room in a full table: what has its verdicts is forgotten, then the oldest unsettled incarnation is given up,
    /// and DTrace counts as blind for it. What stays is alive as far as anyone knows: one life of each pid at most.
    pub(crate) fn make_room(&mut self) {
        while self.table.len() >= self.config.capacity {
            if let Some((pinned, _)) = self.lingering.pop_front() {
                if let Some(slot) = self.table.find(pinned) {
                    self.release(slot);
                }
                continue;
            }
            let birth = self.births.pop_front();
            let unsettled = birth.or_else(|| self.deaths.pop_front());
            let unsettled = unsettled.map(|(pinned, at)| (pinned, at, None));
            let oldest = unsettled.or_else(|| {
                let (pinned, at, fact) = self.notes.pop_front()?;
                Some((pinned, at, Some(fact)))
            });
            let Some((pinned, at, fact)) = oldest else { return };
            let Some(slot) = self.table.find(pinned) else { continue };
            match fact {
                Some(fact) => self.give_up_note(slot, fact),
                None => {
                    self.give_up_birth(slot);
                    self.give_up_death(slot);
                }
            }
            match birth {
                Some(_) => self.release_birth(slot),
                None => self.release(slot),
            }
            self.stats.evictions[Bounded::Incarnations.index()] += 1;
            // Its notes may still come, and would be taken for those of the next life of its pid.
            self.dtrace.unsure(at, BlindReason::Overflow);
            self.overflowed = self.overflowed.max(self.now);
        }
    }

    fn settle_birth(&mut self, slot: usize) {
        let forker = self.forker(slot);
        if forker.is_some_and(|forker| self.is_unsettled(forker)) {
            self.settle_ancestors(slot);
        }
        self.settle_one_birth(slot, forker);
    }

    /// Whether a process is lost by inheritance depends on its forker, which may have been created later.
    fn settle_ancestors(&mut self, slot: usize) {
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
            self.settle_one_birth(ancestor, self.forker(ancestor));
        }
    }

    fn is_unsettled(&self, slot: usize) -> bool {
        !self.table[slot].closed && self.table[slot].created.is_some()
    }

    fn settle_one_birth(&mut self, slot: usize, forker: Option<usize>) {
        self.table[slot].closed = true;
        if self.table[slot].attached.is_some() {
            return;
        }
        let about = |f: usize| self.table[f].trackerr.about(&self.table[slot]);
        let reported = forker.map_or(Reported::Unclear, about);
        self.table[slot].reported = reported;
        if self.table[slot].birth.is_some() {
            return;
        }
        let Some(verdict) = self.missing_birth(slot, forker) else { return };
        if let (Verdict::LostReported, Some(forker)) = (verdict, forker) {
            self.table[forker].trackerr.explain(reported);
        }
        self.decide_birth(slot, verdict);
    }

    /// The incarnation that forked this one. One whose own create is missing was not known then, but may be now.
    pub(super) fn forker(&self, slot: usize) -> Option<usize> {
        let inc = &self.table[slot];
        inc.forker_handle.and_then(|h| self.table.find(h)).or_else(|| {
            let newest = self.table.newest(inc.forker?)?;
            let forker = &self.table[newest];
            let here = match forker.created {
                Some(at) => Some(at) > inc.created && at.since(inc.created?) <= UNORDERED_NS,
                None => forker.tracked(),
            };
            (here && forker.may_run_at(inc.created?)).then_some(newest)
        })
    }

    /// The verdict on a birth without NOTE_CHILD, and the tree that it belongs to. `None` where it belongs to none.
    fn missing_birth(&mut self, slot: usize, forker: Option<usize>) -> Option<Verdict> {
        let created = self.table[slot].created?;
        let forker = forker.map(|f| &self.table[f]).filter(|f| f.tree.is_some());
        let Some(forker) = forker else {
            // Nobody knows the forker, but kqueue sent NOTE_EXIT.
            let tree = self.table[slot].tree?;
            let notes = self.tree(tree).notes;
            if notes != 0 && notes & note::TRACK == 0 {
                return None;
            }
            return Some(if self.blind_since(created) {
                Verdict::Undecided
            } else {
                Verdict::LostSilent
            });
        };
        let inc = &self.table[slot];
        let verdict = match forker.attached.as_deref().copied() {
            // Its children were not asked for.
            Some(forked_by) if forked_by.notes & note::TRACK == 0 => return None,
            // Born before we came: not one of ours, or nobody can say.
            Some(forked_by) if created < forked_by.entered && inc.tree.is_none() => return None,
            Some(forked_by) if created <= forked_by.returned.plus(UNORDERED_NS) => {
                Verdict::Undecided
            }
            _ => self.lost_birth(created, inc, forker),
        };
        let tree = forker.tree?;
        self.table[slot].tree.get_or_insert(tree);
        Some(verdict)
    }

    fn lost_birth(&self, at: KernelTime, inc: &Incarnation, forker: &Incarnation) -> Verdict {
        let forker_certain = forker.proven >= at || !self.dtrace.overlaps(forker.proven, at);
        if !forker_certain || self.blind_since(at) {
            return Verdict::Undecided;
        }
        // Two knotes a child, one of which found no memory: announced, but not followed.
        let half_tracked = self.stats.regime == Regime::Split
            && forker.reported != Reported::No
            && forker.exit.is_none()
            && Some(forker.proven) <= forker.created;
        match inc.reported {
            Reported::By(_) => Verdict::LostReported,
            Reported::Unclear => Verdict::Undecided,
            Reported::No if half_tracked || forker.birth.is_some_and(Verdict::is_lost) => {
                Verdict::LostInherited
            }
            Reported::No if forker.tracked() => Verdict::LostSilent,
            Reported::No => Verdict::Undecided,
        }
    }

    /// Whether nobody may be accused of a note that is missing for a fact of this time: DTrace was blind then, or kqueue's
    /// words of since then are incomplete. The note may have been queued a while before the probe fired.
    fn blind_since(&self, fact: KernelTime) -> bool {
        let queued = fact.minus(self.config.settle_ns);
        self.dtrace.overlaps(fact, fact) || self.kqueue.overlaps(queued, self.now)
    }

    fn settle_death(&mut self, slot: usize) {
        let inc = &self.table[slot];
        if inc.death.is_some() || inc.tree.is_none() || inc.exit.is_some() {
            return;
        }
        if !self.asks_for_exit(slot) {
            return self.count_tracked(slot, false);
        }
        let inc = &self.table[slot];
        let verdict = match inc.exited {
            // Its pid was created again, and neither witness said that it ended.
            None => Verdict::Undecided,
            Some(exited) if self.blind_since(exited) => Verdict::Undecided,
            // Without its create nobody knows whether NOTE_TRACKERR spoke of it.
            Some(_) if inc.child.is_some() && inc.created.is_none() => Verdict::Undecided,
            Some(_) if inc.tracked() => match inc.reported {
                Reported::No => Verdict::LostSilent,
                Reported::By(_) => Verdict::LostReported,
                Reported::Unclear => Verdict::Undecided,
            },
            // What kept kqueue from its birth kept it from its death.
            Some(_) => inc.birth.filter(|v| v.is_lost()).unwrap_or(Verdict::Undecided),
        };
        self.decide_death(slot, verdict);
        if verdict.is_lost() {
            let pinned = self.pin(slot);
            self.lingering.push_back((pinned, self.now));
        }
    }

    fn settle_note(&mut self, slot: usize, fact: Fact) {
        let inc = &self.table[slot];
        let (decided, dtrace, said) = match fact {
            Fact::Birth => (inc.birth, inc.created, inc.child),
            Fact::Death => (inc.death, inc.exited, inc.exit),
        };
        let (None, None, Some(said)) = (decided, dtrace, said) else { return };
        // The fact lies after the last drain that did not deliver the note, less what the kernel orders loosely.
        let from = match fact {
            Fact::Birth => said.not_before.minus(UNORDERED_NS),
            Fact::Death => {
                let from = said.not_before.minus(self.patience_ns);
                inc.created.map_or(from, |created| from.max(created))
            }
        };
        let blind = self.dtrace.overlaps(from, said.at.plus(self.patience_ns));
        let verdict = if blind { Verdict::Undecided } else { Verdict::KqueueOnly };
        match fact {
            Fact::Birth => {
                self.table[slot].closed = true;
                self.decide_birth(slot, verdict);
            }
            Fact::Death => self.decide_death(slot, verdict),
        }
    }

    fn give_up_birth(&mut self, slot: usize) {
        let inc = &self.table[slot];
        if inc.attached.is_some() || inc.birth.is_some() || inc.created.is_none() {
            return;
        }
        let forker = self.forker(slot);
        if self.missing_birth(slot, forker).is_some() {
            self.decide_birth(slot, Verdict::Undecided);
        }
    }

    fn give_up_death(&mut self, slot: usize) {
        let inc = &self.table[slot];
        let over = inc.exited.is_some() || self.table.newest(inc.pid) != Some(slot);
        if inc.tree.is_some() && inc.death.is_none() && over && self.asks_for_exit(slot) {
            self.decide_death(slot, Verdict::Undecided);
        }
    }

    /// Its birth needs neither itself nor its forker any more.
    fn release_birth(&mut self, slot: usize) {
        let forker = self.table[slot].forker_handle.and_then(|h| self.table.find(h));
        if let Some(forker) = forker {
            self.release(forker);
        }
        self.release(slot);
    }

    /// One queue less names it. Forgets what nothing will be said of any more.
    fn release(&mut self, slot: usize) {
        self.table[slot].pins -= 1;
        let inc = &self.table[slot];
        let ended = || inc.exited.is_some() || self.table.newest(inc.pid) != Some(slot);
        let is_over =
            || inc.tree.is_none() || inc.death.is_some() || ended() && !self.asks_for_exit(slot);
        if inc.pins == 0 && is_over() {
            self.table.end(slot);
        }
    }
}
