//! The advice of a run's report: whether a tracker can trust this kernel, and what it can do if not.

use super::answer::{Soundness, Tally};
use super::format::count_of;
use crate::check::stats::{ConsumerStats, Stats, TreeStats};
use crate::model::{Fact, Regime, Verdict, note};

/// What makes the kernel lose NOTE_EXIT to a note that is still queued (docs/strategies.md).
const COSTLY: u32 = note::FORK | note::EXEC;

/// One sentence for the author or the operator of a tracker. `expected` is what the kernel's version promises.
pub(super) fn advice(stats: &Stats, answer: Soundness, expected: Regime) -> String {
    match answer {
        Soundness::Sound => sound(stats, expected, "this load"),
        Soundness::Unsound => {
            let mut reasons: Vec<String> = regression(stats.regime, expected).into_iter().collect();
            reasons.extend(remedies(&stats.totals(), stats.regime, expected));
            format!("A tracker cannot trust this kernel: {}.", reasons.join("; "))
        }
        Soundness::Undecided => undecided(stats),
    }
}

/// What a tracker must do on a kernel that was sound under `load`.
pub(super) fn sound(stats: &Stats, expected: Regime, load: &str) -> String {
    let conditions = match conditions(&stats.totals()) {
        conditions if conditions.is_empty() => conditions,
        conditions => format!(", if it {conditions}"),
    };
    let fixed = match stats.regime {
        Regime::Split if expected == Regime::MergedStatus => {
            "; it has the fix of PR 180385, which its version does not promise"
        }
        _ => "",
    };
    format!("A tracker can trust this kernel under {load}{conditions}{fixed}.")
}

/// What a tracker must do to trust a sound kernel: `ignores repeated NOTE_CHILD notes`, or nothing.
pub(super) fn conditions(all: &TreeStats) -> String {
    let repeats = (all.duplicate_child_notes > 0).then_some("ignores repeated NOTE_CHILD notes");
    let costly = (all.notes & COSTLY != 0).then_some(APART);
    let conditions: Vec<&str> = repeats.into_iter().chain(costly).collect();
    conditions.join(" and ")
}

/// What keeps every NOTE_EXIT on a kernel that loses it to a queued NOTE_FORK or NOTE_EXEC.
const APART: &str = "asks for NOTE_FORK and NOTE_EXEC, if at all, on another kqueue than the one whose NOTE_EXIT it needs";

/// What a consumer should do about what it asks for: NOTE_EXIT may be lost beside NOTE_FORK and NOTE_EXEC.
pub(crate) fn consumer_advice(consumer: &ConsumerStats) -> Option<String> {
    (consumer.beside_exit != 0).then(|| {
        format!(
            "it asks for {} beside NOTE_EXIT: from FreeBSD 12.3 on it may lose ends; ask for them on another kqueue",
            note::names(consumer.beside_exit)
        )
    })
}

fn undecided(stats: &Stats) -> String {
    let all = stats.totals();
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
            "DTrace did not report {}, nor any drop; try again, and report it if that stays",
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
    (expected == Regime::Split && seen.is_merged()).then(|| {
        format!(
            "by its version it should keep NOTE_CHILD and NOTE_EXIT apart ({expected}), and it does not ({seen}): the \
             fix of PR 180385 (r295012) is missing or undone, so report this"
        )
    })
}

/// What to do about each thing that went wrong.
fn remedies(all: &TreeStats, seen: Regime, expected: Regime) -> Vec<String> {
    let (births, deaths) = (Tally::of(all, Fact::Birth), Tally::of(all, Fact::Death));
    let collided = all.collisions.iter().sum::<u64>() + births.overwritten + deaths.overwritten > 0;
    let mut remedies: Vec<&str> = vec![];
    if seen.is_merged() {
        remedies
            .push("it puts NOTE_CHILD and NOTE_EXIT into one kevent as soon as the reader is late");
    }
    if seen.is_merged() && !collided {
        remedies
            .push("this run had no such kevent, a late reader will have them (try --stall 50ms)");
    }
    match seen {
        Regime::MergedPpid => remedies
            .push("take the wait status of short-lived children from wait(2), not from NOTE_EXIT"),
        _ if collided || seen.is_merged() => {
            remedies.push(
                "watch with two kqueues, one that asks for NOTE_TRACK alone and so learns the parents, one that asks \
                 for NOTE_EXIT too",
            );
            if expected == Regime::MergedStatus {
                remedies
                    .push("or move to FreeBSD 10.4, 11.0 or later, which keep the two notes apart");
            }
        }
        _ => {}
    }
    for &verdict in Verdict::ALL {
        let of = |fact: Fact| all.of(fact)[verdict.index()] > 0;
        remedies.extend(against(verdict, of(Fact::Birth), of(Fact::Death), all.notes));
    }
    if remedies.is_empty() {
        remedies.push("it lost processes whose parent it had lost");
    }
    remedies.into_iter().map(str::to_owned).collect()
}

