//! The live source end to end: what it does when dtrace(1) dies, hangs, floods or cannot start, and when it registers
//! commands and pid files. dtrace(1) is a stand-in with every fault; the kernel runs a function of the test.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::common::PATIENCE;
use crate::common::exporter::PROGRAM;
use crate::common::scripted_kernel::{Scripted, quiet};
use crate::common::stand_in_dtrace::StandInDtrace;
use kqproc_exporter::input::{Attach, Input};
use kqproc_exporter::model::{Kevent, Pid};
use kqproc_exporter::source::dtrace::{self, RestartLimits};
use kqproc_exporter::source::kqueue::{KqueueApi, Notes};
use kqproc_exporter::source::live::{Live, LiveConfig, LiveError};
use kqproc_exporter::source::target::{Root, Target};

/// What a source pushed. Of batches, which come every few milliseconds, only the first registration.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pushed {
    Up,
    Down,
    Out(String),
    Err(String),
    Tree(String),
    Gone(u16),
    Attached(u32),
    End,
}

fn pushed(input: Input<'_>) -> Option<Pushed> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match input {
        Input::DtraceUp { .. } => Some(Pushed::Up),
        Input::DtraceDown { .. } => Some(Pushed::Down),
        Input::Stdout { bytes, .. } => Some(Pushed::Out(text(bytes))),
        Input::Stderr { bytes, .. } => Some(Pushed::Err(text(bytes))),
        Input::Tree { name, .. } => Some(Pushed::Tree(name.to_owned())),
        Input::TreeGone { id } => Some(Pushed::Gone(id.0)),
        Input::Batch(batch) => batch.attached.first().map(|a| Pushed::Attached(a.pid.get())),
        Input::End => Some(Pushed::End),
        Input::Config(_)
        | Input::Consumer { .. }
        | Input::BatchesLost { .. }
        | Input::Forks { .. } => None,
    }
}

/// The configuration of a source with this dtrace.
fn config_of(dtrace: &StandInDtrace) -> LiveConfig {
    let limits = RestartLimits {
        startup: Duration::from_secs(30),
        silence: Duration::from_secs(30),
        grace: Duration::from_secs(30),
        retry_first: Duration::from_millis(1),
        retry_most: Duration::from_millis(4),
        healthy: Duration::from_secs(60),
    };
    let root = Root::Pid(Pid::new(12345).expect("a pid"));
    LiveConfig {
        targets: vec![Target { name: "tree".to_owned(), root }],
        consumers: Vec::new(),
        notes: Notes::default(),
        stall: Duration::ZERO,
        dtrace: dtrace::DtraceOptions {
            path: Some(dtrace.path.clone()),
            compile: Duration::from_secs(30),
            limits,
            ..dtrace::DtraceOptions::default()
        },
        linger: None,
        keep_stderr: false,
        own_program: Some(PROGRAM.into()),
    }
}

/// Runs the source until `enough` accepts what was pushed so far, then stops it; everything that was pushed.
fn run(
    config: LiveConfig,
    kernel: impl KqueueApi + 'static,
    enough: fn(&[Pushed]) -> bool,
) -> Vec<Pushed> {
    let live = Live::prepare(config, || Ok(Box::new(kernel))).expect("it is prepared");
    let stop = live.stop();
    let (done, watch) = channel::<()>();
    let guard = {
        let stop = stop.clone();
        // If the source hangs, the test must still end.
        std::thread::spawn(move || {
            let hung = watch.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if hung {
                stop.request();
                stop.request();
            }
            hung
        })
    };
    let mut all = Vec::new();
    let result = live.run(&mut |input: Input<'_>| {
        if let Some(pushed) = pushed(input) {
            all.push(pushed);
            if enough(&all) && !stop.is_requested() {
                stop.request();
            }
        }
        ControlFlow::Continue(())
    });
    drop(done);
    assert!(!guard.join().expect("the guard lives"), "it hung; it pushed {all:?}");
    result.expect("it ends well");
    assert_eq!(all.last(), Some(&Pushed::End));
    all
}

