//! Pids, times, kevents, facts and verdicts: the plain types that are used everywhere. No IO, no clock, no thread.
//!
//! A life of a pid, from its fork to its exit, is called `incarnation` in what users read (metrics, documents), and `Life` in
//! `check/lives/`. It is the same.

mod named;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use named::{Named, named_enum};

/// A process id. FreeBSD never hands out one above [`Pid::MAX`] (13.2 `sys/proc.h:906`, `PID_MAX`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Pid(u32);

impl Pid {
    /// The highest pid that FreeBSD uses; `kern.pid_max` may only lower it.
    pub const MAX: u32 = 99_999;

    /// The pid with this number, or `None` if no FreeBSD process can have it.
    pub const fn new(number: u64) -> Option<Pid> {
        if number <= Pid::MAX as u64 { Some(Pid(number as u32)) } else { None }
    }

    /// The plain number, in `0..=Pid::MAX`.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for Pid {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Pid, &'static str> {
        Pid::new(number).ok_or("no pid of FreeBSD's")
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point on DTrace's `timestamp` clock: nanoseconds since an arbitrary origin, never stepped.
/// All verdicts live on this clock; nothing else is compared with it directly. 0 is before every record.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct KernelTime(pub u64);

impl KernelTime {
    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: KernelTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Nanoseconds between the two, whichever is earlier.
    pub const fn distance(self, other: KernelTime) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// Whether this clock or the host's wall clock (`walltimestamp`, nanoseconds since 1970) has jumped by more than `step_ns`
    /// between two readings of both. ntpd(8) keeps the wall clock right and nothing this one: they may drift apart by 1/1024,
    /// twice as fast as it slews.
    pub(crate) fn has_jumped(
        before: (KernelTime, u64),
        now: (KernelTime, u64),
        step_ns: u64,
    ) -> bool {
        let moved = |now: u64, before: u64| i128::from(now) - i128::from(before);
        let apart = moved(now.1, before.1) - moved(now.0.0, before.0.0);
        let drift = now.0.distance(before.0) >> 10;
        apart.unsigned_abs() > u128::from(step_ns.saturating_add(drift))
    }

    /// This point plus `ns` nanoseconds.
    pub const fn plus(self, ns: u64) -> KernelTime {
        KernelTime(self.0.saturating_add(ns))
    }

    /// This point minus `ns` nanoseconds, at the origin at the earliest.
    pub const fn minus(self, ns: u64) -> KernelTime {
        KernelTime(self.0.saturating_sub(ns))
    }
}

/// A point on the reading host's `CLOCK_MONOTONIC`, in nanoseconds. Userland's only clock: it says when something
/// was read, never when it happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// It is not known when that was: a stream comes from a file.
    pub(crate) const UNKNOWN: MonoTime = MonoTime(0);

    pub(crate) fn is_known(self) -> bool {
        self != MonoTime::UNKNOWN
    }
}

/// A wait(2) status word as NOTE_EXIT carries it: `(exit & 0xff) << 8 | signal` (13.2 `sys/wait.h:150`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct WaitStatus(pub u32);

impl fmt::Display for WaitStatus {
    /// As a person says it: `exit 127`, `signal 9`, `signal 11, core dumped`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 & 0x7f {
            0 => write!(f, "exit {}", (self.0 >> 8) & 0xff),
            signal if self.0 & 0x80 != 0 => write!(f, "signal {signal}, core dumped"),
            signal => write!(f, "signal {signal}"),
        }
    }
}

named_enum! {
    /// One of the two sources of evidence, which reports facts or misses them.
    pub(crate) enum Witness {
        /// EVFILT_PROC events from kevent(2): what is checked.
        Kqueue = "kqueue",
        /// The proc provider's probes: what it is checked against, outside of DTrace's blind windows.
        Dtrace = "dtrace",
    }
}

named_enum! {
    /// The two facts of an incarnation (one life of a pid).
    pub enum Fact {
        /// Which process forked it.
        Birth = "birth",
        /// With which wait(2) status it ended.
        Death = "death",
    }
}

named_enum! {
    /// What became of a fact. Every fact that either witness reported ends in exactly one.
    pub enum Verdict {
        /// Both witnesses report the same.
        Agreed = "agreed",
        /// One kevent carried NOTE_CHILD and NOTE_EXIT, and the other one's data won (PR 180385).
        Overwritten = "overwritten",
        /// The note came alone, and its data is neither the forker's pid nor the wait status.
        Corrupt = "corrupt",
        /// The note never came, and NOTE_TRACKERR reported that.
        LostReported = "lost_reported",
        /// The note never came, and nothing reported that.
        LostSilent = "lost_silent",
        /// The note could not come: an ancestor had been lost before. The death of a process that was lost itself is lost in
        /// the same way as its birth: one loss, one word for it.
        LostInherited = "lost_inherited",
        /// kqueue reported it, DTrace did not, and DTrace was not blind.
        KqueueOnly = "kqueue_only",
        /// A witness was blind at the time, or the evidence allows more than one answer.
        Undecided = "undecided",
    }
}

