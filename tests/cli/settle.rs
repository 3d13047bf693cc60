//! The settle time of a replay: a recording is judged with its own configuration unless `--settle` is given, and then the
//! answer shows both settle times.

use std::path::PathBuf;

use kqproc_exporter::input::{Attach, Batch, Config, Input};
use kqproc_exporter::model::{MonoTime, Pid, TreeId};
use kqproc_exporter::recording::{Meta, Writer};
use tempfile::TempDir;

use crate::{program, run};

/// A recording whose root ends at 2 s, and whose queue is drained by a call at 3 s without NOTE_EXIT. With a settle time of
/// half a second the exit is lost, with five seconds it is undecided.
fn recording(folder: &TempDir, config: Option<Config>) -> PathBuf {
    let path = folder.path().join("run.kqr");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = Writer::new(file, &Meta::default()).expect("written");
    let mut append = |input: Input<'_>| writer.append(&input).expect("written");
    if let Some(config) = config {
        append(Input::Config(config));
    }
    append(Input::Tree { id: TreeId(0), name: "shell" });
    append(Input::DtraceUp { at: MonoTime(1) });
    let (pid, notes) = (Pid::new(100).expect("a pid"), Attach::USUAL_NOTES);
    let root = [Attach { tree: TreeId(0), pid, root: true, errno: 0, notes }];
    for (seq, attached) in [(0, &root[..]), (1, &[])] {
        let capacity = Batch::capacity_of(seq);
        let at = MonoTime(1_000_000_000 + seq * 2_000_000_000);
        append(Input::Batch(Batch { seq, capacity, before: at, after: at, attached, events: &[] }));
    }
    let bytes = b"B 1000 1\nM 1000000000 0 999999000 1024 0 0\nX 2000000000 0 100 1 1 0\n\
        M 3000000000 0 2999999000 1025 0 0\nT 3500000000 1\n";
    append(Input::Stdout { at: MonoTime(3_500_000_000), bytes });
    append(Input::End);
    writer.finish().expect("written");
    path
}

const PATIENT: Config = Config {
    settle_ns: 5_000_000_000,
    reorder_ns: 200_000_000,
    switch_ns: 100_000_000,
    capacity: 1 << 17,
};

#[test]
fn a_recording_is_judged_by_its_own_configuration() {
    let folder = TempDir::new().expect("a folder");
    for (config, expected) in [(None, "Unsound"), (Some(PATIENT), "Undecided")] {
        let path = recording(&folder, config).display().to_string();
        for command in ["replay", "report"] {
            let (status, out, err) = run(&mut program(&[command, &path]));
            assert_eq!(status, Some(0), "{err}");
            assert!(out.contains(expected), "{command} {config:?}: {out}");
            assert!(!out.contains("settle    "), "{out}");
        }
    }
}

#[test]
fn an_answer_shows_that_a_flag_replaced_the_settle_time() {
    let folder = TempDir::new().expect("a folder");
    let path = recording(&folder, Some(PATIENT)).display().to_string();
    let (status, out, err) = run(&mut program(&["replay", &path, "--settle", "500ms"]));
    assert_eq!(status, Some(0), "{err}");
    assert!(out.starts_with("Unsound"), "{out}");
    assert!(out.ends_with("\nsettle    500ms by --settle, 5s in the recording\n"), "{out}");
    let json = ["replay", &path, "--settle", "500ms", "--format", "json"];
    let (_, out, _) = run(&mut program(&json));
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(answer["decision"], "unsound");
    assert_eq!(answer["settle"]["used_ns"], 500_000_000u64);
    assert_eq!(answer["settle"]["recorded_ns"], 5_000_000_000u64);
    let (status, ..) = run(&mut program(&["replay", &path, "--settle", "0s"]));
    assert_eq!(status, Some(64), "a note takes some time");
}
