//! Kernel paths: from the pattern that a finding shows to the code in the kernel that makes exactly this pattern.
//!
//! Line numbers are of FreeBSD 10.1, 10.4 and 13.2 `sys/kern/kern_event.c`. Pure: one table and one function.

use serde::Serialize;

use crate::check::finding::Finding;
use crate::model::{Fact, Regime, Verdict, named_enum};

named_enum! {
    /// How sure it is that this path was the one.
    pub enum Certainty {
        /// Nothing else in the kernel makes this pattern, or a probe saw it.
        Certain = "certain",
        /// Everything that was seen fits, and the other known paths do not.
        Likely = "likely",
        /// It fits; so does something else.
        Possible = "possible",
        /// No known path makes this pattern.
        Unknown = "unknown",
    }
}

/// A way through the kernel, and what it does to its consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct KernelPath {
    /// What happened, in one sentence.
    pub sentence: &'static str,
    /// The functions in which it happens; empty if the kernel has no part in it.
    pub function: &'static str,
    /// What it takes to happen.
    pub condition: &'static str,
    /// Where it happens.
    pub(crate) releases: &'static str,
    /// How sure it is that this was the path.
    pub sure: Certainty,
}

/// The path behind this finding.
pub fn path(finding: &Finding, regime: Regime) -> KernelPath {
    match (finding.verdict, finding.fact) {
        (Verdict::Agreed, _) => AGREED,
        (Verdict::Overwritten, Fact::Birth) => STATUS_OVER_PPID,
        (Verdict::Overwritten, Fact::Death) => PPID_OVER_STATUS,
        (Verdict::Corrupt, fact) => corrupt(fact, regime),
        (Verdict::LostReported, Fact::Birth) => not_registered(finding.clues.errno),
        (Verdict::LostReported, Fact::Death) => HALF_TRACKED,
        (Verdict::LostInherited, _) => INHERITED,
        (Verdict::LostSilent, _) => silent(finding, regime),
        (Verdict::KqueueOnly, _) => DTRACE_MISSED,
        (Verdict::Undecided, _) => BLIND,
    }
}

fn corrupt(fact: Fact, regime: Regime) -> KernelPath {
    match (fact, regime) {
        // The race is closed from 12.3 on, and no split kernel before that was seen to do anything else.
        (Fact::Death, Regime::Split) => KernelPath { sure: Certainty::Possible, ..STALE_STATUS },
        (Fact::Death, _) => STALE_STATUS,
        (Fact::Birth, _) => NO_PATH,
    }
}

fn not_registered(errno: Option<i32>) -> KernelPath {
    match errno {
        None => NO_MEMORY,
        Some(12) => KernelPath { sure: Certainty::Certain, ..NO_MEMORY },
        Some(3) => CHILD_GONE,
        Some(_) => KernelPath { sure: Certainty::Possible, ..NO_MEMORY },
    }
}

fn silent(finding: &Finding, regime: Regime) -> KernelPath {
    let clues = finding.clues;
    let had_a_knote = finding.kqueue.child.is_some() || clues.named_forker.is_some();
    match regime {
        _ if had_a_knote && clues.scanned_at_exit => {
            KernelPath { sure: Certainty::Likely, ..SCAN_MEETS_EXIT }
        }
        _ if had_a_knote => SCAN_MEETS_EXIT,
        // The probe sees the first knote of the list, which may be another kqueue's.
        _ if clues.influx => KernelPath { sure: Certainty::Likely, ..IN_FLUX },
        // Which of the three it was is not known: none leaves a trace.
        Regime::MergedStatus => OLD_SKIPS,
        _ => IN_FLUX,
    }
}

const AGREED: KernelPath = KernelPath {
    sentence: "Both witnesses report the same.",
    function: "",
    condition: "",
    releases: "all",
    sure: Certainty::Certain,
};

const STATUS_OVER_PPID: KernelPath = KernelPath {
    sentence: "The process ended before its NOTE_CHILD was read, and filt_proc stored the wait status in the knote \
               that still held the parent's pid (PR 180385).",
    function: "filt_proc (10.1 kern_event.c:436)",
    condition: "one knote a child, NOTE_TRACK and NOTE_EXIT in the same kqueue, and a reader that comes later than \
                the exit",
    releases: "FreeBSD 7.0 to 10.3; fixed by r295012 in 11.0 and by r297977 in 10.4",
    sure: Certainty::Certain,
};

