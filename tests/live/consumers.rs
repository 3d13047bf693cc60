//! Consumer mode from end to end: consumers are found by pid and by pid file, recorded and served, without a kqueue. A
//! stand-in for dtrace(1) prints what a real one printed about a real consumer.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::eventually;
use crate::common::exporter::{self, Exporter, PROGRAM};
use crate::common::played_consumer::{ConsumerRun, Sleeper};
use crate::common::stand_in_dtrace::StandInDtrace;
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Pid, Verdict};
use kqproc_exporter::source::dtrace::{self, RestartLimits};
use kqproc_exporter::source::live::{Live, LiveConfig, LiveError};
use kqproc_exporter::source::replay::Replay;
use kqproc_exporter::source::target::{Root, Target};
use serde_json::Value;

/// The configuration of a source with this dtrace and this consumer.
fn config_of(dtrace: &StandInDtrace, consumer: Root) -> LiveConfig {
    let limits =
        RestartLimits { retry_first: Duration::from_millis(1), ..RestartLimits::default() };
    let options = dtrace::DtraceOptions::default();
    LiveConfig {
        consumers: vec![Target { name: "supervisor".to_owned(), root: consumer }],
        dtrace: dtrace::DtraceOptions { path: Some(dtrace.path.clone()), limits, ..options },
        own_program: Some(PROGRAM.into()),
        ..LiveConfig::default()
    }
}

fn prepare(config: LiveConfig) -> Result<Live, LiveError> {
    Live::prepare(config, || Err(io::Error::other("no kqueue is needed")))
}

