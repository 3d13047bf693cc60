//! The commands that answer once, `check`, `consumers` and `record`, about a host whose dtrace(1) a command reaches.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::common::eventually;
use crate::common::exporter::PROGRAM;
use crate::common::played_consumer::Sleeper;
use crate::common::stand_in_ssh::StandInSsh;
use crate::remote::output;
use kqproc_exporter::input::Input;
use kqproc_exporter::model::Pid;
use kqproc_exporter::recording::Meta;
use kqproc_exporter::source::replay::Replay;
use serde_json::{Value, json};

/// What consumers.d printed in five seconds, behind a banner.
const SURVEY: &str =
    "Willkommen\nB 1000000000 7\n\nT 6000000000 9\nU 812 80000001 3 my sv\nG 812 40 my sv\n";

#[test]
fn check_reaches_dtrace_over_the_command_and_says_which_kernel_is_there() {
    let link = StandInSsh::plays("merged-exit-only");
    let user = format!("--user={}", nix::unistd::geteuid());
    let check = |host: &str| {
        let listen = "--web.listen-address=127.0.0.1:0";
        output(&["check", "--dtrace.command", &link.command(host), &user, listen])
    };
    let (status, text) = check("old");
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains("FreeBSD 10.1-RELEASE, merged-status expected; proc-xstat.d compiles"),
        "{text}"
    );
    let (status, text) = check("down");
    assert_eq!(status, Some(69), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[test]
fn consumers_of_another_host_are_found_over_the_command() {
    let link = StandInSsh::plays("merged-exit-only");
    fs::write(link.file("survey"), SURVEY).expect("written");
    let found = |format: &str| {
        let output = Command::new(PROGRAM)
            .args(["consumers", "--seconds=5", "--format", format, "--dtrace.command"])
            .arg(link.command("old"))
            .output()
            .expect("it starts");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{log}");
        String::from_utf8(output.stdout).expect("text")
    };
    let table = found("text");
    let row = table.lines().nth(1).expect("a row").split_whitespace().collect::<Vec<_>>();
    let expected =
        ["my", "sv", "812", "NOTE_EXIT|NOTE_TRACK", "3", "8.0", "--consumer=my_sv=pid:812"];
    assert_eq!((row.as_slice(), table.lines().count()), (&expected[..], 2), "{table}");
    let answer: Value = serde_json::from_str(&found("json")).expect("JSON");
    let one = json!({
        "process": "my sv", "pid": 812, "notes": "NOTE_EXIT|NOTE_TRACK", "registrations": 3, "events": 40,
        "events_per_second": 8.0, "flag": "--consumer=my_sv=pid:812",
    });
    assert_eq!(answer, json!({ "seconds": 5.0, "consumers": [one] }));
    // Nothing here can end a dtrace there and still read its sums: the program ends itself.
    let program = fs::read_to_string(link.file("program")).expect("it was run");
    assert!(program.contains("\ntick-5s\n{\n\texit(0);\n}"), "{program}");
    assert_eq!(
        fs::read_to_string(link.file("started")).unwrap(),
        "old -s /dev/stdin 0\n".repeat(2)
    );
}

#[test]
fn a_survey_that_does_not_come_to_its_end_is_no_answer() {
    let link = StandInSsh::plays("merged-exit-only");
    fs::write(link.file("survey"), SURVEY).expect("written");
    for (host, said) in [
        ("breaks", "ended before its time"),
        ("breaks", "Connection to breaks closed by remote host"),
        ("refuses", "DTrace device not available on system"),
        ("down", "Connection refused"),
        ("stranger", "Permission denied (publickey)"),
        ("bare", "dtrace: Command not found"),
    ] {
        let command = link.command(host);
        let (status, text) = output(&["consumers", "--seconds=1", "--dtrace.command", &command]);
        assert_eq!(status, Some(69), "{host}: {text}");
        assert!(text.contains(said) && !text.contains("no process"), "{host}: {text}");
    }
}

/// Records the consumer of `host` until all is played, and ends it as somebody does at a terminal.
fn record(link: &StandInSsh, host: &str, file: &Path) -> ExitStatus {
    let recorder = Command::new(PROGRAM)
        .args(["record", "--dtrace.command", &link.command(host)])
        .arg(format!("--consumer=old=pid:{}", link.pid))
        .args(["--note=by hand", "--output"])
        .arg(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut recorder = Sleeper(recorder);
    eventually("all is played", || link.file("played").exists().then_some(()));
    recorder.interrupt()
}

/// A recording: its origin, its consumers, what dtrace printed, and when its link was up (`u`) and down (`d`).
fn contents(file: &Path) -> (Meta, Vec<Option<Pid>>, String, String) {
    let replay = Replay::open(file).expect("a recording");
    let meta = replay.meta().clone();
    let (mut consumers, mut stdout, mut link) = (Vec::new(), Vec::new(), String::new());
    let played = replay.play(&mut |input: Input<'_>| {
        match input {
            Input::Consumer { pid, .. } => consumers.push(pid),
            Input::Stdout { bytes, .. } => stdout.extend_from_slice(bytes),
            Input::DtraceUp { .. } => link.push('u'),
            Input::DtraceDown { .. } => link.push('d'),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    played.expect("an undamaged recording");
    (meta, consumers, String::from_utf8(stdout).expect("text"), link)
}

fn replay(file: &Path) -> Value {
    let replay = Command::new(PROGRAM).args(["replay", "--format=json"]).arg(file).output();
    serde_json::from_slice(&replay.expect("it starts").stdout).expect("JSON")
}

#[test]
fn what_is_recorded_over_a_command_replays_with_the_figures_of_that_run() {
    let link = StandInSsh::plays("merged-attached-enoent");
    let file = link.file("run.kqr");
    assert_eq!(record(&link, "old", &file).code(), Some(0));
    let (meta, consumers, stdout, up_and_down) = contents(&file);
    assert_eq!(
        (meta.osreldate, meta.uname.as_str(), meta.note.as_str()),
        (1_001_000, "FreeBSD 10.1-RELEASE", "by hand")
    );
    assert!(
        meta.program.contains("p_xstat")
            && meta.program.contains(&format!("/pid == {}/", link.pid))
    );
    assert_eq!(consumers, [link.pid.parse().ok().and_then(Pid::new)]);
    let printed = fs::read_to_string(link.file("stdout")).expect("a run");
    assert!(stdout.starts_with(&printed), "the records alone, without a banner");
    assert_eq!(up_and_down, "ud");
    let replay = replay(&file);
    let facts = |fact: &str, verdict: &str| replay["trees"]["old"][fact][verdict].clone();
    assert_eq!(facts("births", "agreed"), 144);
    assert_eq!(facts("births", "overwritten"), 56);
    assert_eq!(facts("deaths", "agreed"), 201);
    assert_eq!(replay["regime"], "merged-status");
    assert_eq!(replay["decision"], "unsound");
}

/// The outage is in the recording, so that nothing of it is called lost when that is replayed.
#[test]
fn a_link_that_is_cut_while_it_is_recorded_makes_the_recording_blind() {
    let link = StandInSsh::plays("merged-attached-chain-stall");
    link.is_cut_once();
    let file = link.file("run.kqr");
    assert_eq!(record(&link, "old", &file).code(), Some(0));
    let (_, consumers, stdout, up_and_down) = contents(&file);
    assert_eq!(up_and_down, "udud");
    assert_eq!(consumers, [link.pid.parse().ok().and_then(Pid::new)]);
    assert_eq!(stdout.matches("B ").count(), 2);
    let totals = &replay(&file)["totals"];
    for fact in ["births", "deaths"] {
        for verdict in ["lost_reported", "lost_silent", "lost_inherited", "corrupt"] {
            assert_eq!(totals[fact][verdict], 0, "{fact}: {totals}");
        }
        assert_ne!(totals[fact]["agreed"], 0, "{fact}: {totals}");
        assert_ne!(totals[fact]["undecided"], 0, "{fact}: {totals}");
    }
}

#[test]
fn nothing_is_recorded_of_a_host_that_is_not_reached() {
    let link = StandInSsh::plays("merged-exit-only");
    let file = link.file("run.kqr");
    for (host, said) in [
        ("down", "Connection refused"),
        ("stranger", "Permission denied (publickey)"),
        ("bare", "dtrace: Command not found"),
    ] {
        let consumer = format!("--consumer=old=pid:{}", link.pid);
        let to = format!("--output={}", file.display());
        let (status, text) =
            output(&["record", "--dtrace.command", &link.command(host), &consumer, &to]);
        assert_eq!(status, Some(69), "{host}: {text}");
        assert!(text.contains(said), "{host}: {text}");
        assert!(!file.exists(), "{host}: there is nothing to replay");
    }
}
