//! What really happened in a simulated run: the oracle for the verdicts.

mod losses;

use std::collections::VecDeque;

use super::options::Options;
use crate::model::{Fact, KernelTime, Kevent, Pid, Verdict, WaitStatus, named_enum, note};

/// The number of a process of the tree, in the order of forking. The root is 0.
pub(crate) type LifeId = u64;

named_enum! {
    /// What was made to go wrong.
    pub enum Fault {
        /// The knote for NOTE_CHILD found no memory.
        NoChildMemory = "no_child_memory",
        /// The knote for NOTE_EXIT found no memory.
        NoTrackMemory = "no_track_memory",
        /// The child had been reaped before its knote was made (ESRCH).
        NoProcess = "no_process",
        /// knote_fork skipped a knote that another thread's knote_fork had in flux.
        InFlux = "in_flux",
        /// knote_fork skipped a knote that was being read.
        ScanSkip = "scan_skip",
        /// An undelivered knote of an earlier life of the pid was taken for the child's.
        PidReuse = "pid_reuse",
        /// NOTE_TRACKERR vanished while the knote was being read (PR 291005).
        LostUpdate = "lost_update",
        /// NOTE_EXIT carries a p_xstat from before the exit status was set.
        StaleStatus = "stale_status",
        /// A process ended while kevent(2) was scanning a knote of it with another note pending: both are gone.
        LostExit = "lost_exit",
        /// An event's data was scribbled over.
        Scribble = "scribble",
        /// DTrace dropped a record.
        Drop = "drop",
        /// dtrace aborted.
        Abort = "abort",
        /// DTrace's clock, or the reader's, jumped.
        ClockStep = "clock_step",
        /// dtrace printed a fork or an exit twice.
        PrintedTwice = "printed_twice",
    }
}

/// A fault, when it happened and to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injected {
    /// When.
    pub at: KernelTime,
    /// What.
    pub fault: Fault,
    /// The process that suffers from it; the CPU for [`Fault::Drop`]; 0 for [`Fault::Abort`] and [`Fault::ClockStep`].
    pub who: u32,
}

/// One process of the tree.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TrueLife {
    pub(super) pid: Pid,
    pub(super) forker: Pid,
    pub(super) forker_life: Option<LifeId>,
    /// That of the root is no fact: it has no outcome.
    pub(super) birth: TrueFact,
    pub(super) death: TrueFact,
    /// How it ended.
    pub(super) status: Option<WaitStatus>,
    /// The calls that returned NOTE_TRACKERR about it.
    reports: Vec<TrueTrackerr>,
    /// What kqueue was asked to report of it: nothing else is a fact.
    pub(super) asked: u32,
    /// It was announced, but the knote that would have followed it found no memory.
    half_tracked: bool,
    /// It was registered, but the knote of an earlier life of its pid was there: nothing watches it.
    pub(super) unwatched: bool,
}

/// A call that returned NOTE_TRACKERR. Both times are as DTrace shows them.
#[derive(Clone, Copy, PartialEq, Debug)]
struct TrueTrackerr {
    /// When it returned.
    at: KernelTime,
    /// When the last call before it began that drained the queue.
    drained: KernelTime,
}

/// A birth or a death, and what became of its note.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct TrueFact {
    /// When DTrace's probe fired.
    pub(super) at: Option<KernelTime>,
    /// Whether dtrace printed that.
    pub(super) printed: bool,
    pub(super) outcome: Option<Verdict>,
    /// What became of further notes about it: NOTE_CHILD is repeated, and each kqueue of a consumer may report it.
    pub(super) further: Vec<Verdict>,
    /// The batch with its note; of a consumer: when DTrace showed the call that returned it to return.
    pub(super) call: Option<u64>,
    /// When DTrace showed the call that returned its note, to a consumer, to return.
    shown: Option<u64>,
}

impl TrueLife {
    pub(super) fn of(&self, fact: Fact) -> &TrueFact {
        match fact {
            Fact::Birth => &self.birth,
            Fact::Death => &self.death,
        }
    }

    pub(super) fn of_mut(&mut self, fact: Fact) -> &mut TrueFact {
        match fact {
            Fact::Birth => &mut self.birth,
            Fact::Death => &mut self.death,
        }
    }
}

/// What knote_fork has done with a child, for one tracker.
#[derive(Clone, Debug, Default)]
pub(super) struct Followed {
    /// A knote of the forker followed this fork, or would have.
    pub(super) tracked: bool,
    /// What the child's knotes wait for.
    pub(super) asked: u32,
    /// A registration of the child failed.
    pub(super) failed: bool,
    pub(super) child_noted: bool,
    pub(super) exit_noted: bool,
    /// A knote to follow it found no memory.
    pub(super) not_followed: bool,
}

