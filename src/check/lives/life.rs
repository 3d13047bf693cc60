//! One life of a pid: what both witnesses have reported of it, and what became of its two facts.

use super::table::Handle;
use super::trackerr::{TrackerrCover, TrackerrReports};
use crate::check::causes::KnoteFork;
use crate::check::finding::{Delivered, DtraceEvidence, KqueueEvidence};
use crate::check::judge::UNORDERED_NS;
use crate::model::{Fact, KernelTime, Kevent, Pid, TreeId, Verdict, WaitStatus, note};

/// What became of a fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum FactState {
    /// No witness has reported it as a fact of a tree.
    #[default]
    Unreported,
    /// A death that is none: kqueue was not asked to report it, and did not. (A birth that is none stays unreported.)
    NoFact,
    /// A witness has reported it; the other one's evidence may be on its way.
    Waiting,
    Decided(Verdict),
}

impl FactState {
    pub(crate) fn verdict(self) -> Option<Verdict> {
        match self {
            FactState::Decided(verdict) => Some(verdict),
            FactState::Unreported | FactState::NoFact | FactState::Waiting => None,
        }
    }

    pub(crate) fn is_decided(self) -> bool {
        self.verdict().is_some()
    }

    /// Whether nothing more is waited for.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, FactState::NoFact | FactState::Decided(_))
    }
}

/// A kevent about a life, and the call that delivered it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) flags: u32,
    pub(crate) fflags: u32,
    pub(crate) data: i64,
    /// The number of the call, and the descriptor of its kqueue.
    pub(crate) call: u64,
    pub(crate) queue: i32,
    /// When the call returned.
    pub(crate) at: KernelTime,
    /// The queue had been drained at this time, before the note was in it.
    pub(crate) not_before: KernelTime,
}

impl Note {
    /// Whether it carries any of these NOTE_* bits.
    pub(crate) fn has(&self, bits: u32) -> bool {
        self.fflags & bits != 0
    }

    /// NOTE_CHILD and NOTE_EXIT in one kevent.
    pub(crate) fn is_collision(&self) -> bool {
        self.has(note::CHILD) && self.has(note::EXIT)
    }
}

/// What a process is to kqueue's user while it is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// It is believed alive.
    Tracked,
    /// It is not known: its birth was lost.
    Lost,
}

/// A registration by kqueue's user: a call from `entered` to `at` made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub(crate) entered: KernelTime,
    pub(crate) at: KernelTime,
}

/// One incarnation of a pid. The fields that its tree's gauges depend on (`birth`, `death`, `exited`, `child_note`, `exit_note`,
/// `registered`) are written by `Lives::change`.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) pid: Pid,
    /// The tree that it belongs to, once that is known. Most processes belong to none.
    pub(crate) tree: Option<TreeId>,
    pub(crate) birth: FactState,
    pub(crate) death: FactState,

    /// DTrace's evidence.
    pub(crate) created: Option<KernelTime>,
    pub(crate) forker: Option<Pid>,
    pub(crate) exited: Option<KernelTime>,
    pub(crate) status: Option<WaitStatus>,

    /// kqueue's evidence: the kevents with NOTE_CHILD and with NOTE_EXIT, which may be one.
    pub(crate) child_note: Option<Note>,
    pub(crate) exit_note: Option<Note>,
    /// Registered by kqueue's user, not by the kernel: its birth is no fact.
    pub(crate) registered: Option<Registered>,
    /// The NOTE_* bits that its knote was asked for, by its registration or by that of its ancestor; 0 also if the kernel may
    /// not have followed it: then nothing of it needs to be reported. `None` if no registration was seen.
    pub(crate) asked: Option<u32>,
    /// When a consumer changed the registration.
    pub(crate) changed: Option<KernelTime>,
    /// What was asked for may not be delivered any more: a consumer has deleted or disabled its knote, or a one-shot event has
    /// used it up, or its kqueue was closed, or it is not certain which life of the pid the knote was about.
    pub(crate) muted: bool,
    /// A consumer has disabled a knote of it: EV_ADD does not enable it again.
    pub(crate) disabled: bool,
    /// When a consumer registered or changed its knote last, 0 if that was not seen: what it has to deliver may have been queued
    /// only then.
    pub(crate) knote_set: KernelTime,
    /// NOTE_TRACKERR about this process.
    pub(crate) trackerr: TrackerrReports,

    /// The forker's life, if it was known when this one was created; pinned until the birth is settled.
    pub(crate) forker_life: Option<Handle>,
    /// Whether a NOTE_TRACKERR on its forker's knote covers its birth: then its death will not be reported either.
    pub(crate) trackerr_cover: TrackerrCover,
    /// What the cause probes show of knote_fork for it.
    pub(crate) knote_fork: KnoteFork,
    /// The latest time at which this pid was certainly this life: what was missed since then may be another one.
    pub(crate) proven: KernelTime,
    /// No NOTE_CHILD of it can come any more: a further one is about another life.
    pub(crate) birth_over: bool,
    /// Its pid was used again before both facts of the older life had their verdicts: it is not certain which note is about which
    /// of the two. Set on both.
    pub(crate) shares_pid: bool,
    /// How many calls had been placed when it was created: for NOTE_TRACKERR.
    pub(crate) calls_at_create: u64,
}

