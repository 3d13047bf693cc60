//! `stress`, `record` and `serve` on a kernel, from the command line to the answer and the exit status. The kernel
//! (`examples/stand_in.rs`) and dtrace(1) are stand-ins; the load, the commands that are watched, the keeper and the barrier
//! are real.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use crate::common::exporter::{Exporter, PROGRAM};
use crate::common::{children, eventually, file_of, stand_in_dtrace};
use kqproc_exporter::model::Shape;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use tempfile::TempDir;

/// How many children the root of a load forks.
const ROUNDS: u32 = 40;

/// The exporter with the stand-in. It is built at the first call, because `cargo test --test live` builds no examples.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--example", "stand_in"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        // The variables that cargo sets for a test would make some build scripts run again.
        for (name, _) in std::env::vars() {
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        assert!(build.status().expect("cargo runs").success());
        Path::new(PROGRAM).parent().expect("a folder").join("examples/stand_in")
    })
}

/// A stand-in kernel with one behaviour, and its dtrace(1), in a folder of their own.
struct Host {
    folder: TempDir,
    behaviour: &'static str,
}

impl Host {
    fn new(behaviour: &'static str) -> Host {
        let folder = tempfile::tempdir().expect("a folder");
        stand_in_dtrace::link(&folder.path().join("traces"));
        Host { folder, behaviour }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program with these arguments, then those for dtrace, then `more`.
    fn command(&self, args: &[&str], more: &[&str]) -> Command {
        let folder = self.folder.path().display();
        let mut command = Command::new(program());
        command
            .args(args)
            .arg(format!("--dtrace.path={folder}/traces"))
            .args(more)
            .env("KQPROC_STAND_IN", format!("{folder}:{}:{ROUNDS}", self.behaviour))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str], more: &[&str]) -> Ended {
        Ended::of(self.command(args, more).output().expect("it runs"))
    }

    fn serve(&self, flags: &[&str], more: &[&str]) -> Exporter {
        let user = format!("--user={}", geteuid());
        let args = [&["serve", "--web.listen-address=127.0.0.1:0", &user], flags].concat();
        Exporter::start(self.command(&args, more))
    }
}

#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: Output) -> Ended {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Ended { status: output.status.code(), stdout, stderr }
    }

    /// Asserts that no warning or error was logged.
    #[track_caller]
    fn is_quiet(&self) {
        let complaint = |line: &&str| line.contains("level=WARN") || line.contains("level=ERROR");
        assert_eq!(self.stderr.lines().find(complaint), None, "{}", self.stderr);
    }
}

/// `stress` on a kernel with this behaviour: the object that it prints, and the rest.
#[track_caller]
fn stress(behaviour: &'static str) -> (Value, Ended) {
    let rounds = format!("--count={ROUNDS}");
    let args = ["stress", "--shape=exit", "--format=json", &rounds];
    let ended = Host::new(behaviour).run(&args, &[]);
    let answer = serde_json::from_str(&ended.stdout);
    (answer.unwrap_or_else(|error| panic!("{error}: {ended:?}")), ended)
}

#[test]
fn stress_of_a_sound_kernel_exits_0() {
    let (answer, ended) = stress("split");
    assert_eq!((answer["decision"].as_str(), ended.status), (Some("sound"), Some(0)), "{ended:?}");
    assert_eq!(answer["totals"]["births"]["agreed"], ROUNDS);
    assert_eq!(answer["totals"]["deaths"]["agreed"], ROUNDS + 1);
    assert_eq!(answer["run"]["forked"], ROUNDS, "the load has really run: {ended:?}");
    ended.is_quiet();
}

#[test]
fn stress_of_a_kernel_that_merges_exits_1() {
    let (answer, ended) = stress("merged");
    assert_eq!(
        (answer["decision"].as_str(), ended.status),
        (Some("unsound"), Some(1)),
        "{ended:?}"
    );
    assert_eq!(answer["totals"]["births"]["overwritten"], ROUNDS);
    assert_eq!(answer["run"]["forked"], ROUNDS);
}

#[test]
fn stress_under_drops_exits_2() {
    let (answer, ended) = stress("drops");
    let decision = answer["decision"].as_str();
    assert_eq!((decision, ended.status), (Some("undecided"), Some(2)), "{ended:?}");
    assert_eq!(answer["totals"]["births"]["undecided"], ROUNDS);
    assert_eq!(answer["totals"]["births"]["lost_silent"], 0);
}