const PPID_OVER_STATUS: KernelPath = KernelPath {
    sentence: "The process ended before its NOTE_CHILD was read, and the one kevent for both kept the parent's pid.",
    function: "filt_proc",
    condition: "one knote a child, and a filt_proc that leaves data alone on exit",
    releases: "no FreeBSD from 7.0 on; older NetBSD, OpenBSD and DragonFly",
    sure: Certainty::Certain,
};

const IN_FLUX: KernelPath = KernelPath {
    sentence: "knote_fork skipped the forker's knote, because another thread of the same process was forking at that \
               moment: the child and all below it are untracked.",
    function: "knote_fork (13.2 kern_event.c:547)",
    condition: "two threads of one process fork at the same time, so that the knote is in flux",
    releases: "all",
    sure: Certainty::Possible,
};

const OLD_SKIPS: KernelPath = KernelPath {
    sentence: "knote_fork skipped the forker's knote while it was in flux (another thread forked, or the reader was \
               scanning it), or an undelivered knote of the pid's last user was updated in place of a new one.",
    function: "knote_fork (10.1 kern_event.c:467), kqueue_register (10.1 kern_event.c:1060)",
    condition: "threads that fork at the same time, a busy reader, or a pid that is reused before it was read",
    releases: "the first: all; a busy reader: up to 10.4; pid reuse: up to 10.3",
    sure: Certainty::Possible,
};

const SCAN_MEETS_EXIT: KernelPath = KernelPath {
    sentence: "The process had a knote, and it was queued when the process ended; kevent(2) was just scanning it, \
               filt_proc then returned 0 because the process was gone already, and the scan threw the event away.",
    function: "kqueue_scan (f_event(kn, 0) == 0), filt_proc (p_proc == NULL returns 0)",
    condition: "a note of the process is queued, and kevent(2) waits for the process's lock while exit1 holds it",
    releases: "12.3 and later: a knote with NOTE_FORK, NOTE_EXEC or (merged) NOTE_CHILD pending can lose its \
               NOTE_EXIT; measured on 13.2 and 15.1, up to 4 of 16,000 exits beside NOTE_FORK, none of 128,008 without",
    sure: Certainty::Possible,
};

const NO_MEMORY: KernelPath = KernelPath {
    sentence: "The kernel had no memory for the child's knote and set NOTE_TRACKERR on the forker.",
    function: "kqueue_register, knote_alloc(M_NOWAIT) (13.2 kern_event.c:1510)",
    condition: "kernel memory is short; up to 10.4 also a child that is gone before it is registered",
    releases: "all",
    sure: Certainty::Likely,
};

const CHILD_GONE: KernelPath = KernelPath {
    sentence: "The child had ended before it could be registered, and NOTE_TRACKERR on the forker reported that one is \
               missing.",
    function: "filt_procattach, ESRCH (10.1 kern_event.c:348)",
    condition: "the child runs before knote_fork does",
    releases: "up to 10.4; from 12.3 on the child is not yet runnable",
    sure: Certainty::Certain,
};

const HALF_TRACKED: KernelPath = KernelPath {
    sentence: "The child's NOTE_CHILD knote was registered and its tracking knote was not (NOTE_TRACKERR on the \
               forker): announced, and no NOTE_EXIT can follow.",
    function: "knote_fork, second kqueue_register (13.2 kern_event.c:602)",
    condition: "kernel memory is short between the two registrations",
    releases: "10.4, 11.0 and later",
    sure: Certainty::Likely,
};

const INHERITED: KernelPath = KernelPath {
    sentence: "kqueue could not report it: the forker itself was not tracked, so its children are not either.",
    function: "knote_fork",
    condition: "an ancestor was lost before",
    releases: "all",
    sure: Certainty::Certain,
};

const STALE_STATUS: KernelPath = KernelPath {
    sentence: "The child was registered while it was ending, after P_WEXIT was set and before its status was: \
               NOTE_EXIT carries what p_xstat held before.",
    function: "filt_procattach, exit1 (10.1 kern_exit.c:243,253)",
    condition: "the child runs before knote_fork does, and ends within it",
    releases: "up to 10.4; from 12.3 on the status is set first",
    sure: Certainty::Likely,
};

const NO_PATH: KernelPath = KernelPath {
    sentence: "No path in the kernel is known that makes this pattern; keep the recording and report it.",
    function: "",
    condition: "",
    releases: "",
    sure: Certainty::Unknown,
};

