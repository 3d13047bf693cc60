//! Counts, for each known way to use NOTE_TRACK, of how many of the checked facts a tracker that uses it would know the truth.
//! Each strategy adds something to one kqueue that asks for NOTE_TRACK|NOTE_EXIT and believes what comes: a second kqueue, a
//! cookie in udata, a list of processes.

use super::damage::Standing;
use super::finding::Finding;
use super::stats::TreeStats;
use crate::model::{Fact, Verdict, VerdictClass, named_enum, note};

named_enum! {
    /// A way to use NOTE_TRACK.
    pub enum Strategy {
        /// One kqueue with NOTE_TRACK|NOTE_EXIT; its kevents are believed.
        Naive = "naive",
        /// Parents from a second kqueue that asks for NOTE_TRACK alone, where no status can overwrite them; and ends from
        /// one that asks for neither NOTE_FORK nor NOTE_EXEC, whose NOTE_EXIT no other note can make the kernel lose.
        TwoKqueues = "two_kqueues",
        /// The registration's udata, which every descendant inherits, says to which tree a process belongs.
        Cookie = "udata_cookie",
        /// NOTE_CHILD for a process that is known and has not ended is ignored.
        Dedupe = "dedupe",
        /// After NOTE_TRACKERR the processes are listed (sysctl kern.proc) and the missing ones registered. One that
        /// has ended by then is not found.
        Rescan = "rescan",
        /// The tracker is a reaper (procctl PROC_REAP_ACQUIRE) and lists its descendants (PROC_REAP_GETPIDS) when the
        /// event comes: only the living are in that list, without their parents.
        Reaper = "reaper",
    }
}

impl Strategy {
    /// All that are more than one kqueue.
    pub const BETTER: &'static [Strategy] = Self::ALL.split_at(1).1;
}

/// What a strategy got right of the facts with a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StrategyCounts {
    /// Births of which it knows the parent.
    pub parents: u64,
    /// Births that it counts to the right tree.
    pub members: u64,
    /// Deaths that it knows with their status.
    pub ends: u64,
    /// Births and deaths of which it knows more than the naive tracker.
    pub recovered: u64,
}

impl StrategyCounts {
    /// Adds what another run got right.
    pub(crate) fn add(&mut self, other: &StrategyCounts) {
        let StrategyCounts { parents, members, ends, recovered } = other;
        self.parents += parents;
        self.members += members;
        self.ends += ends;
        self.recovered += recovered;
    }
}

/// What is known of one birth.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KnownBirth {
    parent: bool,
    member: bool,
}

/// Counts what every strategy would have made of this fact. Facts without a decision are left out.
pub(super) fn count(finding: &Finding, standing: Standing, tree: &mut TreeStats) {
    if finding.verdict.class() == VerdictClass::Open {
        return;
    }
    // The scan of a pending NOTE_FORK or NOTE_EXEC takes NOTE_EXIT with it (13.2 `kern_event.c`, `kqueue_scan`).
    let lost_to_another_note = finding.verdict == Verdict::LostSilent
        && finding.kqueue.child.is_some()
        && tree.notes & (note::FORK | note::EXEC) != 0;
    match finding.fact {
        Fact::Birth => {
            let naive = birth(Strategy::Naive, finding, standing);
            for &strategy in Strategy::ALL {
                let known = birth(strategy, finding, standing);
                let right = &mut tree.strategies[strategy.index()];
                right.parents += u64::from(known.parent);
                right.members += u64::from(known.member);
                right.recovered += u64::from(known != naive);
            }
        }
        Fact::Death if finding.verdict.is_good() => {
            tree.strategies.iter_mut().for_each(|right| right.ends += 1);
        }
        Fact::Death => {
            let mut end_known = |strategy: Strategy, known: bool| {
                let right = &mut tree.strategies[strategy.index()];
                right.ends += u64::from(known);
                right.recovered += u64::from(known);
            };
            end_known(Strategy::Rescan, standing.rescued);
            end_known(Strategy::TwoKqueues, lost_to_another_note);
        }
    }
}

fn birth(strategy: Strategy, finding: &Finding, standing: Standing) -> KnownBirth {
    // Whether one kqueue shows the parent, and whether one does that asks for NOTE_TRACK alone.
    let (one, track_alone) = match finding.verdict {
        Verdict::Agreed => (true, true),
        Verdict::Overwritten => (false, true),
        Verdict::Corrupt
        | Verdict::LostReported
        | Verdict::LostSilent
        | Verdict::LostInherited
        | Verdict::KqueueOnly
        | Verdict::Undecided => (false, false),
    };
    let naive = KnownBirth { parent: one, member: one && standing.reaches_root };
    match strategy {
        Strategy::Naive | Strategy::Dedupe => naive,
        Strategy::TwoKqueues => KnownBirth {
            parent: track_alone,
            member: track_alone && standing.reaches_root_by_track_alone,
        },
        Strategy::Cookie => KnownBirth { member: !finding.verdict.is_lost(), ..naive },
        Strategy::Rescan => KnownBirth {
            parent: naive.parent || standing.rescued && standing.forker_alive,
            member: naive.member || standing.rescued,
        },
        Strategy::Reaper => {
            KnownBirth { member: naive.member || finding.dtrace.exited.is_none(), ..naive }
        }
    }
}

impl TreeStats {
    /// What this strategy knows and the naive tracker does not: facts, and for [`Strategy::Dedupe`] births that the
    /// naive one counts twice.
    pub fn recovered(&self, strategy: Strategy) -> u64 {
        match strategy {
            Strategy::Dedupe => self.duplicate_child_notes,
            _ => self.strategies[strategy.index()].recovered,
        }
    }
}