/// Why a note will not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LossCause {
    /// A registration failed, and set NOTE_TRACKERR on the knote of the forker.
    Failed,
    /// knote_fork passed over the knote of the forker, or the knote asks for less.
    PassedOver,
    /// The forker had no knote that tracks: if its birth or its death was lost, the loss is inherited.
    Untracked,
    /// The note was queued and is gone.
    Vanished,
}

/// A note that will not come. What that is called depends on what became of the forker, and on NOTE_TRACKERR.
#[derive(Clone, Copy, Debug)]
struct Loss {
    life: LifeId,
    fact: Fact,
    cause: LossCause,
    at: u64,
    /// The queue has been drained since then: the loss stays a fact even if the kqueue is closed.
    drained: bool,
}

/// The log of the truth.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    lives: VecDeque<TrueLife>,
    /// How many lives were forgotten at the front.
    forgotten: LifeId,
    keep: usize,
    losses: Vec<Loss>,
    /// Of whom the call under way has returned NOTE_TRACKERR.
    reporting: Vec<LifeId>,
    /// When the last call began that drained the queue, as DTrace shows it.
    drained: KernelTime,
    /// Every injected fault, in order.
    pub faults: Vec<Injected>,
    /// Spans of time in which DTrace was dropping records of some CPU, or was not running.
    pub blind: Vec<(KernelTime, KernelTime)>,
    /// Kevents with both NOTE_CHILD and NOTE_EXIT.
    pub collisions: u64,
    /// Kevents with NOTE_TRACKERR.
    pub trackerr_reports: u64,
    /// The most knotes that were alive at once.
    pub most_knotes: usize,
    /// What each consumer received: the same lives, as its kqueues reported them.
    pub consumers: Vec<Truth>,
}

impl Truth {
    /// A log that keeps the last `keep` lives, faults and spans each.
    pub(super) fn new(keep: usize) -> Truth {
        Truth { keep, ..Truth::default() }
    }

