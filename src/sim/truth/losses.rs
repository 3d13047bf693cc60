//! What a loss is called: reported, silent or inherited, by what became of the forker and by the NOTE_TRACKERR on its knote.

use super::{LossCause, TrueFact, TrueLife, TrueTrackerr};
use crate::model::{Fact, Verdict};
use crate::sim::options::Options;

/// How far from a create NOTE_TRACKERR of its forker covers it, in nanoseconds.
const COVERED_NS: u64 = 50_000_000;

impl TrueLife {
    /// What a loss of this process is called. With the cause probes a NOTE_TRACKERR is about the children whose registration
    /// failed; without them it may be about every child that it covers.
    pub(super) fn named(
        &self,
        fact: Fact,
        cause: LossCause,
        forker: Option<&TrueLife>,
        options: &Options,
    ) -> Verdict {
        let announced = match self.birth.outcome {
            // What kept kqueue from its birth kept it from its death.
            Some(birth) if birth.is_lost() => return birth,
            Some(_) => true,
            // Its death is a fact, and its birth is none: it was registered by itself.
            None if fact == Fact::Death && cause == LossCause::Vanished => {
                return Verdict::LostSilent;
            }
            None => false,
        };
        let causes = options.causes;
        let one_knote = options.regime.is_merged();
        let nothing_failed = one_knote && announced || causes && cause != LossCause::Failed;
        match forker {
            Some(forker) if !nothing_failed && forker.has_reported(self) => Verdict::LostReported,
            Some(forker) if !announced && forker.leaves_untracked(cause, causes) => {
                Verdict::LostInherited
            }
            _ => Verdict::LostSilent,
        }
    }

    /// Whether a child of it that was lost is lost by inheritance, or cannot be told from one.
    fn leaves_untracked(&self, cause: LossCause, causes: bool) -> bool {
        let is_lost = |fact: &TrueFact| fact.outcome.is_some_and(Verdict::is_lost);
        match cause {
            LossCause::Untracked => {
                is_lost(&self.birth) || is_lost(&self.death) || self.half_tracked
            }
            LossCause::Failed | LossCause::PassedOver if causes => false,
            _ => is_lost(&self.birth) || self.death.outcome == Some(Verdict::LostReported),
        }
    }

    /// Whether a NOTE_TRACKERR on its knote covers the birth of `child`: on DTrace's clock it came at most 50 ms before the
    /// create, and with the first call at the latest that began after a drain 50 ms behind the create.
    fn has_reported(&self, child: &TrueLife) -> bool {
        let Some(created) = child.birth.at else { return false };
        let covers = |&TrueTrackerr { at, drained }: &TrueTrackerr| {
            at.plus(COVERED_NS) >= created && drained <= created.plus(COVERED_NS)
        };
        self.reports.iter().any(covers)
    }
}
