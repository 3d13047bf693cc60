//! Tests of the report card.

use super::*;
use crate::model::{Verdict, Winner, note};
use crate::report::answer::tests::stats;

const TRACK: u32 = note::TRACK | note::EXIT;

fn kernel(osreldate: u32) -> KernelVersion {
    KernelVersion { uname: "FreeBSD 13.2-RELEASE amd64".to_owned(), osreldate }
}

fn agreed(n: u64, regime: Regime) -> Stats {
    let mut stats = stats(&[(Verdict::Agreed, n)], &[(Verdict::Agreed, n + 1)]);
    stats.regime = regime;
    stats
}

fn loaded(shape: Shape, notes: u32, mut stats: Stats) -> Loaded {
    stats.trees[0].notes = TRACK | notes;
    let run = Run { seconds: 2.0, ..Run::default() };
    Loaded { shape, run, stats }
}

/// A stock 13.2: repeats in chains, and exits of `forkexit` that were lost beside NOTE_FORK.
fn stock(lost: u64) -> Card {
    let mut chain = agreed(420, Regime::Split);
    chain.trees[0].duplicate_child_notes = 5691;
    let mut fork = agreed(12_000, Regime::Split);
    fork.trees[0].deaths[Verdict::LostSilent.index()] = lost;
    fork.trees[0].deaths[Verdict::Agreed.index()] -= lost;
    fork.trees[0].exit_latency.add(40_000_000);
    let mut runs = vec![
        loaded(Shape::Chain, 0, chain),
        loaded(Shape::Exit, 0, agreed(12_000, Regime::Split)),
        loaded(Shape::Exit, note::FORK, fork),
    ];
    runs[0].run.stall_ms = 40;
    Card::of(kernel(1_302_001), runs)
}

#[test]
fn the_card_reads_well() {
    let card = stock(3);
    assert_eq!(card.decision, Soundness::Unsound);
    assert_eq!(
        card.text(Paint::Plain),
        "\
Unsound: A tracker can trust this kernel only if it ignores repeated NOTE_CHILD notes and asks for NOTE_FORK and \
NOTE_EXEC, if at all, on another kqueue than the one whose NOTE_EXIT it needs: beside NOTE_FORK it lost 3 of 12,001 \
exits, without NOTE_FORK none of 12,001.

kernel    FreeBSD 13.2-RELEASE amd64, osreldate 1302001
regime    split, by its version split

shape  also asks for  stall  births  deaths  repeats      p50      p99   took  what was wrong
chain                 40 ms     420     421    5,691                    2.0 s  nothing
exit                   none  12,000  12,001        0                    2.0 s  nothing
exit   NOTE_FORK       none  12,000  12,001        0  67.1 ms  67.1 ms  2.0 s  lost 3 deaths

Shape exit: the tracker that also asks for NOTE_FORK lost 3 of 12,001 exits, the one that does not lost none of 12,001 exits.
"
    );
}

#[test]
fn a_run_that_lost_no_exit_beside_note_fork_still_warns_of_it() {
    let card = stock(0);
    assert_eq!(card.decision, Soundness::Sound);
    assert_eq!(
        card.answer,
        "A tracker can trust this kernel under these loads, if it ignores repeated NOTE_CHILD notes and asks for \
         NOTE_FORK and NOTE_EXEC, if at all, on another kqueue than the one whose NOTE_EXIT it needs."
    );
    assert!(card.text(Paint::Plain).contains("up to 4 of 16,000"));
}

#[test]
fn one_load_that_shows_a_kernel_to_merge_is_enough_never_to_trust_it() {
    let mut stalled = agreed(100, Regime::MergedStatus);
    stalled.trees[0].births[Verdict::Agreed.index()] = 60;
    stalled.trees[0].births[Verdict::Overwritten.index()] = 40;
    stalled.trees[0].collisions[Winner::Status.index()] = 40;
    for (stats, word) in [
        (agreed(100, Regime::MergedStatus), "this run had no such kevent"),
        (stalled, "two kqueues"),
    ] {
        let quiet = loaded(Shape::Exit, 0, agreed(100, Regime::Unknown));
        let card = Card::of(kernel(1_001_000), vec![quiet, loaded(Shape::Enoent, 0, stats)]);
        assert!(card.answer.contains("as soon as the reader is late"), "{}", card.answer);
        assert_eq!((card.decision, card.regime), (Soundness::Unsound, Regime::MergedStatus));
        assert!(card.answer.starts_with("A tracker cannot trust this kernel"), "{}", card.answer);
        assert!(card.answer.contains(word), "{}", card.answer);
    }
}

#[test]
fn what_could_not_be_decided_is_named() {
    let blind = stats(&[(Verdict::Undecided, 9)], &[]);
    let runs = vec![
        loaded(Shape::Exit, 0, agreed(100, Regime::Split)),
        loaded(Shape::Vfork, 0, blind.clone()),
    ];
    let card = Card::of(kernel(1_302_001), runs);
    assert_eq!(card.decision, Soundness::Undecided);
    assert!(card.answer.contains("vfork could not be decided"), "{}", card.answer);
    assert!(card.text(Paint::Plain).contains("not known: 9 facts undecided"));
    let alone = Card::of(kernel(1_302_001), vec![loaded(Shape::Vfork, 0, blind)]);
    assert!(alone.answer.contains("too little was seen"), "{}", alone.answer);
    assert_eq!(Card::of(kernel(0), vec![]).decision, Soundness::Undecided);
}

#[test]
fn programs_and_browsers_get_the_same() {
    let mut card = stock(3);
    let json = serde_json::to_value(&card).expect("json");
    assert_eq!(json["decision"], "unsound");
    assert_eq!(json["exit_race"]["with"]["lost"], 3);
    assert_eq!(json["runs"][2]["notes"][0], "NOTE_FORK");
    assert_eq!(json["runs"][2]["shape"], "exit");
    assert_eq!(json["runs"][2]["wrong"], "lost 3 deaths");
    assert_eq!(json["runs"][0]["totals"]["duplicate_child_notes"], 5691);
    assert_eq!(json["runs"][0]["run"]["stall_ms"], 40);
    card.kernel.uname = "<script>".to_owned();
    let html = card.html();
    assert!(html.contains("<td>lost 3 deaths</td>"), "{html}");
    assert!(html.contains("beside NOTE_FORK it lost 3 of 12,001 exits"), "{html}");
    assert!(!html.contains("<script"), "{html}");
}