named_enum! {
    /// What a verdict means to someone who wants to know whether tracking works.
    pub enum VerdictClass {
        /// kqueue reported the fact as it was.
        Good = "good",
        /// kqueue reported it with wrong data.
        Wrong = "wrong",
        /// kqueue never reported it: its consumer does not know the fact at all. The names of these verdicts begin with
        /// `lost_`.
        Lost = "lost",
        /// Nothing can be held against the kernel, nor is it known to be right.
        Open = "open",
    }
}

impl Verdict {
    /// What it means, among the others.
    pub const fn class(self) -> VerdictClass {
        match self {
            Verdict::Agreed => VerdictClass::Good,
            Verdict::Overwritten | Verdict::Corrupt => VerdictClass::Wrong,
            Verdict::LostReported | Verdict::LostSilent | Verdict::LostInherited => {
                VerdictClass::Lost
            }
            Verdict::KqueueOnly | Verdict::Undecided => VerdictClass::Open,
        }
    }

    /// kqueue reported the fact as it was: there is nothing to tell of it.
    pub const fn is_good(self) -> bool {
        matches!(self.class(), VerdictClass::Good)
    }

    /// kqueue never reported the fact.
    pub const fn is_lost(self) -> bool {
        matches!(self.class(), VerdictClass::Lost)
    }

    /// Whether other evidence about the process may show why kqueue never reported the fact. The reason of an inherited loss is
    /// the loss of the forker.
    pub(crate) const fn needs_clues(self) -> bool {
        match self {
            Verdict::LostReported | Verdict::LostSilent => true,
            Verdict::Agreed
            | Verdict::Overwritten
            | Verdict::Corrupt
            | Verdict::LostInherited
            | Verdict::KqueueOnly
            | Verdict::Undecided => false,
        }
    }
}

named_enum! {
    /// Which value a kevent with both NOTE_CHILD and NOTE_EXIT carried in `data`.
    pub enum Winner {
        /// The wait status; the parent's pid is gone (FreeBSD 7.0 to 10.3).
        Status = "status",
        /// The parent's pid; the wait status is gone.
        Ppid = "ppid",
        /// Neither, or DTrace did not see what they are.
        Other = "other",
    }
}

named_enum! {
    /// How this kernel delivers NOTE_CHILD and NOTE_EXIT, as its kevents show it.
    #[derive(Default)]
    pub enum Regime {
        /// Nothing has been seen that tells.
        #[default]
        Unknown = "unknown",
        /// Two knotes a child: no collision (FreeBSD 10.4, 11.0 and later; NetBSD).
        Split = "split",
        /// One knote a child, the wait status wins (FreeBSD 7.0 to 10.3; OpenBSD and DragonFly now).
        MergedStatus = "merged-status",
        /// One knote a child, the parent's pid wins (older NetBSD, OpenBSD and DragonFly).
        MergedPpid = "merged-ppid",
    }
}

impl Regime {
    /// One knote carries both notes of a child: they collide as soon as the reader is late.
    pub(crate) const fn is_merged(self) -> bool {
        matches!(self, Regime::MergedStatus | Regime::MergedPpid)
    }
}

named_enum! {
    /// What the processes of a load do, really forked or simulated.
    pub enum Shape {
        /// Each exits at once, with a status that names it.
        Exit = "exit",
        /// Each fails to exec and exits 127: the load of PR 180385.
        Enoent = "enoent",
        /// Each runs /usr/bin/true.
        Exec = "exec",
        /// Each kills itself with SIGKILL.
        Signal = "signal",
        /// Each forks the next, `depth` deep, and waits for it.
        Chain = "chain",
        /// Each forks another, which outlives it as a daemon does: the double fork.
        Orphan = "orphan",
        /// vfork(2) with exec, every other one of a program that does not exist.
        Vfork = "vfork",
        /// As exit, from several threads at once.
        Threads = "threads",
        /// As enoent, in bursts of which all are alive at once.
        Parallel = "parallel",
        /// Exit, enoent, exec and signal in turn.
        Mix = "mix",
        /// As enoent, meant for a lowered kern.pid_max: every pid is soon used again.
        Pidreuse = "pidreuse",
        /// Each vforks a child that exits at once, spins for a varying short time and exits: a tracker that asks for
        /// NOTE_FORK or NOTE_EXEC loses some of these exits.
        Forkexit = "forkexit",
    }
}

/// Values of kevent.filter (13.2 `sys/event.h`).
pub mod filter {
    /// EVFILT_PROC.
    pub(crate) const PROC: i16 = -5;
}