impl Life {
    /// A life of `pid` of which nothing is known but that it was there at `proven`.
    pub(crate) fn new(pid: Pid, proven: KernelTime) -> Life {
        Life {
            pid,
            tree: None,
            birth: FactState::Unreported,
            death: FactState::Unreported,
            created: None,
            forker: None,
            exited: None,
            status: None,
            child_note: None,
            exit_note: None,
            registered: None,
            asked: None,
            changed: None,
            muted: false,
            disabled: false,
            knote_set: KernelTime(0),
            trackerr: TrackerrReports::default(),
            forker_life: None,
            trackerr_cover: TrackerrCover::No,
            knote_fork: KnoteFork::Unknown,
            proven,
            birth_over: false,
            shares_pid: false,
            calls_at_create: 0,
        }
    }

    pub(crate) fn state(&self, fact: Fact) -> FactState {
        match fact {
            Fact::Birth => self.birth,
            Fact::Death => self.death,
        }
    }

    pub(crate) fn state_mut(&mut self, fact: Fact) -> &mut FactState {
        match fact {
            Fact::Birth => &mut self.birth,
            Fact::Death => &mut self.death,
        }
    }

    /// Whether DTrace has reported this fact.
    pub(crate) fn has_record(&self, fact: Fact) -> bool {
        match fact {
            Fact::Birth => self.created.is_some(),
            Fact::Death => self.exited.is_some(),
        }
    }

    /// Whether kqueue ever reported anything of it, or was asked to watch it.
    pub(crate) fn is_known_to_kqueue(&self) -> bool {
        self.child_note.is_some() || self.exit_note.is_some() || self.registered.is_some()
    }

    /// Whether kqueue's user has it among its processes.
    pub(crate) fn is_tracked(&self) -> bool {
        self.child_note.is_some() || self.registered.is_some()
    }

    /// What it is to kqueue's user while it is alive, as far as that is known.
    pub(crate) fn presence(&self) -> Option<Presence> {
        if self.death.is_final() {
            return None;
        }
        if self.is_tracked() {
            return self.exit_note.is_none().then_some(Presence::Tracked);
        }
        let is_lost = self.birth.verdict().is_some_and(Verdict::is_lost);
        (is_lost && self.exited.is_none()).then_some(Presence::Lost)
    }

    /// Whether the data of this NOTE_CHILD is what DTrace reported of it.
    pub(crate) fn fits_birth(&self, note: &Note) -> bool {
        self.forker.is_some_and(|forker| i64::from(forker.get()) == note.data)
            || note.is_collision() && self.fits_death(note.data)
    }

    /// Whether its NOTE_CHILD may be about another life of the pid, and so its NOTE_EXIT: the data does not fit, and that may be
    /// no fault of the kernel.
    pub(crate) fn has_another_birth(&self) -> bool {
        let fits = |note: Note| self.created.is_none() || self.fits_birth(&note);
        self.birth.verdict() == Some(Verdict::Undecided) && !self.child_note.is_none_or(fits)
    }

    /// Whether the data of a NOTE_EXIT is what DTrace reported of it.
    pub(crate) fn fits_death(&self, data: i64) -> bool {
        self.status.is_some_and(|status| i64::from(status.0) == data)
    }

    /// Whether this exit is stamped before the create of this life: its CPU's clock is behind, or it was the exit of the life
    /// before, whose pid was used again at once.
    pub(crate) fn is_stamped_before_its_create(&self, exited: KernelTime) -> bool {
        self.created.is_some_and(|created| exited < created)
    }

    /// Whether a note about it may still come.
    pub(crate) fn is_open(&self) -> bool {
        let born = self.registered.is_some() || self.birth.is_final();
        !(born && self.death.is_final())
    }

    /// Whether a registration was changed so close to its exit that it is not known what was asked for then: before 13.2 the kernel
    /// queues NOTE_EXIT before proc:::exit fires.
    pub(crate) fn was_changed_at_its_end(&self) -> bool {
        let (Some(changed), Some(exited)) = (self.changed, self.exited) else { return false };
        changed.distance(exited) <= UNORDERED_NS
    }

    /// Whether DTrace's evidence allows that it ran at this time.
    pub(crate) fn may_run_at(&self, at: KernelTime) -> bool {
        self.exited.is_none_or(|exited| exited.plus(UNORDERED_NS) > at)
    }

    pub(crate) fn dtrace_evidence(&self) -> DtraceEvidence {
        DtraceEvidence {
            created: self.created,
            forker: self.forker,
            exited: self.exited,
            status: self.status,
        }
    }

    pub(crate) fn kqueue_evidence(&self) -> KqueueEvidence {
        let delivered = |note: Note| Delivered {
            event: Kevent {
                ident: self.pid.get().into(),
                flags: note.flags,
                fflags: note.fflags,
                data: note.data,
                udata: self.tree.map_or(0, TreeId::cookie),
            },
            batch: note.call,
            at: note.at,
        };
        KqueueEvidence {
            child: self.child_note.map(delivered),
            exit: self.exit_note.map(delivered),
            trackerr: self.trackerr_cover == TrackerrCover::Yes,
        }
    }
}