const DTRACE_MISSED: KernelPath = KernelPath {
    sentence: "kqueue reported it and DTrace did not, without reporting a drop: the witness is at \
               fault, not the kernel's kqueue.",
    function: "",
    condition: "",
    releases: "",
    sure: Certainty::Likely,
};

const BLIND: KernelPath = KernelPath {
    sentence: "A witness was blind when it would have reported this: nothing is known of the kernel.",
    function: "",
    condition: "",
    releases: "",
    sure: Certainty::Unknown,
};

/// More than one NOTE_CHILD for one process: harmless to a tracker that ignores repeats, and no finding of its own.
pub(crate) const DUPLICATE_CHILD: KernelPath = KernelPath {
    sentence: "The child forked before its NOTE_CHILD was read: knote_fork took both of its knotes for trackers and \
               announced the grandchild twice, its child four times, and so on.",
    function: "filt_procattach keeps NOTE_TRACK in the NOTE_CHILD knote (13.2 kern_event.c:446), knote_fork (:555)",
    condition: "a chain of forks that is faster than the reader",
    releases: "12.3 and later (measured on 13.2 and 15.1); not 10.4",
    sure: Certainty::Certain,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::{Clues, Delivered, DtraceEvidence, KqueueEvidence};
    use crate::model::{KernelTime, Kevent, Pid, TreeId};

    fn finding(fact: Fact, verdict: Verdict) -> Finding {
        Finding {
            tree: TreeId(0),
            pid: Pid::new(7).expect("a pid"),
            consumer: None,
            fact,
            verdict,
            dtrace: DtraceEvidence::default(),
            kqueue: KqueueEvidence::default(),
            clues: Clues::default(),
            decided: KernelTime(1),
        }
    }

    #[test]
    fn every_pattern_has_a_path_that_says_where_and_how_sure() {
        for fact in [Fact::Birth, Fact::Death] {
            for &verdict in Verdict::ALL {
                for &regime in Regime::ALL {
                    let path = path(&finding(fact, verdict), regime);
                    assert!(path.sentence.ends_with('.'), "{verdict}");
                    let kernel = path.sure != Certainty::Unknown
                        && !matches!(verdict, Verdict::Agreed | Verdict::KqueueOnly);
                    assert_eq!(!path.function.is_empty(), kernel, "{fact:?} {verdict} {regime}");
                }
            }
        }
    }

    #[test]
    fn a_silent_loss_is_explained_by_what_else_is_known() {
        let lost = finding(Fact::Birth, Verdict::LostSilent);
        let with = |clues| path(&Finding { clues, ..lost }, Regime::Split);
        assert_eq!(with(Clues::default()).sure, Certainty::Possible);
        let seen = with(Clues { influx: true, ..Clues::default() });
        assert_eq!((seen.function, seen.sure), (IN_FLUX.function, Certainty::Likely));
        let named = Clues { named_forker: Some(KernelTime(1)), ..Clues::default() };
        assert_eq!(with(named), SCAN_MEETS_EXIT);
        assert_eq!(with(Clues { scanned_at_exit: true, ..named }).sure, Certainty::Likely);
        // It had a knote: another kqueue's must have been skipped.
        assert_eq!(with(Clues { influx: true, ..named }), SCAN_MEETS_EXIT);
    }

    #[test]
    fn an_announced_process_whose_end_is_missing_had_a_knote() {
        let mut lost = finding(Fact::Death, Verdict::LostSilent);
        let event = Kevent { ident: 7, flags: 0, fflags: 4, data: 1, udata: 0 };
        lost.kqueue.child = Some(Delivered { event, batch: 3, at: KernelTime(1) });
        assert_eq!(path(&lost, Regime::Split).function, SCAN_MEETS_EXIT.function);
    }

    #[test]
    fn an_errno_names_the_cause_of_a_reported_loss() {
        let lost = finding(Fact::Birth, Verdict::LostReported);
        let with = |errno| {
            let clues = Clues { errno, ..Clues::default() };
            path(&Finding { clues, ..lost }, Regime::Split)
        };
        assert_eq!((with(None).function, with(None).sure), (NO_MEMORY.function, Certainty::Likely));
        assert_eq!(with(Some(12)).sure, Certainty::Certain);
        assert_eq!(with(Some(3)).function, CHILD_GONE.function);
    }
}