/// Bits of kevent.flags and kevent.fflags for EVFILT_PROC, with FreeBSD's values (13.2 `sys/event.h`), so that
/// recordings mean the same on every host.
pub mod note {
    /// fflags: follow the process across fork.
    pub const TRACK: u32 = 0x0000_0001;
    /// fflags: at least one child of this process could not be tracked.
    pub const TRACKERR: u32 = 0x0000_0002;
    /// fflags: a new tracked process; data is its forker's pid.
    pub const CHILD: u32 = 0x0000_0004;
    /// fflags: the process called exec.
    pub const EXEC: u32 = 0x2000_0000;
    /// fflags: the process forked, once or more.
    pub const FORK: u32 = 0x4000_0000;
    /// fflags: the process ended; data is its wait(2) status.
    pub const EXIT: u32 = 0x8000_0000;
    /// flags: make a knote, or change the one that is there.
    pub const EV_ADD: u32 = 0x0001;
    /// flags: free the knote.
    pub const EV_DELETE: u32 = 0x0002;
    /// flags: report events again.
    pub const EV_ENABLE: u32 = 0x0004;
    /// flags: report no events until EV_ENABLE.
    pub const EV_DISABLE: u32 = 0x0008;
    /// flags: the knote is freed once it has been read.
    pub const EV_ONESHOT: u32 = 0x0010;
    /// flags: the note's state is cleared once it has been read.
    pub const EV_CLEAR: u32 = 0x0020;
    /// flags: tell what became of the change, even if it succeeded.
    pub const EV_RECEIPT: u32 = 0x0040;
    /// flags: disable the knote once it has been read.
    pub const EV_DISPATCH: u32 = 0x0080;
    /// flags: the change of this slot failed; data is the errno.
    pub const EV_ERROR: u32 = 0x4000;
    /// flags: the process is gone, on some kernels; never read it as NOTE_EXIT.
    pub const EV_EOF: u32 = 0x8000;

    /// The names of the bits in `fflags`, joined by `|`, unknown ones in hexadecimal.
    pub fn names(fflags: u32) -> String {
        const NAMES: [(u32, &str); 6] = [
            (CHILD, "NOTE_CHILD"),
            (FORK, "NOTE_FORK"),
            (EXEC, "NOTE_EXEC"),
            (EXIT, "NOTE_EXIT"),
            (TRACKERR, "NOTE_TRACKERR"),
            (TRACK, "NOTE_TRACK"),
        ];
        let mut words: Vec<String> =
            NAMES.iter().filter(|(bit, _)| fflags & bit != 0).map(|(_, n)| n.to_string()).collect();
        let rest = NAMES.iter().fold(fflags, |left, (bit, _)| left & !bit);
        if rest != 0 || words.is_empty() {
            words.push(format!("{rest:#x}"));
        }
        words.join("|")
    }
}

/// One event as kevent(2) returned it for EVFILT_PROC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kevent {
    /// The process that the event is about.
    pub ident: u64,
    /// EV_* bits.
    pub flags: u32,
    /// NOTE_* bits, see [`note`].
    pub fflags: u32,
    /// The forker's pid with NOTE_CHILD, the wait status with NOTE_EXIT, the loser's loss with both.
    pub data: i64,
    /// The cookie of the registration, inherited by every descendant: see [`TreeId::cookie`].
    pub udata: u64,
}

impl Kevent {
    /// Whether it tells what became of a change (EV_RECEIPT, or a change that failed): `fflags` is what was asked for and
    /// `data` the errno, 0 if it succeeded (13.2 `kern_event.c:1377`). It is no event of the process.
    pub(crate) const fn is_receipt(&self) -> bool {
        self.flags & note::EV_ERROR != 0
    }
}

/// A tracked tree: the number of its name in the order of declaration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct TreeId(pub u16);

impl TreeId {
    const COOKIE: u64 = 0x6b71_0000;

    /// The kevent.udata that marks every event of this tree.
    pub const fn cookie(self) -> u64 {
        Self::COOKIE | self.0 as u64
    }

    /// The tree whose cookie this is.
    pub(crate) const fn from_cookie(udata: u64) -> Option<TreeId> {
        if udata & !0xffff == Self::COOKIE { Some(TreeId(udata as u16)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_reads_as_a_person_says_it() {
        assert_eq!(WaitStatus(32512).to_string(), "exit 127");
        assert_eq!(WaitStatus(9).to_string(), "signal 9");
        assert_eq!(WaitStatus(0x8b).to_string(), "signal 11, core dumped");
    }

    /// Alerts, dashboards and scripts find losses by their names.
    #[test]
    fn the_names_of_losses_alone_begin_with_lost() {
        for verdict in Verdict::ALL {
            assert_eq!(verdict.as_str().starts_with("lost_"), verdict.is_lost(), "{verdict}");
        }
    }

    #[test]
    fn notes_are_named() {
        assert_eq!(note::names(0x8000_0004), "NOTE_CHILD|NOTE_EXIT");
        assert_eq!(note::names(0x0100_0004), "NOTE_CHILD|0x1000000");
        assert_eq!(note::names(0), "0x0");
    }

    #[test]
    fn a_cookie_names_its_tree_and_nothing_else_does() {
        assert_eq!(TreeId::from_cookie(TreeId(7).cookie()), Some(TreeId(7)));
        assert_eq!(TreeId::from_cookie(0), None);
        assert_eq!(Pid::new(100_000), None);
    }
}
