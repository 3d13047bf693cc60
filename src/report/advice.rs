//! Whether a tracker can trust this kernel, and what it can do if not.

use super::answer::{Answer, Tally, totals};
use super::format::count_of;
use crate::check::stats::{Stats, TreeStats};
use crate::model::{Fact, Regime, Verdict};

/// One sentence for whoever writes or runs a tracker. `expected` is what the kernel's version promises.
pub(super) fn advice(stats: &Stats, answer: Answer, expected: Regime) -> String {
    match answer {
        Answer::Sound => sound(stats, expected),
        Answer::Unsound => unsound(stats, expected),
        Answer::Undecided => undecided(stats),
    }
}

fn sound(stats: &Stats, expected: Regime) -> String {
    if let Some(regression) = regression(stats.regime, expected) {
        return format!(
            "Nothing went wrong under this load, but do not trust this kernel: {regression}."
        );
    }
    let condition = match totals(stats).duplicate_child_notes {
        0 => "",
        _ => ", if it ignores repeated NOTE_CHILD notes",
    };
    match stats.regime {
        Regime::MergedStatus | Regime::MergedPpid => format!(
            "Nothing went wrong under this load, but do not trust this kernel: it puts NOTE_CHILD and NOTE_EXIT into \
             one kevent as soon as the reader is late (try --stall 50ms); {TWO_KQUEUES}; {UPGRADE}."
        ),
        Regime::Split if expected == Regime::MergedStatus => format!(
            "A tracker can trust this kernel under this load{condition}; it has the fix of PR 180385, which its \
             version does not promise."
        ),
        _ => format!("A tracker can trust this kernel under this load{condition}."),
    }
}

fn unsound(stats: &Stats, expected: Regime) -> String {
    let mut reasons: Vec<String> = regression(stats.regime, expected).into_iter().collect();
    reasons.extend(remedies(&totals(stats), stats.regime, expected).into_iter().map(str::to_owned));
    format!("A tracker cannot trust this kernel: {}.", reasons.join("; "))
}

fn undecided(stats: &Stats) -> String {
    let all = totals(stats);
    let drops: u64 = stats.drops.iter().sum();
    let only = [Fact::Birth, Fact::Death].map(|f| all.of(f)[Verdict::KqueueOnly.index()]);
    let what = if all.births_reported + all.deaths_reported == 0 {
        "nothing was seen; run `kqproc_exporter check`".to_owned()
    } else if drops > 0 {
        format!(
            "DTrace dropped {}; give it larger buffers, or fork more slowly (--rate)",
            count_of(drops, "record")
        )
    } else if only.iter().sum::<u64>() > 0 {
        format!(
            "DTrace said nothing of {} and reported no drop; try again, and report it if that stays",
            count_of(only.iter().sum(), "fact")
        )
    } else if stats.dtrace_restarts > 0 || stats.dtrace_blind_now {
        "dtrace ended or was silent; see its messages, and try again".to_owned()
    } else {
        "too little was seen; try again with more processes (--count)".to_owned()
    };
    format!("Whether a tracker can trust this kernel is not known: {what}.")
}

/// The kernel does what its version says that it does not.
fn regression(seen: Regime, expected: Regime) -> Option<String> {
    let merged = matches!(seen, Regime::MergedStatus | Regime::MergedPpid);
    (expected == Regime::Split && merged).then(|| {
        format!(
            "by its version it should keep NOTE_CHILD and NOTE_EXIT apart ({expected}), and it does not ({seen}): the \
             fix of PR 180385 (r295012) is missing or undone, so report this"
        )
    })
}

const TWO_KQUEUES: &str = "watch with two kqueues, one that asks for NOTE_TRACK alone and so learns the parents, one \
                           that asks for NOTE_EXIT too";
const UPGRADE: &str = "or move to FreeBSD 10.4, 11.0 or later, which keep the two notes apart";

