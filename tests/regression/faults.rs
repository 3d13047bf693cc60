//! Regression tests of the faults that made verdicts against a sound kernel. Each fault has the input that showed it, and the
//! same disturbance at many places of the project's recordings: in a CPU's clock, in DTrace's, in what DTrace printed and in
//! what kevent(2) returned.

use std::path::PathBuf;

use crate::common::inputs::{
    each_line, inputs, moved, play, reader_stepped, skewed, sorted_in_passes, stepped,
};
use crate::common::recording;
use kqproc_exporter::check::stats::{BlindReason, NoteKind, Stats};
use kqproc_exporter::input::{Attach, OwnedBatch, OwnedInput};
use kqproc_exporter::model::{Fact, Kevent, Pid, TreeId, Verdict, note};
use kqproc_exporter::wire::decode::Reason;

const MS: i64 = 1_000_000;

/// Recordings of sound and of unsound kernels, without drops.
const RECORDINGS: [&str; 6] = [
    "split-13.2-enoent-drain",
    "split-13.2-chain-stall",
    "split-15.1-orphan",
    "merged-enoent-drain",
    "merged-exit-stall",
    "merged-orphan",
];

fn fixture(name: &str) -> PathBuf {
    crate::common::fixture(&format!("faults/{name}.kqr"))
}

/// How many facts have this verdict.
fn count(stats: &Stats, fact: Fact, verdict: Verdict) -> u64 {
    stats.trees.iter().map(|tree| tree.of(fact)[verdict.index()]).sum()
}

/// The verdicts against the kernel that `found` has and `sound` has not.
fn accused(sound: &Stats, found: &Stats) -> Vec<String> {
    let facts = [Fact::Birth, Fact::Death].into_iter();
    let all = facts.flat_map(|fact| Verdict::ALL.iter().map(move |verdict| (fact, *verdict)));
    let accusing = all.filter(|(_, v)| !matches!(v, Verdict::Agreed | Verdict::Undecided));
    let more = accusing.filter_map(|(fact, verdict)| {
        let more = count(found, fact, verdict).saturating_sub(count(sound, fact, verdict));
        (more > 0).then(|| format!("{fact:?} {verdict} +{more}"))
    });
    more.collect()
}

/// The verdicts of both facts.
fn verdicts(stats: &Stats) -> [[u64; Verdict::COUNT]; 2] {
    [*stats.trees[0].of(Fact::Birth), *stats.trees[0].of(Fact::Death)]
}

/// Changes each recording in each of these ways, and asserts that no verdict against the kernel comes of it.
fn accuses_nobody<C: Copy + std::fmt::Debug>(
    changes: &[C],
    change: impl Fn(&[OwnedInput], C) -> Vec<OwnedInput>,
) {
    for name in RECORDINGS {
        let recording = inputs(&recording(name));
        let sound = play(&recording);
        for case in changes {
            let accused = accused(&sound, &play(&change(&recording, *case)));
            assert!(accused.is_empty(), "{name} {case:?}: {accused:?}");
        }
    }
}

/// From 0.3 to 20 ms, of either CPU, in either direction.
const SKEWS: [(&str, i64); 12] = [
    ("0", -20 * MS),
    ("1", -20 * MS),
    ("0", 20 * MS),
    ("1", 20 * MS),
    ("0", -5 * MS),
    ("1", -5 * MS),
    ("1", 5 * MS),
    ("0", MS),
    ("1", MS),
    ("1", -2 * MS),
    ("0", 3 * MS / 10),
    ("1", -3 * MS / 10),
];

#[test]
fn fault_01_cpu_clocks_apart() {
    accuses_nobody(&SKEWS, |recording, (cpu, by)| skewed(recording, cpu, by));
}

#[test]
fn fault_01_cpu_clocks_apart_hide_no_real_loss() {
    let recording = inputs(&recording("merged-orphan"));
    for (cpu, by) in SKEWS.into_iter().filter(|(_, by)| by.abs() < MS) {
        let found = play(&skewed(&recording, cpu, by));
        for fact in [Fact::Birth, Fact::Death] {
            let lost = count(&found, fact, Verdict::LostSilent);
            assert_eq!(lost, 1, "{fact:?}, CPU {cpu} {by} ns");
        }
    }
}