fn text(all: &[Pushed]) -> String {
    let out = |pushed: &Pushed| match pushed {
        Pushed::Out(text) => Some(text.clone()),
        _ => None,
    };
    all.iter().filter_map(out).collect()
}

fn messages(all: &[Pushed]) -> String {
    let err = |pushed: &Pushed| match pushed {
        Pushed::Err(text) => Some(text.clone()),
        _ => None,
    };
    all.iter().filter_map(err).collect()
}

/// A letter for each start (U) and end (D) of dtrace, and one for each run of its output (o).
fn outline(all: &[Pushed]) -> String {
    let mut outline = String::new();
    for pushed in all {
        let letter = match pushed {
            Pushed::Up => 'U',
            Pushed::Down => 'D',
            Pushed::Out(_) => 'o',
            _ => continue,
        };
        if letter != 'o' || !outline.ends_with('o') {
            outline.push(letter);
        }
    }
    outline
}

fn downs(all: &[Pushed]) -> usize {
    all.iter().filter(|pushed| **pushed == Pushed::Down).count()
}

#[test]
fn a_healthy_dtrace_is_passed_on_byte_by_byte() {
    let stand_in = StandInDtrace::new("replay");
    let records = "B 1 1\nC 2 0 5 1 1 14\nX 3 0 5 1 1 32512\nT 4 4\n";
    fs::write(stand_in.file("stdout"), records).expect("written");
    fs::write(stand_in.file("stderr"), "dtrace: 12 drops on CPU 0\n").expect("written");
    let all = run(config_of(&stand_in), Scripted(quiet), |all| {
        text(all).ends_with("T 4 4\n")
            && messages(all).ends_with('\n')
            && all.contains(&Pushed::Attached(12345))
    });
    assert_eq!(text(&all), records);
    assert_eq!(messages(&all), "dtrace: 12 drops on CPU 0\n");
    assert_eq!(outline(&all), "UoD");
    assert_eq!(all[0], Pushed::Tree("tree".to_owned()));
    let (begun, attached) = (Pushed::Out(records.to_owned()), Pushed::Attached(12345));
    let place = |what: &Pushed| all.iter().position(|pushed| pushed == what);
    assert!(place(&begun) < place(&attached), "a tree that runs is tracked once dtrace traces");
    let started = fs::read_to_string(stand_in.file("started")).expect("it was started");
    assert!(started.ends_with(&format!("/proc-causes.d {}\n", std::process::id())), "{started}");
}

#[test]
fn what_dtrace_drains_after_sigterm_is_kept() {
    let all =
        run(config_of(&StandInDtrace::new("drains")), Scripted(quiet), |all| !text(all).is_empty());
    assert_eq!(text(&all), "B 1 1\nT 2 2\n\n");
    assert_eq!(outline(&all), "UoD");
}

#[test]
fn the_older_program_is_taken_where_the_newer_one_does_not_compile() {
    let stand_in = StandInDtrace::new("old-kernel");
    fs::write(stand_in.file("stdout"), "B 1 1\n").expect("written");
    run(config_of(&stand_in), Scripted(quiet), |all| !text(all).is_empty());
    let started = fs::read_to_string(stand_in.file("started")).expect("it was started");
    assert!(started.contains("/proc-xstat.d "), "{started}");
}

#[test]
fn options_reach_the_program_in_its_pragmas() {
    let stand_in = StandInDtrace::new("replay");
    let mut config = config_of(&stand_in);
    config.dtrace.bufsize = "1m".parse().expect("a size");
    let live = Live::prepare(config, || Ok(Box::new(Scripted(quiet)))).expect("prepared");
    assert!(live.meta("").program.contains("#pragma D option bufsize=1m\n"));
}

#[test]
fn a_dtrace_that_dies_or_ends_is_an_outage_each_time() {
    for (fault, expected) in [("dies", "UDUDUD"), ("early", "UoDUoDUoD")] {
        let stand_in = StandInDtrace::new(fault);
        let all = run(config_of(&stand_in), Scripted(quiet), |all| downs(all) == 3);
        assert!(outline(&all).starts_with(expected), "{fault}: {}", outline(&all));
        let refused = messages(&all).contains("could not enable tracing: Permission denied\n");
        assert_eq!(refused, fault == "dies");
    }
}

