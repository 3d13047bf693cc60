//! What really happened in a simulated run: the oracle for the verdicts.

use std::collections::VecDeque;

use crate::model::{Fact, KernelTime, Kevent, Pid, Verdict, WaitStatus, named_enum, note};

/// How far from a create NOTE_TRACKERR of its forker covers it, in nanoseconds.
const COVERED_NS: u64 = 50_000_000;

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
    /// Its pid.
    pub pid: Pid,
    /// Who forked it.
    pub forker: Pid,
    /// The forker's life.
    pub(crate) forker_life: Option<LifeId>,
    /// When proc:::create fired.
    pub created: Option<KernelTime>,
    /// Whether dtrace printed that.
    pub(crate) create_printed: bool,
    /// When proc:::exit fired.
    pub exited: Option<KernelTime>,
    /// Whether dtrace printed that.
    pub(crate) exit_printed: bool,
    /// How it ended.
    pub status: Option<WaitStatus>,
    /// What became of its NOTE_CHILD; none for the root, whose birth is no fact of ours.
    pub birth: Option<Verdict>,
    /// What became of its NOTE_EXIT.
    pub death: Option<Verdict>,
    /// What became of further notes about its birth and its death: each kqueue of a consumer may report it.
    pub further: [Vec<Verdict>; 2],
    /// The batch with its first NOTE_CHILD; of a consumer: when DTrace showed the call that returned it to return.
    pub child_batch: Option<u64>,
    /// The batch with its NOTE_EXIT; of a consumer: as above.
    pub exit_batch: Option<u64>,
    /// How many more NOTE_CHILD it had than one.
    pub duplicates: u32,
    /// Of each call that returned NOTE_TRACKERR about it: when it returned, and when the last call before it began that drained
    /// the queue, both as DTrace shows them.
    reports: Vec<(KernelTime, KernelTime)>,
    /// What kqueue was asked to report of it: nothing else is a fact.
    pub(super) asked: u32,
    /// It was announced, but the knote that would have followed it found no memory.
    half_tracked: bool,
    /// It was registered, but the knote of an earlier life of its pid was there: nothing watches it.
    pub(super) unwatched: bool,
    /// When DTrace showed the calls that returned its NOTE_CHILD and its NOTE_EXIT, of a consumer, to return.
    shown: [Option<u64>; 2],
}

impl TrueLife {
    /// What became of this fact.
    pub(crate) fn outcome(&self, fact: Fact) -> Option<Verdict> {
        match fact {
            Fact::Birth => self.birth,
            Fact::Death => self.death,
        }
    }

    /// When DTrace's probe for this fact fired.
    pub(crate) fn at(&self, fact: Fact) -> Option<KernelTime> {
        match fact {
            Fact::Birth => self.created,
            Fact::Death => self.exited,
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
enum Why {
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
    why: Why,
    at: u64,
    /// The queue has been drained since then: the loss stays a fact even if the kqueue is closed.
    drained: bool,
}

/// The log of the truth.
#[derive(Clone, Debug)]
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
        Truth {
            lives: VecDeque::new(),
            forgotten: 0,
            keep,
            losses: vec![],
            reporting: vec![],
            drained: KernelTime(0),
            faults: vec![],
            blind: vec![],
            collisions: 0,
            trackerr_reports: 0,
            most_knotes: 0,
            consumers: vec![],
        }
    }

    /// The lives, in the order of forking.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &TrueLife> {
        self.lives.iter()
    }

    /// Whether DTrace was really blind at that time.
    pub(crate) fn blind_at(&self, at: KernelTime) -> bool {
        self.blind.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }

