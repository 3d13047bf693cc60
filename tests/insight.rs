//! `explain` and `report` as they are called.

mod common;

use std::process::Command;

use common::exporter::{self, Exporter, PROGRAM};
use common::words::path;
use serde_json::Value;

/// Runs the program: its exit status, what it printed, and what it complained about.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).args(args).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn explain_is_plain_in_a_pipe_and_has_the_same_as_json() {
    let (status, text, _) = run(&["explain", "4463"]);
    assert_eq!(status, Some(0));
    assert!(text.starts_with("pid 4463 in the bundled recording\n"), "{text}");
    assert!(!text.contains('\x1b'));
    let (status, json, _) = run(&["explain", "4463", "--format", "json"]);
    assert_eq!(status, Some(0));
    let json: Value = serde_json::from_str(&json).expect("json");
    assert_eq!(json["lives"][0]["judged"][0]["verdict"], "lost_silent");
    assert_eq!(json["lives"][0]["judged"][0]["path"]["sure"], "likely");
}

#[test]
fn explain_says_what_is_wrong_with_a_question() {
    let recording = path("merged-orphan");
    let recording = recording.to_str().expect("a path");
    for (args, status, words) in [
        (vec!["explain", "100000"], 64, "no pid"),
        (vec!["explain"], 64, "<PID|--incident <ID>>"),
        (vec!["explain", "7", "--incident", "1"], 64, "cannot be used with"),
        (vec!["explain", "99998", "--recording", recording], 66, "neither kqueue nor DTrace"),
        (vec!["explain", "7", "--recording", "/nowhere.kqr"], 66, "cannot open"),
        (vec!["explain", "--incident", "1", "--url", "https://localhost"], 64, "only http "),
        (vec!["explain", "--incident", "1", "--url", "a b"], 64, "is no URL"),
        (
            vec!["explain", "--incident", "1", "--url", "http://127.0.0.1:1"],
            69,
            "is an exporter there?",
        ),
    ] {
        let (code, _, error) = run(&args);
        assert_eq!(code, Some(status), "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
    }
}

#[test]
fn explain_asks_a_running_exporter() {
    let exporter = Exporter::start(exporter::serve(["--source=replay", "--speed=0"]));
    exporter.logs("come to its end");
    let url = format!("http://{}", exporter.addr);
    let (status, text, error) = run(&["explain", "--incident", "1", "--url", &url]);
    assert_eq!(status, Some(0), "{error}");
    assert!(text.starts_with("incident 1, pid 4153, tree default\n"), "{text}");
    assert!(text.contains("why the birth is overwritten"), "{text}");
    let (status, json, _) = run(&["explain", "--incident", "1", "--url", &url, "--format", "json"]);
    assert_eq!(status, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&json).expect("json")["pid"], 4153);
    let (status, _, error) = run(&["explain", "--incident", "9999", "--url", &url]);
    assert_eq!(status, Some(69));
    assert!(error.contains("404"), "{error}");
}

#[test]
fn a_report_is_what_its_name_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let recording = path("merged-exit-stall");
    let recording = recording.to_str().expect("a path");
    for (name, begins) in [("a.html", "<!DOCTYPE html>"), ("a.md", "# "), ("a.json", "{")] {
        let output = dir.path().join(name);
        let output = output.to_str().expect("a path");
        let (status, printed, error) = run(&["report", recording, "--output", output]);
        assert_eq!((status, printed.as_str()), (Some(0), ""), "{error}");
        let text = std::fs::read_to_string(output).expect("a report");
        assert!(text.starts_with(begins), "{name}");
        let format = name.rsplit('.').next().map(|e| if e == "md" { "markdown" } else { e });
        let (_, printed, _) = run(&["report", recording, "--format", format.expect("a format")]);
        assert_eq!(printed, text, "{name}");
    }
}

#[test]
fn what_is_left_of_a_recording_is_reported() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cut, output) = (dir.path().join("cut.kqr"), dir.path().join("cut.html"));
    let whole = std::fs::read(path("merged-orphan")).expect("a recording");
    std::fs::write(&cut, &whole[..whole.len() - 5]).expect("written");
    let args =
        ["report", cut.to_str().expect("a path"), "--output", output.to_str().expect("a path")];
    let (status, _, error) = run(&args);
    assert_ne!(status, Some(0));
    assert!(error.contains("before the damage") && error.contains("cut short"), "{error}");
    assert!(std::fs::read_to_string(output).expect("a report").contains("184 births"));
}