#[test]
fn a_consumer_is_found_by_its_pid_file_and_found_again() {
    let stand_in = StandInDtrace::new("falls-silent");
    let (mut first, second) = (Sleeper::start(), Sleeper::start());
    let pids = [first.pid(), second.pid()];
    let file = stand_in.file("pid");
    let live = prepare(config_of(&stand_in, Root::PidFile(file.clone()))).expect("prepared");
    let stop = live.stop();
    let mut pushed = Vec::new();
    live.run(&mut |input: Input<'_>| {
        pushed.push(match input {
            Input::Consumer { pid, .. } => {
                pid.map_or("none", |pid| ["first", "second"][usize::from(pid == pids[1])])
            }
            Input::DtraceUp { .. } => "up",
            Input::DtraceDown { .. } => "down",
            Input::Stdout { .. } => "begun",
            _ => return ControlFlow::Continue(()),
        });
        let text = |pid: Pid| format!("{pid}\n");
        match pushed.join(" ").as_str() {
            "none up begun" => fs::write(&file, text(pids[0])).expect("written"),
            "none up begun first down up begun" => first.end(),
            "none up begun first down up begun none" => {
                fs::write(&file, text(pids[1])).expect("written")
            }
            "none up begun first down up begun none second down up begun" => stop.request(),
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .expect("it ends well");
    let expected = "none up begun first down up begun none second down up begun down";
    assert_eq!(pushed.join(" "), expected);
    let watched = fs::read_to_string(stand_in.file("consumers")).expect("it was started");
    assert_eq!(watched, format!("pid == {}\npid == {}\n", pids[0], pids[1]));
    // The argument is for the clause of the marks, and dtrace(1) refuses one that is not used.
    let started = fs::read_to_string(stand_in.file("started")).expect("it was started");
    assert_eq!(started.lines().count(), 3);
    assert!(started.lines().all(|line| line.ends_with(".d ")), "{started}");
}

#[test]
fn a_consumer_that_is_named_by_its_pid_must_be_there() {
    let stand_in = StandInDtrace::new("falls-silent");
    let mut gone = Sleeper::start();
    let pid = gone.pid();
    gone.end();
    let Err(error) = prepare(config_of(&stand_in, Root::Pid(pid))) else {
        panic!("it is not there")
    };
    let expected = format!("consumer \"supervisor\": there is no process {pid}; give the pid");
    assert!(error.to_string().starts_with(&expected), "{error}");
}

/// A recording of this consumer, of all that the stand-in prints.
fn record(stand_in: &StandInDtrace, consumer: Pid) -> PathBuf {
    let output = stand_in.file("run.kqr");
    let recorder = Command::new(PROGRAM)
        .args(["record", "--consumer", &format!("supervisor=pid:{consumer}")])
        .arg("--dtrace.path")
        .arg(&stand_in.path)
        .arg("--output")
        .arg(&output)
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut recorder = Sleeper(recorder);
    eventually("all is printed", || stand_in.file("played").exists().then_some(()));
    assert!(recorder.interrupt().success());
    output
}

/// An exporter that watches this consumer.
fn serve(stand_in: &StandInDtrace, consumer: Pid) -> Exporter {
    Exporter::start(exporter::serve([
        format!("--consumer=supervisor=pid:{consumer}"),
        format!("--dtrace.path={}", stand_in.path.display()),
    ]))
}

/// What dtrace(1) printed, byte by byte, and who the consumer is.
#[test]
fn what_is_recorded_of_a_consumer_is_what_dtrace_printed() {
    let consumer = Sleeper::start();
    let stand_in = ConsumerRun::of_fixture("split-exit-only").played_by("replay", consumer.pid());
    let output = record(&stand_in, consumer.pid());
    let (mut consumers, mut stdout) = (Vec::new(), Vec::new());
    let replay = Replay::open(&output).expect("a recording");
    assert!(replay.meta().program.contains(&format!("/pid == {}/", consumer.pid())));
    replay
        .play(&mut |input: Input<'_>| {
            match input {
                Input::Consumer { pid, .. } => consumers.push(pid),
                Input::Stdout { bytes, .. } => stdout.extend_from_slice(bytes),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .expect("it is whole");
    assert_eq!(consumers, [Some(consumer.pid())]);
    assert!(stdout == fs::read(stand_in.file("stdout")).expect("what was printed"));
}

/// The figures are those of an independent check of the same runs.
#[test]
fn what_a_consumer_gets_is_judged_on_the_metrics_page() {
    for (run, births, deaths) in
        [("split-exit-only", None, 270.0), ("split15-attached-chain-stall", Some(120.0), 121.0)]
    {
        let consumer = Sleeper::start();
        let stand_in = ConsumerRun::of_fixture(run).played_by("ticks", consumer.pid());
        let exporter = serve(&stand_in, consumer.pid());
        let agreed =
            |fact: &str| format!(r#"kqproc_{fact}_total{{tree="supervisor",verdict="agreed"}}"#);
        let samples = exporter.scrape_until(|s| s.get(&agreed("deaths")) == Some(&deaths));
        assert_eq!(samples.get(&agreed("births")).copied().filter(|n| *n > 0.0), births, "{run}");
        let others = samples.iter().filter(|(name, n)| {
            let is_fact =
                name.starts_with("kqproc_births_total") || name.starts_with("kqproc_deaths_total");
            is_fact && !name.contains("agreed") && **n > 0.0
        });
        assert_eq!(others.collect::<Vec<_>>(), [], "{run}");
        assert_eq!(exporter.stop().code(), Some(0));
    }
}

/// One NOTE_EXIT of 428 was lost.
#[test]
fn what_was_recorded_of_a_consumer_replays_with_the_verdicts_of_the_live_run() {
    let consumer = Sleeper::start();
    let run = ConsumerRun::of_recording("consumer-15.1-one-lost-exit");
    let live = run.played_by("ticks", consumer.pid());
    let exporter = serve(&live, consumer.pid());
    let count = |fact: &str, verdict: &str| {
        format!(r#"kqproc_{fact}_total{{tree="supervisor",verdict="{verdict}"}}"#)
    };
    let samples =
        exporter.scrape_until(|samples| samples.get(&count("deaths", "agreed")) == Some(&427.0));
    let stand_in = run.played_by("replay", consumer.pid());
    let recorded = record(&stand_in, consumer.pid());
    let replay = Command::new(PROGRAM).args(["replay", "--format=json"]).arg(&recorded).output();
    let replay: Value = serde_json::from_slice(&replay.expect("it starts").stdout).expect("JSON");
    for fact in ["births", "deaths"] {
        let by_verdict = &replay["trees"]["supervisor"][fact];
        for verdict in Verdict::ALL {
            let expected = by_verdict[verdict.as_str()].as_f64();
            let live = samples.get(&count(fact, verdict.as_str())).copied();
            assert_eq!(live, expected, "{fact} {verdict}");
        }
    }
    assert_eq!(replay["trees"]["supervisor"]["deaths"]["lost_silent"], 1);
}

#[test]
fn the_processes_that_use_evfilt_proc_are_found_with_the_flag_to_watch_them() {
    let stand_in = StandInDtrace::new("sums");
    let ask = |format: &str| {
        let output = Command::new(PROGRAM)
            .args(["consumers", "--seconds=1", "--format", format, "--dtrace.path"])
            .arg(&stand_in.path)
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    fs::write(stand_in.file("stdout"), "T 2000000001 1\n").expect("written");
    assert!(ask("text").starts_with("In 2 s no process registered EVFILT_PROC"));
    let sums = "T 2000000001 1\nU 812 80000001 3 my sv\nG 812 40 my sv\nG 46 0 sh\nG 9 1 old\n";
    fs::write(stand_in.file("stdout"), sums).expect("written");
    let expected = "\
process  pid  notes                 registrations  events/s  to watch it
old        9  registered before                 0       0.5  --consumer=old=pid:9
my sv    812  NOTE_EXIT|NOTE_TRACK              3      20.0  --consumer=my_sv=pid:812
";
    let table = ask("text");
    let lines = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|l| l.split_whitespace().map(str::to_owned).collect()).collect()
    };
    assert_eq!(lines(&table), lines(expected), "{table}");
    let json: Value = serde_json::from_str(&ask("json")).expect("JSON");
    assert_eq!(json["consumers"][1]["flag"], "--consumer=my_sv=pid:812");
    assert_eq!(json["consumers"][1]["events_per_second"], 20.0);
}