#[test]
fn the_report_card_runs_every_shape_and_answers_whether_to_trust_the_kernel() {
    let ended = Host::new("split").run(&["stress", "--count=1", "--format=json"], &[]);
    let card: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!((card["decision"].as_str(), ended.status), (Some("sound"), Some(0)), "{ended:?}");
    let runs = card["runs"].as_array().expect("a list");
    for shape in Shape::ALL {
        let of_shape = runs.iter().filter(|run| run["shape"] == shape.as_str()).count();
        assert_eq!(of_shape, if *shape == Shape::Forkexit { 2 } else { 1 }, "{shape}");
    }
    for run in runs {
        assert_eq!(run["totals"]["births"]["agreed"], ROUNDS, "{run}");
    }
    assert_eq!(card["exit_race"]["with"]["deaths"], ROUNDS + 1);
    let answer = card["answer"].as_str().expect("a sentence");
    assert!(answer.starts_with("A tracker can trust this kernel under these loads"), "{answer}");
}

#[test]
fn a_load_that_fails_is_an_error_of_its_own_and_no_answer() {
    // Slow, so that the load still runs when it is killed.
    let args = ["stress", "--shape=exit", "--count=40", "--rate=1"];
    let host = Host::new("split");
    let mut command = host.command(&args, &[]);
    let stress = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let load = eventually("the load", || {
        let of = Pid::from_raw(stress.id() as i32);
        let is_load = |pid: &Pid| {
            file_of(*pid, "cmdline").contains("\0load\0")
                && !file_of(*pid, "cmdline").contains("barrier")
        };
        children(of).into_iter().find(is_load)
    });
    kill(load, Signal::SIGKILL).expect("it runs");
    let ended = Ended::of(stress.wait_with_output().expect("it ends"));
    assert_eq!((ended.status, &*ended.stdout), (Some(70), ""), "{ended:?}");
    let error = format!(
        "kqproc_exporter: the load failed, so nothing was learned about this kernel: `{} load --quiet exit \
         --count=40 --rate=1 --depth=6 --threads=4 --max-seconds=600` ended with signal: 9 (SIGKILL): it printed no error\n",
        program().display()
    );
    assert!(ended.stderr.ends_with(&error), "{}", ended.stderr);
}

