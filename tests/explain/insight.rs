//! `explain` and `report` from the command line: on recordings, on their parts, and on a running exporter.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use crate::common::exporter::{self, Exporter, PROGRAM};
use crate::common::recording;
use kqproc_exporter::input::Input;
use kqproc_exporter::recording::Writer;
use kqproc_exporter::source::replay::Replay;
use serde_json::Value;

/// Runs the program: its exit status, stdout and stderr.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).args(args).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn explain_is_plain_in_a_pipe_and_has_the_same_as_json() {
    let (status, text, _) = run(&["explain", "4463", "--bundled"]);
    assert_eq!(status, Some(0));
    assert!(text.starts_with("pid 4463 in the bundled recording\n"), "{text}");
    assert!(!text.contains('\x1b'));
    let (status, json, _) = run(&["explain", "4463", "--bundled", "--format", "json"]);
    assert_eq!(status, Some(0));
    let json: Value = serde_json::from_str(&json).expect("json");
    assert_eq!(json["lives"][0]["judged"][0]["verdict"], "lost_silent");
    assert_eq!(json["lives"][0]["judged"][0]["path"]["sure"], "likely");
}

#[test]
fn explain_reports_what_is_wrong_with_a_question() {
    let recording = recording("merged-orphan");
    let recording = recording.to_str().expect("a path");
    for (args, status, expected) in [
        (vec!["explain", "100000"], 64, "no pid"),
        (vec!["explain", "abc"], 64, "give a number from 0 to 99999"),
        (vec!["explain", "--incident", "abc"], 64, "give the number of an incident"),
        (vec!["explain", "--verdict", "gone"], 64, "lost, overwritten, corrupt"),
        (vec!["explain", "7", "--verdict", "lost"], 64, "cannot be used with"),
        (vec!["explain", "--recording", recording, "7"], 66, "cannot open 7"),
        (vec!["explain", "--incident", "999", "--recording", recording], 66, "no incident 999"),
        (vec!["explain", "7", "--incident", "1"], 64, "cannot be used with"),
        (vec!["explain", "99998", "--recording", recording], 66, "neither kqueue nor DTrace"),
        (vec!["explain", "7", "--recording", "/nowhere.kqr"], 66, "cannot open"),
        (vec!["explain", "--incident", "1", "--url", "a b"], 64, "is no URL"),
        (vec!["explain", "--url", "http://u:secret@localhost"], 64, "--password-file FILE"),
        (vec!["explain", "--user", "u"], 64, "--password-file"),
        (vec!["explain", "--ca-file", recording], 64, "is for https"),
        (
            vec!["explain", "--url", "https://localhost", "--ca-file", recording],
            65,
            "no usable certificate",
        ),
    ] {
        let (code, _, error) = run(&args);
        assert_eq!(code, Some(status), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
        assert!(!error.contains("secret"), "{args:?}: {error}");
    }
}

#[test]
fn without_an_exporter_the_error_says_what_to_do() {
    for question in [&["explain"][..], &["explain", "4463"], &["explain", "--incident", "1"]] {
        let (status, printed, error) = run(&[question, &["--url", "http://127.0.0.1:1"]].concat());
        assert_eq!((status, printed.as_str()), (Some(69), ""), "{question:?}");
        for way in ["kqproc_exporter serve", "--url", "--recording FILE"] {
            assert!(error.contains(way), "{question:?}: {error}");
        }
    }
}

/// An exporter that has played the bundled recording up to its loss, and the exporter's URL.
fn exporter() -> (Exporter, String) {
    let exporter = Exporter::start(exporter::serve(["--source=replay", "--speed=0"]));
    let lost = r#"kqproc_deaths_total{tree="default",verdict="lost_silent"}"#;
    exporter.scrape_until(|samples| samples.get(lost) == Some(&1.0));
    let url = format!("http://{}", exporter.addr);
    (exporter, url)
}

#[test]
fn explain_asks_a_running_exporter() {
    let (_exporter, url) = exporter();
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
    let https = url.replace("http:", "https:");
    let (status, _, error) = run(&["explain", "--url", &https]);
    assert_eq!(status, Some(69));
    assert!(error.contains("does it want http?"), "{error}");
}

#[test]
fn explain_shows_both_facts_of_a_pid_that_a_running_exporter_knows() {
    let (_exporter, url) = exporter();
    let (status, text, error) = run(&["explain", "4463", "--url", &url]);
    assert_eq!(status, Some(0), "{error}");
    for expected in [
        "serves a recording of another kernel",
        &format!("\npid 4463 at {url}\n"),
        "create, forked by 4152",
        "birth lost_silent",
        "death lost_silent",
        "why birth and death are lost_silent",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let (_, json, _) = run(&["explain", "4463", "--url", &url, "--format", "json"]);
    let json: Value = serde_json::from_str(&json).expect("json");
    assert_eq!(json["incidents"].as_array().expect("a list").len(), 2);
    let (status, _, error) = run(&["explain", "99998", "--url", &url]);
    assert_eq!(status, Some(66));
    assert!(error.contains("no incident of pid 99998"), "{error}");
}

#[test]
fn explain_lists_the_latest_incidents_of_a_tree() {
    let (_exporter, url) = exporter();
    let list = |more: &[&str]| {
        let (status, text, error) = run(&[&["explain", "--url", &url], more].concat());
        assert_eq!(status, Some(0), "{more:?}: {error}");
        let is_row = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        text.lines().filter(is_row).map(cells).collect::<Vec<_>>()
    };
    let lost = list(&["--tree", "default", "--verdict", "lost"]);
    let listed: Vec<&[String]> = lost.iter().map(|row| &row[2..]).collect();
    let row = |fact: &str| ["default", "4463", fact, "lost_silent"].map(str::to_owned);
    assert_eq!(listed, [row("death"), row("birth")], "newest first");
    assert_eq!(list(&[]).len(), 20);
    assert_eq!(list(&["--limit", "3", "--verdict", "overwritten"]).len(), 3);
    assert_eq!(list(&["--tree", "no & such"]).len(), 0);
}

#[test]
fn explain_without_a_pid_lists_the_incidents_of_a_recording() {
    let recording = recording("merged-orphan");
    let recording = recording.to_str().expect("a path");
    let explain = |more: &[&str]| {
        let (status, text, error) = run(&[&["explain", "--recording", recording], more].concat());
        assert_eq!(status, Some(0), "{more:?}: {error}");
        text
    };
    let rows = |text: &str| {
        let is_row = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
        text.lines().filter(is_row).count()
    };
    let newest = explain(&["--limit", "3"]);
    assert_eq!(rows(&newest), 3, "{newest}");
    assert!(newest.contains("The newest 3 of 186; --limit lists more."), "{newest}");
    let lost = explain(&["--verdict", "lost"]);
    assert_eq!((rows(&lost), lost.matches("4463").count()), (2, 2), "{lost}");
    let json: Value =
        serde_json::from_str(&explain(&["--verdict", "lost", "--format", "json"])).expect("json");
    let id = json["incidents"][0]["id"].to_string();
    assert_eq!(json["incidents"][0]["fact"], "death");
    let one = explain(&["--incident", &id]);
    assert!(one.starts_with(&format!("incident {id}, pid 4463, tree default\n")), "{one}");
    assert!(explain(&["--tree", "other"]).contains("No incidents in "), "a tree that is not there");
    let (status, text, error) = run(&["explain", "--bundled", "--verdict", "corrupt"]);
    assert_eq!(status, Some(0), "{error}");
    assert!(text.contains("No incidents in the bundled recording that match"), "{text}");
}

#[test]
fn a_recording_without_incidents_lists_none() {
    let recording = recording("split-13.2-enoent-drain");
    let (status, text, error) =
        run(&["explain", "--recording", recording.to_str().expect("a path")]);
    assert_eq!(status, Some(0), "{error}");
    assert!(text.contains("both witnesses agree on every fact."), "{text}");
}

#[test]
fn parts_of_a_recording_are_explained_and_reported_as_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = recording("merged-orphan");
    let (first, second) = (dir.path().join("run.kqr"), dir.path().join("run.1.kqr"));
    split(&whole, &first, &second);
    let [whole, first, second] = [&whole, &first, &second].map(|path| path.to_str().expect("text"));
    let explained = |paths: &[&str]| {
        let (status, text, error) = run(&[&["explain", "4463", "--recording"], paths].concat());
        assert_eq!(status, Some(0), "{error}");
        let (title, rest) = text.split_once('\n').expect("lines");
        (title.to_owned(), rest.to_owned())
    };
    let (title, text) = explained(&[first, second]);
    assert!(title.ends_with("run.kqr and 1 further part"), "{title}");
    assert_eq!(text, explained(&[whole]).1);
    let reported = |paths: &[&str]| {
        let (status, text, error) = run(&[&["report", "--format", "json"], paths].concat());
        assert_eq!(status, Some(0), "{error}");
        let mut page: Value = serde_json::from_str(&text).expect("json");
        page["origin"]["source"].take();
        page
    };
    assert_eq!(reported(&[first, second]), reported(&[whole]));
}

/// Writes the two halves of a recording as `record` does when it rotates.
fn split(whole: &Path, first: &Path, second: &Path) {
    let create = |path: &Path| std::fs::File::create(path).expect("created");
    let replay = Replay::open(whole).expect("a recording");
    let meta = replay.meta();
    let mut parts =
        [create(first), create(second)].map(|f| Writer::new(f, &meta).expect("written"));
    let mut count = 0;
    let played = replay.play(&mut |input: Input<'_>| {
        count += 1;
        let is_tree = matches!(input, Input::Tree { .. });
        for (i, part) in parts.iter_mut().enumerate() {
            if is_tree || i == usize::from(count > 200) && input != Input::End {
                part.append(&input).expect("written");
            }
        }
        ControlFlow::Continue(())
    });
    played.expect("an undamaged recording");
    assert!(count > 400, "the halves are halves: {count}");
    parts.into_iter().for_each(|part| drop(part.finish().expect("written")));
}