    /// How often this fault was injected.
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
            created: None,
            create_printed: false,
            exited: None,
            exit_printed: false,
            status: None,
            birth: None,
            death: None,
            further: [vec![], vec![]],
            child_batch: None,
            exit_batch: None,
            duplicates: 0,
            reports: vec![],
            asked: if asked & note::TRACK != 0 { asked } else { 0 },
            half_tracked: false,
            unwatched: false,
            shown: [None; 2],
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
        let why = match followed {
            Followed { failed: true, .. } => Why::Failed,
            Followed { tracked: true, .. } => Why::PassedOver,
            _ => Why::Untracked,
        };
        let mut lost = |fact| self.losses.push(Loss { life, fact, why, at: now, drained: false });
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
            *mine = TrueLife {
                birth: mine.birth,
                death: mine.death,
                further: std::mem::take(&mut mine.further),
                child_batch: mine.shown[0],
                exit_batch: mine.shown[1],
                duplicates: mine.duplicates,
                half_tracked: mine.half_tracked,
                reports: std::mem::take(&mut mine.reports),
                ..life.clone()
            };
        }
        self.blind.clone_from(&whole.blind);
    }

    /// DTrace has shown that a call returned these notes of this life to a consumer, at `at`.
    pub(super) fn shown(&mut self, life: LifeId, fflags: u32, at: u64) {
        let Some(life) = self.life(life) else { return };
        for (shown, bit) in life.shown.iter_mut().zip([note::CHILD, note::EXIT]) {
            if fflags & bit != 0 {
                shown.get_or_insert(at);
            }
        }
    }

    /// These notes of this process will not come, and nothing will ever say so.
    pub(super) fn vanished(&mut self, life: LifeId, notes: u32, at: u64) {
        for (bit, fact) in [(note::CHILD, Fact::Birth), (note::EXIT, Fact::Death)] {
            if notes & bit != 0 {
                self.losses.push(Loss { life, fact, why: Why::Vanished, at, drained: false });
            }
        }
    }

    fn settle(&mut self, life: LifeId, fact: Fact, outcome: Verdict) {
        let Some(life) = self.life(life) else { return };
        let slot = match fact {
            Fact::Birth => &mut life.birth,
            Fact::Death => &mut life.death,
        };
        slot.get_or_insert(outcome);
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
            let not_before = self.drained;
            if let Some(life) = self.life(id) {
                life.reports.push((at, not_before));
            }
        }
    }

    /// A call has taken all there was. It began at `entered`, and `shown` on DTrace's clock.
    pub(super) fn drained(&mut self, entered: u64, shown: KernelTime) {
        self.drained = self.drained.max(shown);
        self.losses.iter_mut().for_each(|loss| loss.drained |= loss.at < entered);
    }

    /// The run is over: gives every loss its name. `one_knote`: the kernel has one knote for both notes of a child. `causes`: a
    /// NOTE_TRACKERR is about the children whose registration failed; without the cause probes it may be about every child that
    /// it covers.
    pub(super) fn finish(&mut self, one_knote: bool, causes: bool) {
        let mut losses = std::mem::take(&mut self.losses);
        // A forker comes before its children, a birth before the death.
        losses.sort_by_key(|loss| (loss.life, loss.fact as usize));
        for Loss { life, fact, why, .. } in losses {
            let Some(lost) = self.life(life).cloned() else { continue };
            let forker = lost.forker_life.and_then(|forker| self.life(forker));
            let verdict = lost.named(fact, why, forker.as_deref(), one_knote, causes);
            self.settle(life, fact, verdict);
        }
    }
}

impl TrueLife {
    /// What a loss of this process is called.
    fn named(
        &self,
        fact: Fact,
        why: Why,
        forker: Option<&TrueLife>,
        one_knote: bool,
        causes: bool,
    ) -> Verdict {
        let announced = match self.birth {
            // What kept kqueue from its birth kept it from its death.
            Some(birth) if birth.is_lost() => return birth,
            Some(_) => true,
            // Its death is a fact, and its birth is none: it was registered by itself.
            None if fact == Fact::Death && why == Why::Vanished => return Verdict::LostSilent,
            None => false,
        };
        let nothing_failed = one_knote && announced || causes && why != Why::Failed;
        match forker {
            Some(forker) if !nothing_failed && forker.has_reported(self) => Verdict::LostReported,
            Some(forker) if !announced && forker.leaves_untracked(why, causes) => {
                Verdict::LostInherited
            }
            _ => Verdict::LostSilent,
        }
    }

    /// Whether a child of it that was lost is lost by inheritance, or cannot be told from one.
    fn leaves_untracked(&self, why: Why, causes: bool) -> bool {
        let is_lost = |outcome: Option<Verdict>| outcome.is_some_and(Verdict::is_lost);
        match why {
            Why::Untracked => is_lost(self.birth) || is_lost(self.death) || self.half_tracked,
            Why::Failed | Why::PassedOver if causes => false,
            _ => is_lost(self.birth) || self.death == Some(Verdict::LostReported),
        }
    }

    /// Whether a NOTE_TRACKERR on its knote covers the birth of `child`: on DTrace's clock it came at most 50 ms before the
    /// create, and with the first call at the latest that began after a drain 50 ms behind the create.
    fn has_reported(&self, child: &TrueLife) -> bool {
        let Some(created) = child.created else { return false };
        let covers = |&(at, not_before): &(KernelTime, KernelTime)| {
            at.plus(COVERED_NS) >= created && not_before <= created.plus(COVERED_NS)
        };
        self.reports.iter().any(covers)
    }

    fn announced(&mut self, event: &Kevent, batch: u64, collided: bool) {
        let right = event.data == i64::from(self.forker.get());
        let outcome = match (right, collided) {
            (true, _) => Verdict::Agreed,
            (false, true) => Verdict::Overwritten,
            (false, false) => Verdict::Corrupt,
        };
        if self.child_batch.is_some() {
            self.duplicates += 1;
            self.further[0].push(outcome);
            return;
        }
        self.child_batch = Some(batch);
        self.birth.get_or_insert(outcome);
    }

    fn ended(&mut self, event: &Kevent, batch: u64, collided: bool) {
        let right = self.status.is_some_and(|s| event.data == i64::from(s.0));
        let ppid = event.data == i64::from(self.forker.get());
        let outcome = match (right, collided && ppid) {
            (true, _) => Verdict::Agreed,
            (false, true) => Verdict::Overwritten,
            (false, false) => Verdict::Corrupt,
        };
        if self.exit_batch.replace(batch).is_some() {
            self.further[1].push(outcome);
        }
        self.death.get_or_insert(outcome);
    }
}
