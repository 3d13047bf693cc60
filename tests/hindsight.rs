//! Tree damage and strategies on the project's recordings of real kernels.

mod common;

use common::{Words, words};
use kqproc_exporter::check::damage::Damage;
use kqproc_exporter::check::stats::{Stats, TreeStats};
use kqproc_exporter::check::strategies::Strategy;
use kqproc_exporter::model::{Kevent, note};

fn tree(recording: &str) -> TreeStats {
    let Stats { mut trees, .. } = words(recording).play_in_time();
    trees.remove(0)
}

/// What is not zero.
fn damage(tree: &TreeStats) -> Vec<(&'static str, u64)> {
    let all = Damage::ALL.iter().map(|d| (d.as_str(), tree.damage[d.index()]));
    all.filter(|(_, n)| *n > 0).collect()
}

fn recovered(tree: &TreeStats) -> Vec<(&'static str, u64)> {
    let all = Strategy::ALL.iter().map(|s| (s.as_str(), tree.recovered(*s)));
    all.filter(|(_, n)| *n > 0).collect()
}

#[test]
fn the_reporter_of_pr_180385_loses_parents_and_two_kqueues_keep_them() {
    for (recording, births, wrong, nobody) in
        [("merged-enoent-drain", 600, 122, 122), ("merged-exit-stall", 600, 564, 563)]
    {
        let tree = tree(recording);
        let expected = [("wrong_parent", wrong), ("adopted_by_nobody", nobody)];
        assert_eq!(damage(&tree), expected, "{recording}");
        let expected = [("two_kqueues", wrong), ("udata_cookie", wrong)];
        assert_eq!(recovered(&tree), expected, "{recording}");
        let right = |s: Strategy| tree.strategies[s.index()];
        assert_eq!(right(Strategy::Naive).parents, births - wrong, "{recording}");
        assert_eq!(right(Strategy::TwoKqueues).parents, births, "{recording}");
        assert_eq!(right(Strategy::Cookie).parents, births - wrong, "{recording}");
        assert_eq!(right(Strategy::Cookie).members, births, "{recording}");
    }
}

#[test]
fn whoever_descends_from_a_wrong_or_unknown_parent_is_cut_off() {
    let tree = tree("merged-orphan");
    let expected =
        [("wrong_parent", 184), ("adopted_by_nobody", 184), ("cut_off", 60), ("unknown", 1)];
    assert_eq!(damage(&tree), expected);
    let right = |s: Strategy| tree.strategies[s.index()];
    assert_eq!(right(Strategy::Naive).members, 400 - 184 - 60 - 1);
    // The one that was lost, and its child.
    assert_eq!(right(Strategy::TwoKqueues).members, 400 - 2);
    assert_eq!(right(Strategy::Cookie).members, 400 - 1);
}

#[test]
fn split_kernels_do_no_damage_but_repeat_themselves() {
    for (recording, duplicates) in [
        ("split-13.2-enoent-drain", 0),
        ("split-13.2-chain-stall", 5691),
        ("split-15.1-orphan", 141),
        ("split-13.2-drops", 0),
    ] {
        let tree = tree(recording);
        assert_eq!(damage(&tree), [], "{recording}");
        assert_eq!(tree.recovered(Strategy::Dedupe), duplicates, "{recording}");
        assert_eq!(tree.recovered(Strategy::TwoKqueues), 0, "{recording}");
    }
}

/// The recording of a sound kernel, changed.
fn changed(change: impl Fn(&mut Words)) -> TreeStats {
    let mut words = words("split-13.2-enoent-drain");
    change(&mut words);
    words.play_in_time().trees.remove(0)
}

/// Removes the 100th kevent with just this note and returns it.
fn remove(words: &mut Words, fflags: u32) -> Kevent {
    let mut left = 100;
    for call in &mut words.calls {
        for (i, event) in call.events.iter().enumerate() {
            left -= i32::from(event.fflags == fflags);
            if left == 0 {
                return call.events.remove(i);
            }
        }
    }
    panic!("no such event")
}

#[test]
fn a_process_whose_end_is_not_told_runs_for_ever() {
    let tree = changed(|words| {
        remove(words, note::EXIT);
    });
    assert_eq!(damage(&tree), [("ghost", 1)]);
    assert_eq!(recovered(&tree), []);
}

#[test]
fn a_list_of_the_living_does_not_bring_back_who_died_before_it_was_made() {
    let lost = |alive: bool| {
        changed(|words| {
            let child = remove(words, note::CHILD);
            let forker = child.data as u64;
            let exit = format!(" {} {forker} ", child.ident);
            let rest = words.calls.iter_mut().flat_map(|call| &mut call.events);
            rest.filter(|e| e.ident == forker).for_each(|e| e.fflags |= note::TRACKERR);
            if alive {
                words.lines.retain(|l| !(l.starts_with("X ") && l.contains(&exit)));
                for call in &mut words.calls {
                    call.events.retain(|e| e.ident != child.ident);
                }
            }
        })
    };
    let dead = lost(false);
    assert_eq!(damage(&dead), [("unknown", 1)]);
    assert_eq!(recovered(&dead), []);
    let living = lost(true);
    assert_eq!(damage(&living), [("unknown", 1)]);
    assert_eq!(recovered(&living), [("rescan", 1), ("reaper", 1)]);
}
