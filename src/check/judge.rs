//! Stage 4: the verdict on a fact from its evidence, by pure functions. `Lives::judge` calls them, once for each fact:
//! as soon as both witnesses have reported it, or when the other one's evidence can no longer be on its way.

use super::causes::KnoteFork;
use super::lives::life::{Life, Note};
use super::lives::trackerr::TrackerrCover;
use super::sight::Sight;
use crate::model::{KernelTime, Pid, Regime, Verdict, Winner, Witness};

/// Two records with time stamps closer than this may have happened in either order. The clocks of two CPUs may be milliseconds
/// apart (the kernel does not measure the skew in a virtual machine: 12.3 `dtrace_subr.c`, `dtrace_gethrtime_init`), and on
/// 10.4 and older a child may run, and end, before proc:::create fires.
pub(crate) const UNORDERED_NS: u64 = 50_000_000;

/// What a verdict depends on besides the evidence for the fact.
pub(crate) struct Circumstances<'a> {
    /// What the witnesses may have missed.
    pub(crate) sight: &'a Sight,
    /// In whose stream kqueue's notes are: a consumer's are in DTrace's.
    pub(crate) notes_in: Witness,
    /// Lives of no tree that DTrace saw up to then have been forgotten for want of room.
    pub(crate) strangers_forgotten_up_to: Option<KernelTime>,
    /// How long a note may be on its way inside the kernel.
    pub(crate) settle_ns: u64,
    /// How long a note, or DTrace's record, may be on its way on this host: `settle_ns`, or more if its threads were held up.
    pub(crate) patience_ns: u64,
    /// When the first process was registered: no note is about a life that ended before. The beginning of time if none was.
    pub(crate) first_registration: KernelTime,
    /// All lives of before this time may have been forgotten: a kqueue was found or closed then, or another process took the
    /// consumer's place.
    pub(crate) forgot_all_at: Option<KernelTime>,
    /// How the kernel delivers the two notes, as far as it is known.
    pub(crate) regime: Regime,
    /// How far the timeline has come.
    pub(crate) now: KernelTime,
}

/// The birth of `life`, forked by `forker` as far as that is known.
pub(crate) fn birth(life: &Life, forker: Option<&Life>, given: &Circumstances<'_>) -> Verdict {
    if life.shares_pid {
        return Verdict::Undecided;
    }
    match (life.created, life.child_note) {
        (Some(created), Some(note)) => birth_with_note(life, created, &note, given),
        (Some(created), None) => birth_without_note(life, created, forker, given),
        (None, Some(note)) => {
            // Created after the last drain that did not deliver the note.
            given.kqueue_only(note.not_before, &note)
        }
        // A fact has at least one of them.
        (None, None) => Verdict::Undecided,
    }
}

/// A create and its NOTE_CHILD, whose data must be the forker's pid.
fn birth_with_note(
    life: &Life,
    created: KernelTime,
    note: &Note,
    given: &Circumstances<'_>,
) -> Verdict {
    // It may be about a life that DTrace missed since the drain before.
    let drained = note.not_before.max(given.first_registration);
    let (from, to) = (created.min(note.at).min(drained), created.max(note.at));
    if is_pid(life.forker, note) {
        return given.agreed(from, to);
    }
    let has_its_status = note.is_collision()
        && life.fits_death(note.data)
        && !given.sight.pids_came_round_unseen(from, to);
    if !has_its_status && (given.may_be_another_life(from, to) || given.may_be_old(note)) {
        Verdict::Undecided
    } else if note.is_collision() {
        Verdict::Overwritten
    } else {
        Verdict::Corrupt
    }
}

