//! Tests of `explain` on the project's recordings.

use std::path::Path;

use super::*;
use crate::check::Config;
use crate::input::Input;
use crate::model::{MonoTime, TreeId};
use crate::pipeline::Pipeline;
use crate::report::format::Paint;
use crate::source::replay::Replay;

/// What one of the project's recordings says of this pid.
fn explain(recording: &str, pid: u64) -> Explanation {
    let name = format!("recordings/{recording}.kqr");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
    let replay = Replay::open(&path).expect("a recording");
    let meta = replay.meta();
    let pid = Pid::new(pid).expect("a pid");
    let mut pipeline = Pipeline::new(Config::default(), Collector::new(pid));
    replay.play(&mut pipeline).expect("an undamaged recording");
    let kernel = KernelVersion { uname: meta.uname, osreldate: meta.osreldate };
    Explanation::of(pid, pipeline.observer(), pipeline.stats().regime, kernel, name)
}

#[test]
fn the_process_that_a_real_kernel_lost_is_explained() {
    let expected = "\
pid 4463 in recordings/merged-orphan.kqr
FreeBSD 13.2-RELEASE amd64, regime merged-status

life 1 of 1, tree default
      +0.000 ms  dtrace  create, forked by 4152
      +1.859 ms  dtrace  forks 4464
      +2.306 ms  dtrace  exit, exit 0 (wait status 0)
      +3.050 ms  kqueue  a call that had been in the kernel for 3.720 ms returned 1
      +3.143 ms  kqueue  first call begun after its creation took all there was: 2
      +3.143 ms  kqueue  call 1190 returned NOTE_CHILD of 4464, data 4463
verdict birth lost_silent
verdict death lost_silent

  why birth and death are lost_silent
    what      The process had a knote, and it was queued when the process ended; kevent(2) was just
              scanning it, filt_proc then returned 0 because the process was gone already, and the
              scan threw the event away.
";
    // When the verdict falls is a matter of the checker's patience.
    let text = explain("merged-orphan", 4463).text(Paint::Plain);
    let text: String = text
        .lines()
        .map(|l| l.find("verdict ").filter(|_| l.starts_with(' ')).map_or(l, |at| &l[at..]))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(text.get(..expected.len()), Some(expected), "{text}");
    assert!(text.trim_end().ends_with("sure      likely"), "{text}");
}

#[test]
fn a_collision_is_one_kevent_with_both_notes() {
    let explanation = explain("merged-orphan", 4461);
    let [life] = &explanation.lives[..] else { panic!("one life") };
    let notes: Vec<&str> = life
        .timeline
        .iter()
        .filter(|l| l.witness.as_deref() == Some("kqueue"))
        .map(|l| l.text.as_str())
        .collect();
    assert_eq!(
        notes,
        [
            "call 1188 returned NOTE_CHILD|NOTE_FORK|NOTE_EXIT, data 0 (exit 0)",
            "call 1188 returned NOTE_CHILD of 4462, data 4461"
        ]
    );
    let verdicts: Vec<_> = life
        .judged
        .iter()
        .map(|j| (j.fact.as_ref(), j.verdict.as_ref(), j.path.sure.as_ref()))
        .collect();
    assert_eq!(verdicts, [("birth", "overwritten", "certain"), ("death", "agreed", "certain")]);
}

#[test]
fn duplicates_are_counted_and_explained() {
    let counts = |pid| {
        let life = explain("split-13.2-chain-stall", pid).lives.into_iter().next_back();
        life.and_then(|l| l.duplicates).map_or(0, |d| d.count)
    };
    // One chain of forks, six deep, that the reader came too late for.
    let chain: Vec<u64> = (2098..2104).map(counts).collect();
    assert_eq!(chain, [0, 1, 3, 7, 15, 31]);
    let text = explain("split-13.2-chain-stall", 2103).text(Paint::Plain);
    assert!(text.contains("returned NOTE_CHILD, data 2102, 32 times\n"), "{text}");
    assert!(text.contains("\n  31 NOTE_CHILD notes too many\n"), "{text}");
}

#[test]
fn the_root_is_registered_and_not_born() {
    let explanation = explain("merged-orphan", 4152);
    let [life] = &explanation.lives[..] else { panic!("one life") };
    assert!(life.timeline.iter().any(|line| line.text == "call 1023 registered it"));
    assert_eq!(life.judged.iter().map(|j| j.fact.as_ref()).collect::<Vec<_>>(), ["death"]);
}

#[test]
fn a_pid_that_no_witness_reported_has_no_life() {
    assert!(explain("merged-orphan", 99_999).lives.is_empty());
}