/// What to do about each thing that went wrong.
fn remedies(all: &TreeStats, seen: Regime, expected: Regime) -> Vec<&'static str> {
    let (births, deaths) = (Tally::of(all, Fact::Birth), Tally::of(all, Fact::Death));
    let n = |verdict: Verdict| all.births[verdict.index()] + all.deaths[verdict.index()];
    let collided = all.collisions.iter().sum::<u64>() + births.overwritten + deaths.overwritten > 0;
    let mut remedies = vec![];
    if collided && seen == Regime::MergedPpid {
        remedies
            .push("take the wait status of short-lived children from wait(2), not from NOTE_EXIT");
    } else if collided {
        remedies.push(TWO_KQUEUES);
        if expected == Regime::MergedStatus {
            remedies.push(UPGRADE);
        }
    }
    if n(Verdict::LostReported) > 0 {
        remedies.push("list the processes again (sysctl kern.proc) after each NOTE_TRACKERR");
    }
    if n(Verdict::LostSilent) > 0 {
        remedies.push(
            "list the processes from time to time (sysctl kern.proc), because nothing tells that one was lost",
        );
    }
    if births.corrupt > 0 {
        remedies.push("do not believe a parent's pid before sysctl kern.proc has confirmed it");
    }
    if deaths.corrupt > 0 {
        remedies.push("do not believe the wait status in NOTE_EXIT");
    }
    if remedies.is_empty() {
        remedies.push("it lost processes whose parent it had lost");
    }
    remedies
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::stats;
    use super::*;
    use crate::wire::drops::DropKind;

    fn said(stats: &Stats, expected: Regime) -> String {
        advice(stats, Answer::of(stats), expected)
    }

    fn with(verdict: Verdict, regime: Regime) -> Stats {
        let mut stats = stats(&[(Verdict::Agreed, 99), (verdict, 1)], &[(Verdict::Agreed, 101)]);
        stats.regime = regime;
        stats
    }

    #[test]
    fn a_sound_kernel_is_trusted_within_its_limits() {
        let mut stats = with(Verdict::Agreed, Regime::Split);
        assert_eq!(said(&stats, Regime::Split), "A tracker can trust this kernel under this load.");
        stats.trees[0].duplicate_child_notes = 1;
        assert!(said(&stats, Regime::Split).contains("ignores repeated NOTE_CHILD"));
        assert!(said(&stats, Regime::MergedStatus).contains("which its version does not promise"));
        stats.regime = Regime::MergedStatus;
        assert!(said(&stats, Regime::MergedStatus).contains("try --stall 50ms"));
    }

    #[test]
    fn a_regression_is_called_one() {
        let overwritten = with(Verdict::Overwritten, Regime::MergedStatus);
        assert!(said(&overwritten, Regime::Split).contains("r295012) is missing or undone"));
        assert!(!said(&overwritten, Regime::Split).contains("move to FreeBSD"));
        assert!(!said(&overwritten, Regime::MergedStatus).contains("r295012"));
        assert!(said(&overwritten, Regime::MergedStatus).contains("move to FreeBSD 10.4"));
        assert!(!said(&overwritten, Regime::Unknown).contains("r295012"));
        let lucky = with(Verdict::Agreed, Regime::MergedStatus);
        assert!(said(&lucky, Regime::Split).contains("r295012) is missing or undone"));
    }

    #[test]
    fn each_failure_has_its_remedy() {
        for (verdict, remedy) in [
            (Verdict::Overwritten, "two kqueues"),
            (Verdict::LostReported, "after each NOTE_TRACKERR"),
            (Verdict::LostSilent, "from time to time"),
            (Verdict::Corrupt, "before sysctl kern.proc has confirmed it"),
            (Verdict::LostInherited, "whose parent it had lost"),
        ] {
            let said = said(&with(verdict, Regime::MergedStatus), Regime::MergedStatus);
            assert!(said.starts_with("A tracker cannot trust this kernel: "), "{said}");
            assert!(said.contains(remedy), "{verdict}: {said}");
        }
        let ppid = said(&with(Verdict::Overwritten, Regime::MergedPpid), Regime::Unknown);
        assert!(ppid.contains("from wait(2)"), "{ppid}");
    }

    #[test]
    fn the_undecided_learn_why() {
        assert!(said(&Stats::default(), Regime::Split).contains("kqproc_exporter check"));
        let mut open = stats(&[(Verdict::Undecided, 9)], &[]);
        assert!(said(&open, Regime::Split).contains("--count"));
        open.dtrace_blind_now = true;
        assert!(said(&open, Regime::Split).contains("dtrace ended or was silent"));
        open.trees[0].births[Verdict::KqueueOnly.index()] = 3;
        open.trees[0].births_reported += 3;
        assert!(said(&open, Regime::Split).contains("said nothing of 3 facts"));
        open.drops[DropKind::Principal.index()] = 7;
        assert!(said(&open, Regime::Split).contains("dropped 7 records"));
    }
}