#[test]
fn fault_02_dtrace_clock_steps_back() {
    let sound = play(&inputs(&fixture("02-dtrace-clock-steps-back-before")));
    let found = play(&inputs(&fixture("02-dtrace-clock-steps-back-after")));
    assert_eq!(accused(&sound, &found), [""; 0]);
    assert!(found.dtrace_blind_ns[BlindReason::Clock.index()] > 0, "it is blind about the step");
}

#[test]
fn fault_02_dtrace_clock_steps_at_any_place() {
    let mut steps = vec![];
    for ms in [-20_000, -5000, -500, -200, -130, -70, -30, -10, 20, 100, 1000] {
        steps.extend([(0.1, ms * MS), (0.52, ms * MS), (0.83, ms * MS)]);
    }
    accuses_nobody(&steps, |recording, (place, by)| stepped(recording, place, by));
    accuses_nobody(&steps, |recording, (place, by)| {
        sorted_in_passes(stepped(recording, place, by))
    });
}

#[test]
fn fault_02_the_readers_clock_steps_at_any_place() {
    let mut steps = vec![];
    for ms in [-20_000, -500, -130, -30, -10, 30, 130, 1000] {
        steps.extend([(0.3, ms * MS), (0.71, ms * MS)]);
    }
    accuses_nobody(&steps, |recording, (place, by)| reader_stepped(recording, place, by));
}

/// Each of the lines that begin with one of these letters is printed again, with a later time stamp.
fn printed_twice(recording: &[OwnedInput], letters: &[char], later: i64) -> Vec<OwnedInput> {
    let twice = each_line(recording, |line| {
        let again = line.starts_with(letters).then(|| moved(line, later));
        std::iter::once(line.to_owned()).chain(again).collect()
    });
    sorted_in_passes(twice)
}

#[test]
fn fault_04_fork_told_twice() {
    let once = play(&inputs(&fixture("04-fork-told-twice-once")));
    let twice = play(&inputs(&fixture("04-fork-told-twice-twice")));
    assert_eq!(verdicts(&twice), verdicts(&once));
    assert_eq!(twice.bad_lines[Reason::Duplicate.index()], 7, "three forks and four exits");
}

#[test]
fn fault_04_whatever_is_printed_twice_changes_no_verdict() {
    for name in RECORDINGS {
        let recording = inputs(&recording(name));
        let once = verdicts(&play(&recording));
        for letters in [&['C', 'X'][..], &['C'], &['X']] {
            for later in [1, 400, 20_000] {
                let twice = play(&printed_twice(&recording, letters, later));
                assert_eq!(verdicts(&twice), once, "{name} {letters:?} {later} ns");
            }
        }
    }
}

#[test]
fn fault_06_ev_error_is_no_note() {
    let without = play(&inputs(&fixture("06-ev-error-is-no-note-without")));
    let with = play(&inputs(&fixture("06-ev-error-is-no-note-with")));
    assert_eq!(verdicts(&with), verdicts(&without));
    assert_eq!(with.kevents[NoteKind::Receipt.index()], 1);
    assert_eq!(with.trees[0].order_violations, without.trees[0].order_violations);
}

#[test]
fn fault_06_receipts_at_any_place_change_no_verdict() {
    for name in RECORDINGS {
        let recording = inputs(&recording(name));
        let without = play(&recording);
        for data in [0, 3] {
            let mut recording = recording.clone();
            let mut receipts = 0;
            for (i, read) in recording.iter_mut().enumerate() {
                let OwnedInput::Batch(OwnedBatch { events, .. }) = read else { continue };
                let Some(event) = events.first().copied().filter(|_| i % 7 == 0) else { continue };
                let (flags, fflags) = (note::EV_ERROR, note::TRACK | note::EXIT);
                events.push(Kevent { flags, fflags, data, ..event });
                receipts += 1;
            }
            let with = play(&recording);
            assert_eq!(verdicts(&with), verdicts(&without), "{name}");
            assert_eq!(with.kevents[NoteKind::Receipt.index()], receipts, "{name}");
        }
    }
}

