//! Failures: each is reported once, with what to do about it, and has the exit status of sysexits(3).

use std::fs;
use std::process::Stdio;

use crate::common::recording;
use crate::{program, run};

/// A folder with every kind of file that is no recording.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let whole = fs::read(recording("merged-orphan")).expect("a recording");
    let mut newer = whole.clone();
    newer[8] = 9;
    let mut damaged = whole.clone();
    damaged[9000] ^= 1;
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("text", b"hello\n"),
        ("cut.kqr", &whole[..5000]),
        ("newer.kqr", &newer),
        ("damaged.kqr", &damaged),
        ("whole.kqr", &whole),
    ] {
        fs::write(at(name), bytes).expect("written");
    }
    fs::create_dir(at("bare")).expect("a folder");
    fs::create_dir(at("run")).expect("a folder");
    fs::write(at("run/pid.txt"), "812").expect("written");
    folder
}

/// A command line, its exit status, and a part of the message that says what to do.
const FAILURES: &[(&str, i32, &str)] = &[
    ("replay nowhere", 66, "No such file or directory (os error 2); give a recording"),
    ("replay bare", 65, "give the folder of one run, or a recording file"),
    ("replay empty", 65, "nothing was recorded"),
    ("replay text", 65, "give a file that `record` wrote"),
    ("replay cut.kqr", 65, "verdicts are those of the part before the damage"),
    ("replay damaged.kqr", 65, "copy the file again"),
    ("replay newer.kqr", 65, "use the release that recorded it, or a newer one"),
    ("replay --formt json whole.kqr", 64, "'--format'"),
    ("report nowhere", 66, "give a recording"),
    ("report cut.kqr", 65, "the report is on the part before the damage"),
    ("report whole.kqr --output bare", 74, "cannot write bare, which --output names"),
    ("report whole.kqr --output /dev/full", 74, "No space left"),
    ("record --import run --output /dev/full", 74, "cannot write /dev/full, which --output names"),
    ("explain 1 --recording bare", 65, "give the folder of one run"),
    ("explain 99 --recording whole.kqr", 66, "give the recording that it is in"),
    ("explain 99 --bundled --recording whole.kqr", 64, "cannot be used with"),
    ("explain abc", 64, "give a number from 0 to 99999"),
    ("explain --incident 1 --url localhost:1", 64, "give a URL like http://127.0.0.1:10180"),
    ("explain --incident 1 --url http://127.0.0.1:1", 69, "say where it is with --url"),
    ("record --output new --import nowhere", 66, "cannot read nowhere"),
    ("record --output new --import text", 65, "a recording file is replayed as it is"),
    ("record --output new", 78, "give --kqueue.target, --consumer, or a command after --"),
    ("simulate --count 2 --output bare", 74, "which --output names"),
    ("simulate --set preempt=2", 64, "give a chance from 0"),
    ("simulate --set reader-us=99999999999999999999", 64, "reader-us: give a number from 0"),
    ("load chain --depth 17", 64, "0..=16"),
    ("load threads --threads 0", 64, "1..=256"),
    ("load no-such-shape", 64, "forkexit"),
    ("serve --source replay --recording text", 65, "give a file that `record` wrote"),
    ("serve --source replay --kqueue.stall 50ms", 64, "go with --source live"),
    ("serve --source live --loop", 64, "go with --source replay"),
    ("serve --source live", 78, "nothing to watch"),
    ("serve --web.telemetry-path /runbook", 64, "taken by another endpoint"),
    ("simulate --user nobody", 64, "--serve"),
    ("simulate --quality --set cpus=4", 64, "chooses kernels"),
    ("serve --source replay --speed=-1", 64, "0 is as fast as possible"),
    ("serve --source replay --web.config.file nowhere", 78, "with --web.config.file"),
    ("serve --source replay --web.listen-address 192.0.2.1:80", 69, "--web.listen-address"),
    ("serve --config.file nowhere", 78, "with --config.file"),
    ("check --cost --config.file nowhere", 78, "with --config.file"),
    ("completions tcsh", 64, "zsh"),
    ("nothing", 64, "--help"),
    ("", 64, "Usage:"),
];

#[test]
fn every_failure_says_what_to_do_once_and_has_its_status() {
    let folder = folder();
    for (line, status, advice) in FAILURES {
        let args: Vec<&str> = line.split_whitespace().collect();
        let (code, _, error) = run(program(&args).current_dir(&folder));
        assert_eq!(code, Some(*status), "{line}: {error}");
        assert!(error.contains(advice), "{line}: {error}");
        assert!(error.matches("(os error").count() <= 1, "{line}, twice: {error}");
        assert!(!error.contains("panicked"), "{line}: {error}");
    }
    assert!(!folder.path().join("new").exists(), "no file was written");
}

#[test]
#[cfg(not(target_os = "freebsd"))]
fn on_another_system_the_error_names_it_and_what_to_do() {
    for line in
        ["stress", "record --output /nonexistent/new -- true", "serve --kqueue.target=a=pid:1"]
    {
        let args: Vec<&str> = line.split(' ').collect();
        let (code, _, error) = run(&mut program(&args));
        assert_eq!(code, Some(69), "{line}: {error}");
        let advice = "this is not FreeBSD; here, serve and replay judge recordings";
        assert!(error.contains(advice), "{line}: {error}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let recording = recording("merged-orphan").display().to_string();
    for args in [vec!["report", &recording], vec!["--help"], vec!["completions", "zsh"]] {
        let mut command = program(&args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn a_full_disk_behind_stdout_is_reported() {
    let recording = recording("merged-orphan").display().to_string();
    let explain = vec!["explain", "4463", "--bundled"];
    for args in [vec!["replay", &recording], vec!["report", &recording], explain] {
        let full = fs::File::options().write(true).open("/dev/full").expect("it is there");
        let (code, _, error) = run(program(&args).stdout(full));
        assert_eq!(code, Some(74), "{args:?}: {error}");
        assert!(error.contains("cannot write to stdout"), "{args:?}: {error}");
    }
}