    /// The lives, in the order of forking.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &TrueLife> {
        self.lives.iter()
    }

    /// Whether DTrace was really blind at that time.
    pub(crate) fn blind_at(&self, at: KernelTime) -> bool {
        self.blind.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }

    pub(crate) fn count(&self, fault: Fault) -> usize {
        self.faults.iter().filter(|f| f.fault == fault).count()
    }

    pub(super) fn born(&mut self, pid: Pid, forker: Pid, forker_life: Option<LifeId>) -> LifeId {
        if self.lives.len() >= self.keep {
            self.lives.pop_front();
            self.forgotten += 1;
        }
        let asked = forker_life.and_then(|f| self.life(f)).map_or(0, |forker| forker.asked);
        self.lives.push_back(TrueLife {
            pid,
            forker,
            forker_life,
            birth: TrueFact::default(),
            death: TrueFact::default(),
            status: None,
            reports: vec![],
            asked: if asked & note::TRACK != 0 { asked } else { 0 },
            half_tracked: false,
            unwatched: false,
        });
        self.forgotten + self.lives.len() as u64 - 1
    }

    pub(super) fn life(&mut self, id: LifeId) -> Option<&mut TrueLife> {
        self.lives.get_mut(id.checked_sub(self.forgotten)? as usize)
    }

    pub(super) fn fault(&mut self, at: u64, fault: Fault, who: u32) {
        if self.faults.len() < self.keep {
            self.faults.push(Injected { at: KernelTime(at), fault, who });
        }
    }

    pub(super) fn blinded(&mut self, from: u64, to: u64) {
        if self.blind.len() < self.keep {
            self.blind.push((KernelTime(from), KernelTime(to)));
        }
    }

    /// knote_fork is done with this life: what was asked for and is not among the notes that will come is lost.
    pub(super) fn followed(&mut self, life: LifeId, forker: LifeId, followed: &Followed, now: u64) {
        let asked = self.life(forker).map_or(0, |forker| forker.asked);
        let Some(child) = self.life(life) else { return };
        child.asked = followed.asked | if asked & note::TRACK != 0 { child.asked } else { 0 };
        child.half_tracked = followed.not_followed;
        let owed = child.asked;
        let cause = match followed {
            Followed { failed: true, .. } => LossCause::Failed,
            Followed { tracked: true, .. } => LossCause::PassedOver,
            _ => LossCause::Untracked,
        };
        let mut lost = |fact| self.losses.push(Loss { life, fact, cause, at: now, drained: false });
        if owed & note::TRACK != 0 && !followed.child_noted {
            lost(Fact::Birth);
        }
        if owed & note::EXIT != 0 && !followed.exit_noted {
            lost(Fact::Death);
        }
    }

    /// The kqueues that were asked are gone, and what they had not reported yet: nothing of it is a fact any more.
    pub(super) fn forget(&mut self) {
        self.losses.retain(|loss| loss.drained);
        self.lives.iter_mut().for_each(|life| life.asked = 0);
    }

    /// What the whole kernel knows of the lives, and of DTrace, besides what was reported of them here.
    pub(super) fn complete(&mut self, whole: &Truth) {
        for (mine, life) in self.lives.iter_mut().zip(&whole.lives) {
            for fact in Fact::ALL {
                let (mine, TrueFact { at, printed, .. }) = (mine.of_mut(*fact), life.of(*fact));
                (mine.at, mine.printed, mine.call) = (*at, *printed, mine.shown);
            }
        }
        self.blind.clone_from(&whole.blind);
    }

    /// DTrace has shown that a call returned these notes of this life to a consumer, at `at`.
    pub(super) fn shown(&mut self, life: LifeId, fflags: u32, at: u64) {
        let Some(life) = self.life(life) else { return };
        for fact in facts_of(fflags) {
            life.of_mut(fact).shown.get_or_insert(at);
        }
    }

    /// These notes of this process will not come, and nothing will ever say so.
    pub(super) fn vanished(&mut self, life: LifeId, notes: u32, at: u64) {
        let loss = |fact| Loss { life, fact, cause: LossCause::Vanished, at, drained: false };
        self.losses.extend(facts_of(notes).map(loss));
    }

    /// The reader got this event in this batch.
    pub(super) fn delivered(&mut self, id: LifeId, event: &Kevent, batch: u64) {
        let both = note::CHILD | note::EXIT;
        let collided = event.fflags & both == both;
        self.collisions += u64::from(collided);
        if let Some(life) = self.life(id) {
            if event.fflags & note::CHILD != 0 {
                life.announced(event, batch, collided);
            }
            if event.fflags & note::EXIT != 0 {
                life.ended(event, batch, collided);
            }
        }
        if event.fflags & note::TRACKERR != 0 {
            self.trackerr_reports += 1;
            self.reporting.push(id);
        }
    }

    /// A kevent(2) call returned at `at`; on DTrace's clock, as all times of reports.
    pub(super) fn returned(&mut self, at: KernelTime) {
        for id in std::mem::take(&mut self.reporting) {
            let report = TrueTrackerr { at, drained: self.drained };
            if let Some(life) = self.life(id) {
                life.reports.push(report);
            }
        }
    }

    /// A call has taken all there was. It began at `entered`, and `shown` on DTrace's clock.
    pub(super) fn drained(&mut self, entered: u64, shown: KernelTime) {
        self.drained = self.drained.max(shown);
        self.losses.iter_mut().for_each(|loss| loss.drained |= loss.at < entered);
    }

    /// The run with these options is over: gives every loss its name.
    pub(super) fn finish(&mut self, options: &Options) {
        let mut losses = std::mem::take(&mut self.losses);
        // A forker comes before its children, a birth before the death.
        losses.sort_by_key(|loss| (loss.life, loss.fact));
        for Loss { life, fact, cause, .. } in losses {
            let Some(lost) = self.life(life).cloned() else { continue };
            let forker = lost.forker_life.and_then(|forker| self.life(forker));
            let verdict = lost.named(fact, cause, forker.as_deref(), options);
            if let Some(life) = self.life(life) {
                life.of_mut(fact).outcome.get_or_insert(verdict);
            }
        }
    }
}

/// The facts that these notes report.
fn facts_of(fflags: u32) -> impl Iterator<Item = Fact> {
    let notes = [(note::CHILD, Fact::Birth), (note::EXIT, Fact::Death)];
    notes.into_iter().filter(move |(bit, _)| fflags & bit != 0).map(|(_, fact)| fact)
}

impl TrueLife {
    fn announced(&mut self, event: &Kevent, batch: u64, collided: bool) {
        let right = event.data == i64::from(self.forker.get());
        let outcome = match (right, collided) {
            (true, _) => Verdict::Agreed,
            (false, true) => Verdict::Overwritten,
            (false, false) => Verdict::Corrupt,
        };
        if self.birth.call.is_some() {
            self.birth.further.push(outcome);
        } else {
            self.birth.call = Some(batch);
            self.birth.outcome.get_or_insert(outcome);
        }
    }

    fn ended(&mut self, event: &Kevent, batch: u64, collided: bool) {
        let right = self.status.is_some_and(|s| event.data == i64::from(s.0));
        let ppid = event.data == i64::from(self.forker.get());
        let outcome = match (right, collided && ppid) {
            (true, _) => Verdict::Agreed,
            (false, true) => Verdict::Overwritten,
            (false, false) => Verdict::Corrupt,
        };
        if self.death.call.replace(batch).is_some() {
            self.death.further.push(outcome);
        }
        self.death.outcome.get_or_insert(outcome);
    }
}
