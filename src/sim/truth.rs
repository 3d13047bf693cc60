//! What really happened: the oracle that verdicts are held against.

use std::collections::VecDeque;

use crate::model::{Fact, KernelTime, Kevent, Pid, Verdict, WaitStatus, note, words};

/// The number of a process of the tree, in the order of forking. The root is 0.
pub(crate) type LifeId = u64;

words! {
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
pub(crate) struct Life {
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
    /// When the reader last got NOTE_TRACKERR about it.
    trackerr_at: Option<u64>,
    /// What kqueue was asked to report of it: nothing else is a fact.
    pub(super) asked: u32,
    /// It was announced, but the knote that would have followed it found no memory.
    half_tracked: bool,
    /// It was registered, but the knote of an earlier life of its pid was there: nothing watches it.
    pub(super) unwatched: bool,
    /// When DTrace showed the calls that returned its NOTE_CHILD and its NOTE_EXIT, of a consumer, to return.
    shown: [Option<u64>; 2],
}

impl Life {
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
    /// When a knote of the forker first failed to register the child.
    pub(super) missed_at: Option<u64>,
    pub(super) child_noted: bool,
    pub(super) exit_noted: bool,
    /// A knote to follow it found no memory.
    pub(super) not_followed: bool,
}

/// Why a note will not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// A knote of the forker did not register the child: if nothing says so and the forker's birth was lost too, nobody can tell
    /// this from an inherited loss.
    Missed,
    /// The forker had no knote that tracks: if its birth or its death was lost, the loss is inherited.
    Untracked,
    /// The note was queued and is gone: if the forker's birth was lost, no evidence can tell this from an inherited loss.
    Vanished,
}

/// A note that will not come; whether anything says so shows when the queue has been drained.
#[derive(Clone, Copy, Debug)]
struct Loss {
    life: LifeId,
    fact: Fact,
    forker: LifeId,
    at: u64,
    why: Why,
}

/// The log of the truth.
#[derive(Clone, Debug)]
pub struct Truth {
    lives: VecDeque<Life>,
    /// How many lives were forgotten at the front.
    forgotten: LifeId,
    keep: usize,
    losses: Vec<Loss>,
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
            faults: vec![],
            blind: vec![],
            collisions: 0,
            trackerr_reports: 0,
            most_knotes: 0,
            consumers: vec![],
        }
    }

    /// The lives, in the order of forking.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &Life> {
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
        self.lives.push_back(Life {
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
            trackerr_at: None,
            asked: if asked & note::TRACK != 0 { asked } else { 0 },
            half_tracked: false,
            unwatched: false,
            shown: [None; 2],
        });
        self.forgotten + self.lives.len() as u64 - 1
    }

    pub(super) fn life(&mut self, id: LifeId) -> Option<&mut Life> {
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
        let (owed, at) = (child.asked, followed.missed_at.unwrap_or(now));
        if owed & note::TRACK != 0 && !followed.child_noted {
            self.lost(life, Fact::Birth, forker, followed.tracked, at);
        }
        if owed & note::EXIT != 0 && !followed.exit_noted {
            self.lost(life, Fact::Death, forker, followed.tracked, at);
        }
    }

    /// A note that will not come, because of what happened at `at` in the forker's knote_fork; `tracked` says whether
    /// the forker had a knote that tracks.
    fn lost(&mut self, life: LifeId, fact: Fact, forker: LifeId, tracked: bool, at: u64) {
        let reported = self.life(forker).is_some_and(|f| f.trackerr_at >= Some(at));
        let why = if tracked { Why::Missed } else { Why::Untracked };
        self.losses.push(Loss { life, fact, forker, at, why });
        if reported {
            self.settle_losses(Verdict::LostReported, |loss| loss.life == life);
        }
    }

    /// The kqueues that were asked are gone, and what they had not reported yet: nothing of it is a fact any more.
    pub(super) fn forget(&mut self) {
        self.losses.clear();
        self.lives.iter_mut().for_each(|life| life.asked = 0);
    }

    /// What the whole kernel knows of the lives, and of DTrace, besides what was reported of them here.
    pub(super) fn complete(&mut self, whole: &Truth) {
        for (mine, life) in self.lives.iter_mut().zip(&whole.lives) {
            *mine = Life {
                birth: mine.birth,
                death: mine.death,
                further: std::mem::take(&mut mine.further),
                child_batch: mine.shown[0],
                exit_batch: mine.shown[1],
                duplicates: mine.duplicates,
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
    pub(super) fn vanished(&mut self, id: LifeId, notes: u32, at: u64) {
        let lost = [(note::CHILD, Fact::Birth), (note::EXIT, Fact::Death)];
        let lost = lost.into_iter().filter(|(bit, _)| notes & bit != 0).map(|(_, fact)| fact);
        let forker = self.life(id).and_then(|life| life.forker_life);
        match forker.filter(|_| notes & note::CHILD != 0) {
            Some(forker) => self.losses.extend(lost.map(|fact| Loss {
                life: id,
                fact,
                forker,
                at,
                why: Why::Vanished,
            })),
            None => lost.for_each(|fact| self.settle(id, fact, Verdict::LostSilent)),
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
    pub(super) fn delivered(&mut self, id: LifeId, event: &Kevent, batch: u64, now: u64) {
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
            if let Some(life) = self.life(id) {
                life.trackerr_at = Some(now);
            }
            let of_this_forker = |loss: &Loss| loss.why != Why::Vanished && loss.forker == id;
            self.settle_losses(Verdict::LostReported, of_this_forker);
        }
    }

    /// A kevent(2) call that began at `entered` returned, and took all there was.
    pub(super) fn drained(&mut self, entered: u64) {
        self.settle_losses(Verdict::LostSilent, |loss| loss.at < entered);
    }

    fn settle_losses(&mut self, outcome: Verdict, now: impl Fn(&Loss) -> bool) {
        let losses = std::mem::take(&mut self.losses);
        for loss in losses {
            let forker = self.life(loss.forker).map(|f| (f.birth, f.death));
            let half_tracked = self.life(loss.forker).is_some_and(|f| f.half_tracked);
            let is_root = self.life(loss.forker).is_some_and(|f| f.forker_life.is_none());
            let is_lost = |outcome: Option<Verdict>| outcome.is_some_and(Verdict::is_lost);
            let nothing_said = outcome == Verdict::LostSilent;
            match (now(&loss), loss.why, forker) {
                (true, Why::Untracked | Why::Vanished, Some((birth, _))) if is_lost(birth) => {
                    self.settle(loss.life, loss.fact, Verdict::LostInherited);
                }
                (true, Why::Untracked, Some((_, death))) if is_lost(death) || half_tracked => {
                    self.settle(loss.life, loss.fact, Verdict::LostInherited);
                }
                (true, Why::Missed, Some((birth, _))) if is_lost(birth) && nothing_said => {
                    self.settle(loss.life, loss.fact, Verdict::LostInherited);
                }
                // The forker's own birth is not settled yet.
                (true, why, Some((None, _)))
                    if !is_root && (why != Why::Missed || nothing_said) =>
                {
                    self.losses.push(loss);
                }
                (false, ..) => self.losses.push(loss),
                (true, ..) => self.settle(loss.life, loss.fact, outcome),
            }
        }
    }
}

impl Life {
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