/// What to do about the births and deaths of one verdict, if there are any. The registrations asked for `notes`.
fn against(verdict: Verdict, births: bool, deaths: bool, notes: u32) -> Vec<&'static str> {
    let any = births || deaths;
    let remedies: [Option<&str>; 2] = match verdict {
        Verdict::Corrupt => [
            births.then_some(
                "do not believe a parent's pid before sysctl kern.proc has confirmed it",
            ),
            deaths.then_some("do not believe the wait status in NOTE_EXIT"),
        ],
        Verdict::LostReported => [
            any.then_some("list the processes again (sysctl kern.proc) after each NOTE_TRACKERR"),
            None,
        ],
        Verdict::LostSilent => {
            let costly = deaths && notes & COSTLY != 0;
            [
                costly.then_some(
                    "ask for NOTE_FORK and NOTE_EXEC, if at all, on another kqueue than the one whose NOTE_EXIT you need: \
                     one that asks for NOTE_TRACK and NOTE_EXIT alone keeps every exit",
                ),
                (births || deaths && !costly).then_some(
                    "list the processes from time to time (sysctl kern.proc), because nothing tells that one was lost",
                ),
            ]
        }
        // Of an overwritten fact the regime and the collisions say more; an inherited loss goes with the loss before it.
        Verdict::Overwritten | Verdict::LostInherited => [None, None],
        Verdict::Agreed | Verdict::KqueueOnly | Verdict::Undecided => [None, None],
    };
    remedies.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::stats;
    use super::*;
    use crate::wire::drops::DropKind;

    fn of(stats: &Stats, expected: Regime) -> String {
        advice(stats, Soundness::of(stats), expected)
    }

    fn with(verdict: Verdict, regime: Regime) -> Stats {
        let mut stats = stats(&[(Verdict::Agreed, 99), (verdict, 1)], &[(Verdict::Agreed, 101)]);
        stats.regime = regime;
        stats
    }

    #[test]
    fn a_sound_kernel_is_trusted_within_its_limits() {
        let mut stats = with(Verdict::Agreed, Regime::Split);
        assert_eq!(of(&stats, Regime::Split), "A tracker can trust this kernel under this load.");
        stats.trees[0].duplicate_child_notes = 1;
        assert!(of(&stats, Regime::Split).contains("ignores repeated NOTE_CHILD"));
        assert!(of(&stats, Regime::MergedStatus).contains("which its version does not promise"));
        stats.trees[0].notes = note::TRACK | note::EXIT | note::FORK;
        assert!(of(&stats, Regime::Split).ends_with(
            "ignores repeated NOTE_CHILD notes and asks for NOTE_FORK and NOTE_EXEC, if at all, on another kqueue \
             than the one whose NOTE_EXIT it needs."
        ));
    }

    #[test]
    fn a_kernel_that_merges_is_never_trusted() {
        let advice = of(&with(Verdict::Agreed, Regime::MergedStatus), Regime::MergedStatus);
        assert!(
            advice.starts_with("A tracker cannot trust this kernel: it puts NOTE_CHILD"),
            "{advice}"
        );
        for words in ["this run had no such kevent", "a late reader will", "two kqueues", "10.4"] {
            assert!(advice.contains(words), "{words}: {advice}");
        }
        let ppid = of(&with(Verdict::Agreed, Regime::MergedPpid), Regime::Unknown);
        assert!(ppid.contains("from wait(2)") && !ppid.contains("two kqueues"), "{ppid}");
    }

    #[test]
    fn an_exit_that_is_lost_beside_note_fork_is_kept_by_a_kqueue_of_its_own() {
        let mut lost = with(Verdict::Agreed, Regime::Split);
        lost.trees[0].deaths[Verdict::LostSilent.index()] = 3;
        let mut with_notes = |notes| {
            lost.trees[0].notes = notes;
            of(&lost, Regime::Split)
        };
        for notes in [note::FORK, note::EXEC] {
            let advice = with_notes(note::TRACK | note::EXIT | notes);
            assert!(advice.contains("NOTE_TRACK and NOTE_EXIT alone keeps every exit"), "{advice}");
            assert!(!advice.contains("from time to time"), "{advice}");
        }
        assert!(with_notes(note::TRACK | note::EXIT).contains("from time to time"));
    }

    #[test]
    fn a_regression_is_called_one() {
        let overwritten = with(Verdict::Overwritten, Regime::MergedStatus);
        assert!(of(&overwritten, Regime::Split).contains("r295012) is missing or undone"));
        assert!(!of(&overwritten, Regime::Split).contains("move to FreeBSD"));
        assert!(!of(&overwritten, Regime::MergedStatus).contains("r295012"));
        assert!(of(&overwritten, Regime::MergedStatus).contains("move to FreeBSD 10.4"));
        assert!(!of(&overwritten, Regime::Unknown).contains("r295012"));
        let without_collision = with(Verdict::Agreed, Regime::MergedStatus);
        assert!(of(&without_collision, Regime::Split).contains("r295012) is missing or undone"));
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
            let regime = match verdict {
                Verdict::Overwritten => Regime::MergedStatus,
                _ => Regime::Split,
            };
            let advice = of(&with(verdict, regime), Regime::MergedStatus);
            assert!(advice.starts_with("A tracker cannot trust this kernel: "), "{advice}");
            assert!(advice.contains(remedy), "{verdict}: {advice}");
        }
        let ppid = of(&with(Verdict::Overwritten, Regime::MergedPpid), Regime::Unknown);
        assert!(ppid.contains("from wait(2)"), "{ppid}");
    }

    #[test]
    fn the_undecided_learn_why() {
        assert!(of(&Stats::default(), Regime::Split).contains("kqproc_exporter check"));
        let mut open = stats(&[(Verdict::Undecided, 9)], &[]);
        assert!(of(&open, Regime::Split).contains("--count"));
        open.dtrace_blind_now = true;
        assert!(of(&open, Regime::Split).contains("dtrace ended or was silent"));
        open.trees[0].births[Verdict::KqueueOnly.index()] = 3;
        open.trees[0].births_reported += 3;
        assert!(of(&open, Regime::Split).contains("did not report 3 facts"));
        open.drops[DropKind::Principal.index()] = 7;
        assert!(of(&open, Regime::Split).contains("dropped 7 records"));
    }
}