/// The path of a loss through the kernel is concluded from evidence that comes after the verdict. Three places had collected
/// it, each in its own way, and the status page contradicted `explain`.
#[test]
fn one_lost_process_has_one_explanation_wherever_it_is_shown() {
    let json = |args: &[&str]| -> Value {
        let (status, json, error) = run(args);
        assert_eq!(status, Some(0), "{error}");
        serde_json::from_str(&json).expect("json")
    };
    let of_pid = |incidents: &Value| -> Vec<Value> {
        let all = incidents.as_array().expect("incidents");
        all.iter().filter(|incident| incident["pid"] == 4463).cloned().collect()
    };
    let lives = json(&["explain", "4463", "--bundled", "--format", "json"]);
    let expected = &lives["lives"][0]["judged"][0]["path"];
    assert!(expected["function"].as_str().is_some_and(|f| f.starts_with("kqueue_scan ")));
    assert_eq!(expected["sure"], "likely");
    assert_eq!(&lives["lives"][0]["judged"][1]["path"], expected);

    let recording = recording("merged-orphan");
    let report = json(&["report", "--format", "json", recording.to_str().expect("a path")]);
    let reported = of_pid(&report["incidents"]);
    assert_eq!(reported.len(), 2);
    assert!(reported.iter().all(|incident| &incident["path"] == expected), "{reported:?}");

    let (exporter, url) = exporter();
    let served = exporter.get("/incidents?pid=4463");
    let served: Value = serde_json::from_slice(&served.body).expect("json");
    let served = of_pid(&served["incidents"]);
    assert_eq!(served.len(), 2);
    assert!(served.iter().all(|incident| &incident["kernel_path"] == expected), "{served:?}");

    let (_, lives, _) = run(&["explain", "4463", "--url", &url]);
    assert!(lives.contains("why birth and death are lost_silent"), "{lives}");
    let page = exporter.get("/");
    let shown = page.text();
    for incident in served {
        let id = incident["id"].to_string();
        let (_, explained, _) = run(&["explain", "--incident", &id, "--url", &url]);
        let note = "a call returned NOTE_CHILD of a child of its own, data 4463";
        for expected in [note, "kqueue_scan (f_event(kn, 0) == 0)", "sure      likely"] {
            assert!(explained.contains(expected), "{expected}: {explained}");
        }
        let link = format!("<a href=\"./incidents/{id}\">");
        let (_, article) = shown.split_once(&link).expect("on the status page");
        let (article, _) = article.split_once("</article>").expect("an article");
        for shown in [
            "NOTE_CHILD of a child of its own, data 4463",
            expected["sentence"].as_str().expect("a sentence"),
            "</code>, likely.",
        ] {
            assert!(article.contains(shown), "{shown}: {article}");
        }
    }
}

#[test]
fn the_ending_of_a_reports_name_decides_its_format() {
    let dir = tempfile::tempdir().expect("a directory");
    let recording = recording("merged-exit-stall");
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
    let whole = std::fs::read(recording("merged-orphan")).expect("a recording");
    std::fs::write(&cut, &whole[..whole.len() - 5]).expect("written");
    let args =
        ["report", cut.to_str().expect("a path"), "--output", output.to_str().expect("a path")];
    let (status, _, error) = run(&args);
    assert_ne!(status, Some(0));
    assert!(error.contains("before the damage") && error.contains("cut short"), "{error}");
    assert!(std::fs::read_to_string(output).expect("a report").contains("184 births"));
}