#[test]
fn what_a_recording_says_does_not_steer_the_terminal() {
    let mut explanation = explain("merged-orphan", 4461);
    explanation.source = "a\x1b[2Jb".to_owned();
    explanation.kernel.uname = "c\x07d".to_owned();
    explanation.lives[0].tree = Some("e\x1b]0;f".to_owned());
    explanation.lives[0].timeline[0].text = "g\x1bh".to_owned();
    let text = explanation.text(Paint::Plain);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
}

#[test]
fn what_was_seen_in_knote_fork_is_in_the_life_that_began_then() {
    let bytes =
        b"B 1000 1\nT 2000 1\nR 2990 100 101 12\nC 3000 0 101 100 100 0\nX 4000 0 101 100 1 0\n";
    let tree = Input::Tree { id: TreeId(0), name: "t" };
    let lives = lives(101, &[tree, Input::Stdout { at: MonoTime(1), bytes }]);
    let [life] = &lives[..] else { panic!("one life: {lives:?}") };
    assert_eq!(life.timeline[0].text, "kqueue_register failed for it in knote_fork, errno 12");
    assert_eq!(life.timeline[1].text, "create, forked by 100");
}

#[test]
fn a_consumer_is_named_where_it_registers_and_where_it_receives() {
    let lives = lives_of_a_consumers_process(
        "B 1000 1\nT 1500 1\nC 2000 0 268 267 267 14\nA 2500 0 9 1 4 ff 268 -5 1 80000001 0 812\n\
         X 3000 0 268 267 0 0\nN 4000 0 9 4 1 268 -5 8030 80000000 0",
    );
    let lines = lives.iter().flat_map(|life| &life.timeline);
    let texts: Vec<&str> =
        lines.filter(|l| l.witness.as_deref() == Some("kqueue")).map(|l| l.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "nosh, pid 812, registered it for NOTE_EXIT|NOTE_TRACK",
            "nosh, pid 812, received NOTE_EXIT, data 0 (exit 0)"
        ]
    );
}

/// Only those that the mirror received were counted.
#[test]
fn duplicates_of_a_consumer_are_counted_too() {
    let lives = lives_of_a_consumers_process(
        "B 1000 1\nT 1500 1\nC 2000 0 267 1 1 14\nA 2500 0 9 1 4 ff 267 -5 1 80000001 0 812\n\
         C 3000 0 268 267 267 14\nN 4000 0 9 4 2 268 -5 30 4 267 268 -5 30 4 267",
    );
    let duplicates: Vec<u64> =
        lives.iter().flat_map(|life| &life.duplicates).map(|duplicates| duplicates.count).collect();
    assert_eq!(duplicates, [1]);
}

/// Each part of a recording names its trees, and a later one may have more of them: the second was taken for the first.
#[test]
fn a_tree_that_a_later_part_adds_keeps_its_name() {
    let tree = |id, name| Input::Tree { id: TreeId(id), name };
    let consumer = Input::Consumer { id: TreeId(1), pid: Pid::new(812) };
    let bytes = b"B 1000 1\nT 1500 1\nA 2500 0 9 1 4 ff 268 -5 1 80000001 0 812\n";
    let stdout = Input::Stdout { at: MonoTime(1), bytes };
    let lives = lives(268, &[tree(0, "cron"), tree(0, "cron"), tree(1, "nosh"), consumer, stdout]);
    let text = lives.first().and_then(|life| life.timeline.first()).map(|row| row.text.as_str());
    assert_eq!(text, Some("nosh, pid 812, registered it for NOTE_EXIT|NOTE_TRACK"));
}

/// The lives of process 268 in this output of dtrace about consumer 812, which ends with copied out events.
fn lives_of_a_consumers_process(text: &str) -> Vec<ProcessLife> {
    let fields = text.rsplit_once("\nN ").expect("events").1.split(' ').count();
    let text = format!("{text}{} 812\n", " 0".repeat(5 + 8 * 5 - fields));
    let tree = Input::Tree { id: TreeId(0), name: "nosh" };
    let consumer = Input::Consumer { id: TreeId(0), pid: Pid::new(812) };
    lives(268, &[tree, consumer, Input::Stdout { at: MonoTime(1), bytes: text.as_bytes() }])
}

/// The lives of this pid in a run.
fn lives(pid: u64, inputs: &[Input<'_>]) -> Vec<ProcessLife> {
    let pid = Pid::new(pid).expect("a pid");
    let mut pipeline = Pipeline::new(Config::default(), Collector::new(pid));
    inputs.iter().for_each(|input| pipeline.push(*input));
    pipeline.push(Input::End);
    let (kernel, source) = (KernelVersion::default(), String::new());
    Explanation::of(pid, pipeline.observer(), Regime::Split, kernel, source).lives
}