/// The recording as if the reader had registered the root with these notes alone.
fn asked_for(recording: &[OwnedInput], notes: u32) -> Vec<OwnedInput> {
    let mut recording = recording.to_vec();
    for read in &mut recording {
        let OwnedInput::Batch(OwnedBatch { attached, events, .. }) = read else { continue };
        attached.iter_mut().for_each(|attach| attach.notes = notes);
        if notes & note::EXIT == 0 {
            events.retain(|event| event.fflags & note::CHILD != 0);
            events.iter_mut().for_each(|event| event.fflags &= !note::EXIT);
        }
        if notes & note::TRACK == 0 {
            events.retain(|event| event.fflags & note::CHILD == 0);
        }
    }
    recording
}

#[test]
fn fault_05_notes_not_asked_for() {
    let of = |name: &str, notes: u32| play(&asked_for(&inputs(&fixture(name)), notes));
    let track_only = of("05-notes-not-asked-for-track-only", note::TRACK);
    assert_eq!(count(&track_only, Fact::Birth, Verdict::Agreed), 3);
    assert_eq!(verdicts(&track_only)[1], [0; Verdict::COUNT], "no death is a fact");
    let exit_only = of("05-notes-not-asked-for-exit-only", note::EXIT | note::FORK);
    assert_eq!(count(&exit_only, Fact::Death, Verdict::Agreed), 1);
    assert_eq!(verdicts(&exit_only).as_flattened().iter().sum::<u64>(), 1, "the root alone ends");
}

#[test]
fn fault_05_what_was_not_asked_for_is_no_fact() {
    for name in ["split-13.2-enoent-drain", "split-13.2-chain-stall", "split-15.1-orphan"] {
        let recording = inputs(&recording(name));
        let [births, _] = verdicts(&play(&recording));
        let track_only = play(&asked_for(&recording, note::TRACK));
        assert_eq!(verdicts(&track_only), [births, [0; Verdict::COUNT]], "{name}");
        assert_eq!(track_only.trees[0].tracked, 0, "{name}: DTrace saw the ends");
    }
    let recording = asked_for(&inputs(&recording("split-13.2-enoent-drain")), note::TRACK);
    let lost = play(&without_its_hundredth(&recording, note::CHILD));
    assert_eq!(accused(&play(&recording), &lost), ["Birth lost_silent +1"]);
}

/// Without the hundredth kevent that has this note.
fn without_its_hundredth(recording: &[OwnedInput], fflags: u32) -> Vec<OwnedInput> {
    let mut recording = recording.to_vec();
    let mut seen = 0;
    for read in &mut recording {
        let OwnedInput::Batch(OwnedBatch { events, .. }) = read else { continue };
        events.retain(|event| {
            seen += u32::from(event.fflags & fflags != 0);
            event.fflags & fflags == 0 || seen != 100
        });
    }
    recording
}

/// Some trackers register each child themselves: NOTE_EXIT alone, in the call after the one that announced it.
#[test]
fn fault_05_own_registrations_in_place_of_note_child() {
    let recording = inputs(&recording("split-13.2-enoent-drain"));
    let [_, deaths] = verdicts(&play(&recording));
    let (mut own, mut children) = (recording.clone(), vec![]);
    for read in &mut own {
        let OwnedInput::Batch(OwnedBatch { attached, events, .. }) = read else { continue };
        attached.iter_mut().for_each(|attach| attach.notes = note::EXIT);
        attached.append(&mut children);
        for event in events.extract_if(.., |event| event.fflags & note::CHILD != 0) {
            let pid = Pid::new(event.ident).expect("a pid");
            let (tree, notes) = (TreeId(0), note::EXIT);
            children.push(Attach { tree, pid, root: false, errno: 0, notes });
        }
    }
    let found = verdicts(&play(&own));
    assert_eq!(found, [[0; Verdict::COUNT], deaths]);
    let lost = play(&without_its_hundredth(&own, note::EXIT));
    assert_eq!(accused(&play(&own), &lost), ["Death lost_silent +1"]);
}