/// A create without NOTE_CHILD, although the queue was drained after it.
fn birth_without_note(
    life: &Life,
    created: KernelTime,
    forker: Option<&Life>,
    given: &Circumstances<'_>,
) -> Verdict {
    if given.may_lack_note(created) || given.sight.pids_came_round_unseen(created, given.now) {
        return Verdict::Undecided;
    }
    let Some(forker) = forker else {
        // Its NOTE_EXIT alone shows that it was tracked, if that is about no other life of the pid.
        let death_is_certain = life.death.verdict().is_some_and(|it| it != Verdict::Undecided);
        let is_another = |exit: Note| given.may_be_another_life(created, exit.at);
        let is_its_own = death_is_certain && !life.exit_note.is_some_and(is_another);
        return if is_its_own { Verdict::LostSilent } else { Verdict::Undecided };
    };
    let before_registered =
        forker.registered.is_some_and(|registered| created <= registered.at.plus(UNORDERED_NS));
    if before_registered || !surely_forked(forker, created, given) {
        return Verdict::Undecided;
    }
    let forker_lost = forker.birth.verdict().is_some_and(Verdict::is_lost);
    // The forker's knote was there.
    let forker_followed = matches!(life.knote_fork, KnoteFork::Failed(_) | KnoteFork::PassedOver);
    match life.trackerr_cover {
        TrackerrCover::Yes => Verdict::LostReported,
        TrackerrCover::Unclear => Verdict::Undecided,
        TrackerrCover::No if forker_followed => Verdict::LostSilent,
        TrackerrCover::No if forker_lost || is_half_tracked(forker, given.regime) => {
            Verdict::LostInherited
        }
        TrackerrCover::No if forker.is_tracked() => Verdict::LostSilent,
        TrackerrCover::No => Verdict::Undecided,
    }
}

/// Whether this life of the pid has forked at `created`, and none that DTrace missed.
fn surely_forked(forker: &Life, created: KernelTime, given: &Circumstances<'_>) -> bool {
    forker.proven >= created || !given.sight.missed(Witness::Dtrace, forker.proven, created)
}

/// Whether kqueue does not follow this process although it has announced it: on a split kernel a child has two knotes, and
/// there was no memory for the other one. Nothing has come from that one since: no note of a child has shown it alive after
/// its birth, nor has NOTE_EXIT come.
fn is_half_tracked(life: &Life, regime: Regime) -> bool {
    regime == Regime::Split
        && life.trackerr_cover != TrackerrCover::No
        && life.exit_note.is_none()
        && life.created.is_some_and(|created| life.proven <= created)
}

/// The death of `life`.
pub(crate) fn death(life: &Life, given: &Circumstances<'_>) -> Verdict {
    if life.shares_pid {
        return Verdict::Undecided;
    }
    match (life.exited, life.exit_note) {
        (Some(exited), Some(note)) => death_with_note(life, exited, &note, given),
        (Some(exited), None) => death_without_note(life, exited, given),
        // A consumer may register a process that has ended, and whose exit was forgotten.
        (None, Some(_))
            if given.notes_in == Witness::Dtrace
                && life.registered.is_some()
                && life.created.is_none() =>
        {
            Verdict::Undecided
        }
        (None, Some(note)) => {
            // It ended at the earliest the settle time before the last drain that did not bring the note.
            let from = note.not_before.minus(given.patience_ns);
            let created = life.created.unwrap_or_default();
            // A disabled knote keeps its notes until it is enabled.
            let from = if life.changed.is_some() { created } else { from.max(created) };
            given.kqueue_only(from, &note)
        }
        // Its pid was created again, and neither witness reported its end.
        (None, None) => Verdict::Undecided,
    }
}

/// An exit and its NOTE_EXIT, whose data must be the wait status.
fn death_with_note(
    life: &Life,
    exited: KernelTime,
    note: &Note,
    given: &Circumstances<'_>,
) -> Verdict {
    let drained = note.not_before.max(given.first_registration);
    if life.fits_death(note.data) {
        let (from, to) = (exited.min(note.at).min(drained), exited.max(note.at));
        let is_old = given.may_be_old(note) && given.sight.pids_came_round(note.not_before, exited);
        let is_another = is_old || life.has_another_birth();
        return if is_another { Verdict::Undecided } else { given.agreed(from, to) };
    }
    // It may be about another life, if one was missed since this one is proven.
    let from = life.proven.min(exited).min(drained);
    let other_life = given.may_be_another_life(from, exited.max(note.at));
    if other_life || given.may_be_old(note) || life.is_stamped_before_its_create(exited) {
        return Verdict::Undecided;
    }
    let ppid_won = match life.forker {
        Some(_) => is_pid(life.forker, note),
        None => (1..=i64::from(Pid::MAX)).contains(&note.data),
    };
    if note.is_collision() && ppid_won { Verdict::Overwritten } else { Verdict::Corrupt }
}