#[test]
fn a_dtrace_that_hangs_is_replaced() {
    for (fault, expected) in [("mute", "UDUD"), ("falls-silent", "UoDUoD")] {
        let stand_in = StandInDtrace::new(fault);
        let mut config = config_of(&stand_in);
        match fault {
            "mute" => config.dtrace.limits.startup = Duration::from_millis(50),
            _ => config.dtrace.limits.silence = Duration::from_millis(50),
        }
        let all = run(config, Scripted(quiet), |all| downs(all) == 2);
        assert!(outline(&all).starts_with(expected), "{fault}: {}", outline(&all));
    }
}

#[test]
fn a_dtrace_that_ignores_sigterm_is_killed() {
    let stand_in = StandInDtrace::new("stubborn");
    let mut config = config_of(&stand_in);
    config.dtrace.limits.grace = Duration::from_millis(50);
    let all = run(config, Scripted(quiet), |all| !text(all).is_empty());
    assert_eq!(outline(&all), "UoD");
}

#[test]
fn a_child_that_dtrace_leaves_behind_delays_nothing() {
    let all = run(config_of(&StandInDtrace::new("leaves-a-child")), Scripted(quiet), |all| {
        downs(all) == 2
    });
    assert!(outline(&all).starts_with("UoDUoD"));
}

#[test]
fn half_a_line_ends_with_its_dtrace() {
    let all = run(config_of(&StandInDtrace::new("half")), Scripted(quiet), |all| downs(all) == 2);
    let first = all.iter().position(|pushed| *pushed == Pushed::Down).expect("it ended");
    assert_eq!(text(&all[..first]), "B 1 1\nC 1044");
    assert!(text(&all[first..]).starts_with("B 1 1\n"));
}

#[test]
fn garbage_is_passed_on_and_what_follows_it_as_well() {
    let all = run(
        config_of(&StandInDtrace::new("garbage")),
        Scripted(quiet),
        |all| matches!(all.last(), Some(Pushed::Out(text)) if text.ends_with("T 2 2\n")),
    );
    let text = text(&all);
    assert!(text.starts_with("B 1 1\n\0\n\u{fffd}"));
    assert!(text.ends_with("\nT 2 2\n"));
    assert!(text.len() > 4 << 20);
}

#[test]
fn a_flood_ends_and_nothing_of_it_is_torn() {
    let all = run(config_of(&StandInDtrace::new("flood")), Scripted(quiet), |all| downs(all) == 1);
    let first = all.iter().position(|pushed| *pushed == Pushed::Down).expect("it ended");
    let text = text(&all[..first]);
    let (mut whole, mut lost) = (0, 0);
    for line in text.lines() {
        match line {
            "B 1 1" => {}
            "X 1 0 5 1 1 32512" => whole += 1,
            line => {
                let bytes = line.strip_prefix("! ").and_then(|l| l.split_once(' '));
                lost += bytes.and_then(|(n, _)| n.parse::<usize>().ok()).expect(line) / 18;
            }
        }
    }
    assert_eq!(whole + lost, 3_000_000);
}

#[test]
fn without_the_cause_probes_the_rest_of_the_program_runs() {
    for (fault, causes) in [("no-causes", true), ("replay", false)] {
        let stand_in = StandInDtrace::new(fault);
        fs::write(stand_in.file("stdout"), "B 1 1\n").expect("written");
        let mut config = config_of(&stand_in);
        config.dtrace.causes = causes;
        let all = run(config, Scripted(quiet), |all| !text(all).is_empty());
        assert_eq!(outline(&all), "UoD", "{fault}");
        let started = fs::read_to_string(stand_in.file("started")).expect("it was started");
        assert!(started.contains("/proc.d "), "{started}");
    }
}

