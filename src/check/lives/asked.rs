//! What the knote of a life was asked for, by its registration or by what it inherited from its forker's: what was not
//! asked for is no fact.

use super::life::Life;
use super::{Context, Lives};
use crate::check::judge::UNORDERED_NS;
use crate::model::{KernelTime, Regime, note};

impl Lives {
    /// Whether this life's registration, or that of its ancestor, asked for these notes: what was not asked for is no fact.
    pub(super) fn asks_for(&self, cx: &Context, life: &Life, bit: u32) -> bool {
        let tree = life.tree.or(self.tree);
        let tree = tree.and_then(|tree| cx.verdicts.stats.trees.get(usize::from(tree.0)));
        let of_tree = tree.map(|tree| tree.notes).filter(|notes| *notes != 0);
        let used_up = life.muted || self.may_be_used_up(cx, life);
        !used_up && life.asked.or(of_tree).is_none_or(|notes| notes & bit != 0)
    }

    /// Whether the kernel was to announce this child when its forker created it.
    pub(super) fn asks_for_child(&self, cx: &Context, child: &Life, forker: &Life) -> bool {
        match child.asked {
            Some(notes) => notes & note::TRACK != 0,
            None => self.asks_for(cx, forker, note::TRACK),
        }
    }

    /// Whether NOTE_EXIT was asked for when this process ended.
    pub(super) fn asks_for_exit(&self, cx: &Context, life: &Life) -> bool {
        self.asks_for(cx, life, note::EXIT) && !life.was_changed_at_its_end()
    }

    /// A child inherits what its forker's knote asks for now. If that has just changed, it is not known from when to when the
    /// kernel followed the forker: nothing of the child needs to be reported.
    pub(super) fn inherited(
        &self,
        cx: &Context,
        forker: usize,
        created: KernelTime,
    ) -> Option<u32> {
        let forker = &self.table[forker];
        let just_changed = forker.changed.is_some_and(|at| created <= at.plus(UNORDERED_NS));
        let used_up = forker.muted || self.may_be_used_up(cx, forker);
        let followed = |notes: &u32| notes & note::TRACK != 0 && !used_up && !just_changed;
        forker.asked.map(|notes| Some(notes).filter(followed).unwrap_or(0))
    }

    /// Whether the knote of this child may have been freed by its NOTE_CHILD: on a split kernel that has a knote of its own,
    /// which is EV_ONESHOT; on a merged one its user has asked for that.
    pub(super) fn may_be_used_up(&self, cx: &Context, life: &Life) -> bool {
        let oneshot = life.child_note.is_some_and(|note| note.flags & note::EV_ONESHOT != 0);
        self.is_consumer() && oneshot && cx.verdicts.stats.regime != Regime::Split
    }
}