/// An exit without NOTE_EXIT, although the queue was drained the settle time after it.
fn death_without_note(life: &Life, exited: KernelTime, given: &Circumstances<'_>) -> Verdict {
    // Without its create it is not known whether NOTE_TRACKERR was about it.
    let create_missing = life.child_note.is_some() && life.created.is_none();
    // A consumer may have changed its registration while DTrace was blind.
    let change_missed = given.notes_in == Witness::Dtrace
        && given.sight.missed(Witness::Dtrace, life.proven.min(exited), exited);
    let other_life = given.sight.pids_came_round_unseen(life.proven.min(exited), given.now)
        || life.is_stamped_before_its_create(exited);
    if given.may_lack_note(exited) || create_missing || change_missed || other_life {
        return Verdict::Undecided;
    }
    if life.is_tracked() {
        return match life.trackerr_cover {
            TrackerrCover::No => Verdict::LostSilent,
            TrackerrCover::Yes => Verdict::LostReported,
            TrackerrCover::Unclear => Verdict::Undecided,
        };
    }
    // What kept kqueue from its birth kept it from its death.
    life.birth.verdict().filter(|verdict| verdict.is_lost()).unwrap_or(Verdict::Undecided)
}

impl Circumstances<'_> {
    /// A note and a record that are alike, if they are about one life.
    fn agreed(&self, from: KernelTime, to: KernelTime) -> Verdict {
        if self.sight.pids_came_round_unseen(from, to) {
            Verdict::Undecided
        } else {
            Verdict::Agreed
        }
    }

    /// A note that DTrace has not confirmed in time, of a fact that happened at `from` or later.
    fn kqueue_only(&self, from: KernelTime, note: &Note) -> Verdict {
        let (from, to) = (from.minus(UNORDERED_NS), note.at.plus(self.patience_ns));
        let blind = self.sight.missed(Witness::Dtrace, from, to);
        let forgotten = self.may_be_forgotten(from) || self.may_be_old(note);
        if blind || forgotten { Verdict::Undecided } else { Verdict::KqueueOnly }
    }

    /// Whether a note between these times may be about a life that a witness missed: kqueue's notes about the life before may
    /// have come the settle time earlier.
    fn may_be_another_life(&self, from: KernelTime, to: KernelTime) -> bool {
        self.sight.missed(Witness::Dtrace, from, to)
            || self.sight.missed(self.notes_in, from.minus(self.settle_ns), to)
            || self.may_be_forgotten(from)
    }

    /// Whether a note may be about a life that has been forgotten: its queue may hold it since long ago.
    fn may_be_old(&self, note: &Note) -> bool {
        self.forgot_all_at.is_some_and(|forgot| note.not_before < forgot.plus(UNORDERED_NS))
    }

    /// Whether a life since then may have been forgotten.
    fn may_be_forgotten(&self, from: KernelTime) -> bool {
        self.strangers_forgotten_up_to.is_some_and(|forgotten| from <= forgotten)
    }

    /// Whether a missing note for a fact of this time does not show a loss: DTrace was blind then, or kqueue's notes since then are
    /// incomplete. The note may have been queued a while before the probe fired.
    fn may_lack_note(&self, fact: KernelTime) -> bool {
        self.sight.missed(Witness::Dtrace, fact, fact)
            || self.sight.missed(self.notes_in, fact.minus(self.settle_ns), self.now)
    }
}

fn is_pid(pid: Option<Pid>, note: &Note) -> bool {
    pid.is_some_and(|pid| i64::from(pid.get()) == note.data)
}

/// Whose data a kevent with both notes carries.
pub(crate) fn winner(life: &Life) -> Winner {
    match life.exit_note {
        Some(note) if life.fits_death(note.data) => Winner::Status,
        Some(note) if is_pid(life.forker, &note) => Winner::Ppid,
        Some(_) | None => Winner::Other,
    }
}

/// What a collision shows of the kernel.
pub(crate) fn regime_of(winner: Winner) -> Option<Regime> {
    match winner {
        Winner::Status => Some(Regime::MergedStatus),
        Winner::Ppid => Some(Regime::MergedPpid),
        Winner::Other => None,
    }
}