/// The error of a source that cannot be prepared.
fn refusal(config: LiveConfig) -> String {
    match Live::prepare(config, || Ok(Box::new(Scripted(quiet)))) {
        Ok(_) => "none".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_error_names_what_is_missing_and_what_to_do() {
    let stand_in = StandInDtrace::new("no-program");
    let refused = refusal(config_of(&stand_in));
    assert!(refused.contains("no D program compiles"), "{refused}");
    assert!(refused.contains("p_xexit is not a member"), "{refused}");

    let mut config = config_of(&stand_in);
    config.dtrace.path = Some("/nonexistent/dtrace".into());
    let refused = refusal(config);
    assert!(refused.contains("--dtrace.path"), "{refused}");

    let slow = StandInDtrace::new("compiles-for-ever");
    let mut config = config_of(&slow);
    config.dtrace.compile = Duration::from_millis(50);
    assert!(refusal(config).contains("no answer within 50ms"));

    let mut config = config_of(&stand_in);
    config.targets.push(config.targets[0].clone());
    assert!(refusal(config).contains("two trees are named \"tree\""));

    let mut config = config_of(&stand_in);
    let consumer = |n: u32| Target { name: format!("sv{n}"), root: config.targets[0].root.clone() };
    config.consumers = (1..=65).map(consumer).collect();
    assert!(refusal(config).contains("65 consumers: one exporter watches 64 at most"));

    let mut config = config_of(&stand_in);
    let consumer = |name: &str| Target { name: name.to_owned(), ..config.targets[0].clone() };
    config.consumers = vec![consumer("sv"), consumer("again")];
    assert!(refusal(config).contains("\"sv\" and \"again\" are the same process: leave one out"));

    let mut config = config_of(&stand_in);
    config.targets.clear();
    assert!(refusal(config).contains("nothing to watch"));
}

#[test]
#[cfg(not(target_os = "freebsd"))]
fn without_a_kqueue_nothing_else_is_missed() {
    let stand_in = StandInDtrace::new("replay");
    let mut config = config_of(&stand_in);
    config.dtrace.path = Some("/nonexistent/dtrace".into());
    let error =
        Live::prepare(config, kqproc_exporter::source::kqueue::open).err().expect("no kqueue here");
    assert!(matches!(error, LiveError::Kqueue(_)));
    assert!(error.to_string().contains("this is not FreeBSD"), "{error}");
}

#[test]
fn a_sink_that_breaks_off_ends_everything() {
    let stand_in = StandInDtrace::new("falls-silent");
    let kernel = Box::new(Scripted(quiet));
    let live = Live::prepare(config_of(&stand_in), || Ok(kernel)).expect("prepared");
    let mut count = 0;
    let result = live.run(&mut |_: Input<'_>| {
        count += 1;
        if count == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    result.expect("it ends well");
    assert_eq!(count, 3);
}

#[test]
fn a_kevent_that_fails_ends_the_source_with_the_reason() {
    let broken = |_: &[Attach], _: &mut Vec<Kevent>| Err(io::Error::from_raw_os_error(9));
    let stand_in = StandInDtrace::new("falls-silent");
    let live =
        Live::prepare(config_of(&stand_in), || Ok(Box::new(Scripted(broken)))).expect("prepared");
    let mut last = None;
    let result = live.run(&mut |input: Input<'_>| {
        last = pushed(input).or(last.take());
        ControlFlow::Continue(())
    });
    assert!(matches!(result, Err(LiveError::Kevent(_))));
    assert_eq!(last, Some(Pushed::End));
}

#[test]
fn a_command_begins_once_it_is_tracked_and_dtrace_has_begun() {
    let stand_in = StandInDtrace::new("late");
    let (ran, go) = (stand_in.file("ran"), stand_in.file("go"));
    let mut config = config_of(&stand_in);
    let command = ["/bin/sh", "-c", "echo ran >>\"$0\""].map(Into::into).into_iter();
    let root = Root::Command(command.chain([ran.clone().into_os_string()]).collect());
    config.targets = vec![Target { name: "command".to_owned(), root }];
    config.linger = Some(Duration::ZERO);
    let (mut tracked, mut calls) = (None, 0);
    let kernel = Scripted(move |changes: &[Attach], _: &mut Vec<Kevent>| {
        tracked = tracked.or(changes.first().map(|change| change.pid));
        if tracked.is_some() {
            calls += 1;
        }
        // By now it would have run if it did not wait.
        if calls == 200 {
            assert!(!ran.exists());
            fs::write(&go, "").expect("written");
        }
        Ok(())
    });
    // It ends by itself, when the command has.
    let all = run(config, kernel, |_| false);
    assert!(all.iter().any(|pushed| matches!(pushed, Pushed::Attached(_))));
    assert_eq!(fs::read_to_string(stand_in.file("ran")).expect("it ran"), "ran\n");
}

#[test]
fn a_command_that_never_begins_is_given_up_when_the_source_stops() {
    let stand_in = StandInDtrace::new("mute");
    let mut config = config_of(&stand_in);
    let ran = stand_in.file("ran");
    let root = Root::Command(vec!["/usr/bin/touch".into(), ran.clone().into_os_string()]);
    config.targets = vec![Target { name: "command".to_owned(), root }];
    run(config, Scripted(quiet), |all| all.iter().any(|s| matches!(s, Pushed::Attached(_))));
    assert!(!ran.exists());
}

#[test]
fn a_pid_file_is_waited_for_and_its_next_process_is_tracked_too() {
    let stand_in = StandInDtrace::new("falls-silent");
    let mut config = config_of(&stand_in);
    let path = stand_in.file("pid");
    fs::write(&path, "junk\n").expect("written");
    let root = Root::PidFile(path.clone());
    config.targets = vec![Target { name: "service".to_owned(), root }];
    let mut calls = 0;
    let mut ended: Option<Instant> = None;
    let kernel = Scripted(move |changes: &[Attach], events: &mut Vec<Kevent>| {
        calls += 1;
        if calls == 5 {
            fs::write(&path, "111\n").expect("written");
        }
        // The file names an ended process for longer than the source takes to look again.
        if ended.take_if(|at| at.elapsed() > Duration::from_millis(1300)).is_some() {
            fs::write(&path, "222\n").expect("written");
        }
        let Some(change) = changes.first() else { return Ok(()) };
        let (ident, udata) = (u64::from(change.pid.get()), change.tree.cookie());
        if ident == 111 {
            let (flags, fflags) = (0x8030, 0x8000_0000);
            events.push(Kevent { ident, flags, fflags, data: 0, udata });
            ended = Some(Instant::now());
        }
        Ok(())
    });
    let all = run(config, kernel, |all| all.contains(&Pushed::Attached(222)));
    let trees: Vec<&Pushed> =
        all.iter().filter(|s| matches!(s, Pushed::Attached(_) | Pushed::Gone(_))).collect();
    assert_eq!(trees, [&Pushed::Attached(111), &Pushed::Gone(0), &Pushed::Attached(222)]);
}

#[test]
fn a_run_that_is_to_end_does_not_wait_for_dtrace_for_ever() {
    let stand_in = StandInDtrace::new("dies");
    let mut config = config_of(&stand_in);
    config.linger = Some(Duration::ZERO);
    config.dtrace.limits.startup = Duration::from_millis(50);
    let live = Live::prepare(config, || Ok(Box::new(Scripted(quiet)))).expect("prepared");
    let result = live.run(&mut |_: Input<'_>| ControlFlow::Continue(()));
    assert!(matches!(result, Err(LiveError::NeverBegan(_))), "{result:?}");
}

#[test]
fn a_command_that_cannot_be_tracked_is_given_up() {
    let stand_in = StandInDtrace::new("falls-silent");
    let mut config = config_of(&stand_in);
    let ran = stand_in.file("ran");
    let root = Root::Command(vec!["/usr/bin/touch".into(), ran.clone().into_os_string()]);
    config.targets = vec![Target { name: "command".to_owned(), root }];
    config.linger = Some(Duration::ZERO);
    let kernel = Scripted(|changes: &[Attach], events: &mut Vec<Kevent>| {
        let refused = |change: &Attach| {
            let (ident, udata) = (u64::from(change.pid.get()), change.tree.cookie());
            Kevent { ident, flags: 0x4000, fflags: 0, data: 12, udata }
        };
        events.extend(changes.iter().map(refused));
        Ok(())
    });
    // It ends by itself.
    let all = run(config, kernel, |_| false);
    assert!(all.contains(&Pushed::Gone(0)), "{all:?}");
    assert!(!ran.exists());
}