#[test]
fn a_command_is_recorded_and_its_recording_replays() {
    for (behaviour, answer) in
        [("split", "Sound: "), ("merged", "Unsound: "), ("drops", "Undecided: ")]
    {
        let host = Host::new(behaviour);
        let (file, ran) = (host.path("run.kqr"), host.path("ran"));
        let (file, ran) = (file.to_str().expect("text"), ran.to_str().expect("text"));
        let ended = host.run(&["record", "--output", file], &["--", "/usr/bin/touch", ran]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        assert!(Path::new(ran).exists(), "{ended:?}");
        if behaviour == "split" {
            ended.is_quiet();
        }
        let replayed =
            Ended::of(Command::new(PROGRAM).args(["replay", file]).output().expect("it runs"));
        assert!(replayed.stdout.starts_with(answer), "{behaviour}: {replayed:?}");
    }
}

/// By GNU's env(1).
#[cfg(target_os = "linux")]
#[test]
fn a_program_whose_parent_ignores_sigchld_sees_how_its_children_end() {
    let host = Host::new("split");
    let file = host.path("run.kqr");
    let args = ["record", "--output", file.to_str().expect("text")];
    let record = host.command(&args, &["--", "/bin/true"]);
    let mut ignoring = Command::new("env");
    ignoring.arg("--ignore-signal=CHLD").arg(record.get_program()).args(record.get_args());
    ignoring.envs(record.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = Ended::of(ignoring.stdin(Stdio::null()).output().expect("it runs"));
    assert_eq!(ended.status, Some(0), "{ended:?}");
    ended.is_quiet();
}

#[test]
fn a_recording_whose_command_cannot_begin_still_ends() {
    let host = Host::new("split");
    let file = host.path("run.kqr");
    let args = ["record", "--output", file.to_str().expect("text")];
    let ended = host.run(&args, &["--", "/nonexistent/command"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("cannot run /nonexistent/command"), "{ended:?}");
}

/// The births of a tree with the verdict `agreed`.
fn agreed(exporter: &Exporter, tree: &str) -> f64 {
    let name = format!("kqproc_births_total{{tree=\"{tree}\",verdict=\"agreed\"}}");
    exporter.samples().get(&name).copied().unwrap_or_default()
}

#[test]
fn a_command_is_served() {
    let host = Host::new("split");
    let exporter = host.serve(&[], &["--", "sleep", "3600"]);
    eventually("every birth", || (agreed(&exporter, "command") == f64::from(ROUNDS)).then_some(()));
    assert_eq!(exporter.stop().code(), Some(0));
}

/// A process to be watched, killed when dropped.
struct Watched(Child);

impl Watched {
    fn start() -> Watched {
        Watched(Command::new("sleep").arg("3600").spawn().expect("it runs"))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pid_and_a_pid_file_are_served() {
    let host = Host::new("split");
    let (first, second) = (Watched::start(), Watched::start());
    let file = host.path("pid");
    fs::write(&file, format!("{}\n", second.0.id())).expect("written");
    let pid = format!("--kqueue.target=first=pid:{}", first.0.id());
    let pid_file = format!("--kqueue.target=second=pidfile:{}", file.display());
    let exporter = host.serve(&[&pid, &pid_file], &[]);
    eventually("every birth", || {
        let births = [agreed(&exporter, "first"), agreed(&exporter, "second")];
        (births == [ROUNDS / 2; 2].map(f64::from)).then_some(())
    });
    // A root may end by itself: its death is counted, and the exporter goes on.
    drop(first);
    let deaths = "kqproc_deaths_total{tree=\"first\",verdict=\"agreed\"}";
    exporter.scrape_until(|samples| samples.get(deaths) == Some(&f64::from(ROUNDS / 2 + 1)));
    assert_eq!(exporter.stop().code(), Some(0));
}

/// A thread must not block the signals by which truss(1) and gdb(1) stop it: the process would die of them.
#[test]
fn every_thread_can_be_looked_at_by_a_debugger() {
    let host = Host::new("split");
    let exporter = host.serve(&[], &["--", "sleep", "3600"]);
    eventually("every birth", || (agreed(&exporter, "command") == f64::from(ROUNDS)).then_some(()));
    let pid = Pid::from_raw(exporter.id() as i32);
    let is_keeper = |pid: &Pid| file_of(*pid, "cmdline").contains("keep-dtrace");
    let keeper = children(pid).into_iter().find(is_keeper).expect("its keeper");
    let mut threads = 0;
    for pid in [pid, keeper] {
        for task in fs::read_dir(format!("/proc/{pid}/task")).expect("its threads") {
            let status = fs::read_to_string(task.expect("a thread").path().join("status"));
            let status = status.expect("its status");
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            let blocked = u64::from_str_radix(blocked.expect("a mask").trim(), 16).expect("bits");
            for signal in ["TRAP", "SEGV", "BUS", "ILL", "FPE", "ABRT", "SYS", "CONT"] {
                let signal: Signal = format!("SIG{signal}").parse().expect("a signal");
                assert_eq!(blocked >> (signal as i32 - 1) & 1, 0, "{signal}: {status}");
            }
            threads += 1;
        }
    }
    assert!(threads >= 6, "{threads}");
    for pid in [pid, keeper] {
        let calls = host.path("calls");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-p", &pid.to_string(), "-o"]).arg(&calls).stdin(Stdio::null());
        let mut strace = strace.spawn().expect("strace, from Debian's package strace");
        if pid.as_raw() == exporter.id() as i32 {
            let seen = || fs::metadata(&calls).is_ok_and(|file| file.len() > 0).then_some(());
            eventually("a system call", seen);
        }
        // A signal that comes just before it waits for a process that does nothing is not noticed.
        eventually("it lets go", || {
            kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT).expect("it runs");
            strace.try_wait().expect("its status")
        });
    }
    assert_eq!(exporter.get("/-/healthy").status, 200);
    assert_eq!(exporter.stop().code(), Some(0));
}

#[test]
fn the_exporter_itself_has_no_stand_in() {
    let has = |program: &Path| {
        let bytes = fs::read(program).expect("a program");
        memchr::memmem::find(&bytes, b"KQPROC_STAND_IN").is_some()
    };
    assert!(has(program()), "it is found where it is");
    assert!(!has(Path::new(PROGRAM)));
}
