//! Two processes, one of them root's: who runs as whom, and who ends with whom. The exporter is this file's own test
//! binary with a scripted kernel, since only FreeBSD has one to track processes with; keeper and user are the real ones.

use std::fs::{self, Permissions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::exporter::PROGRAM;
use crate::common::{children, eventually, file_of, is_root, stand_in_dtrace};
use clap::Parser;
use kqproc_exporter::cli::exit;
use kqproc_exporter::cli::feed::Feed;
use kqproc_exporter::cli::serve::ServiceArgs;
use kqproc_exporter::cli::user::UserArgs;
use kqproc_exporter::input::Input;
use kqproc_exporter::model::Kevent;
use kqproc_exporter::source::dtrace::{self, Limits};
use kqproc_exporter::source::kqueue::{Change, Kernel, Notes, Process};
use kqproc_exporter::source::live::{Config, Live};
use kqproc_exporter::source::target::{Root, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid, getpid};
use tempfile::TempDir;

/// Where the exporter finds its dtrace and its pid file.
const FOLDER: &str = "KQPROC_KEEPER_TEST_FOLDER";
/// As whom it is to serve.
const USER: &str = "KQPROC_KEEPER_TEST_USER";

/// Set where it is to serve, too.
const SERVES: &str = "KQPROC_KEEPER_TEST_SERVES";

/// The flags of a service.
#[derive(clap::Parser)]
struct Service {
    #[command(flatten)]
    args: ServiceArgs,
}

struct Quiet;

impl Kernel for Quiet {
    fn kevent(&mut self, _: &[Change], _: u32, _: Duration, _: &mut Vec<Kevent>) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }

    fn processes(&mut self, _: &mut Vec<Process>) -> io::Result<()> {
        Ok(())
    }
}

/// Not a test: the exporter of the tests below, which start it. It says what it is told, until it is killed.
#[test]
#[ignore = "started by the others"]
fn exporter() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let limits = Limits {
        silence: Duration::from_secs(3600),
        retry_first: Duration::from_millis(1),
        retry_most: Duration::from_millis(4),
        ..Limits::default()
    };
    let root = Root::PidFile(folder.join("pid"));
    let config = Config {
        targets: vec![Target { name: "tree".to_owned(), root }],
        notes: Notes::default(),
        dtrace: dtrace::Options {
            path: Some(folder.join("dtrace")),
            limits,
            ..dtrace::Options::default()
        },
        own_program: Some(PROGRAM.into()),
        ..Config::default()
    };
    let live = Live::prepare(config, || Ok(Box::new(Quiet))).expect("prepared");
    if std::env::var_os(SERVES).is_some() {
        let user = format!("--user={}", std::env::var(USER).expect("a user"));
        let service = Service::parse_from(["", "--web.listen-address=127.0.0.1:0", &user]).args;
        let error = service.serve(Feed::Live(Box::new(live))).expect_err("it runs until it fails");
        println!("\nstatus {}: {error:#}", exit::status_of(&error));
        return;
    }
    UserArgs { user: std::env::var(USER).ok() }.settle().expect("another user");
    let ended = live.run(&mut |input: Input<'_>| {
        match input {
            Input::Batch(batch) => {
                for attached in batch.attached {
                    println!("\nattached {}", attached.pid);
                }
            }
            Input::Stdout { .. } => println!("\nheard"),
            Input::DtraceUp { .. } => println!("\nup"),
            Input::DtraceDown { .. } => println!("\ndown"),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match ended {
        Ok(_) => println!("\nended well"),
        Err(error) => println!("\nended: {error}"),
    }
}

/// The exporter, its keeper and its dtrace, in a folder that is its owner's alone.
struct Family {
    exporter: Child,
    folder: TempDir,
    keeper: Pid,
}

impl Family {
    fn start(fault: &str, user: &str) -> Family {
        Family::start_with(fault, user, &[])
    }

    fn start_with(fault: &str, user: &str, more: &[(&str, &str)]) -> Family {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = Permissions::from_mode(0o700);
        fs::set_permissions(folder.path(), mode).expect("the mode");
        for name in ["bin", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let named = folder.path().join("bin").join(fault);
        stand_in_dtrace::link(&named);
        let start = format!("#!/bin/sh\nexec '{}' \"$@\"\n", named.display());
        let dtrace = folder.path().join("dtrace");
        fs::write(&dtrace, start).expect("written");
        fs::set_permissions(&dtrace, Permissions::from_mode(0o700)).expect("the mode");
        fs::write(folder.path().join("pid"), "12345\n").expect("written");
        let words = fs::File::create(folder.path().join("words")).expect("a file");
        let exporter = Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "family::exporter", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(USER, user)
            .envs(more.iter().copied())
            .env("TMPDIR", folder.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(words)
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let of = Pid::from_raw(exporter.id() as i32);
        let is_keeper = |pid: &Pid| file_of(*pid, "cmdline").contains("keep-dtrace");
        let keeper = eventually("a keeper", || children(of).into_iter().find(is_keeper));
        Family { exporter, folder, keeper }
    }

    /// Where the keeper puts the D programs.
    fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    fn exporter(&self) -> Pid {
        Pid::from_raw(self.exporter.id() as i32)
    }

    /// What the keeper runs, once it has printed what it prints.
    fn dtrace(&self) -> Pid {
        let settled = |pid: &Pid| file_of(*pid, "cmdline").starts_with("sleep\0");
        eventually("dtrace", || children(self.keeper).into_iter().find(settled))
    }

    fn words(&self) -> String {
        fs::read_to_string(self.folder.path().join("words")).expect("its words")
    }

    fn says(&self, words: &str) {
        eventually(words, || self.words().lines().any(|line| line == words).then_some(()));
    }

    /// How often it has said that.
    fn count(&self, word: &str) -> usize {
        self.words().lines().filter(|line| *line == word).count()
    }

    /// Waits until it has said that so often.
    fn comes_to(&self, word: &str, count: usize) {
        eventually(word, || (self.count(word) >= count).then_some(()));
    }

    fn ends(&mut self) -> String {
        eventually("its end", || self.exporter.try_wait().expect("a child"));
        self.words()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let _ = self.exporter.kill();
        let _ = self.exporter.wait();
    }
}

/// How many descriptors a process may have from now on.
fn limit_descriptors(of: Pid, most: usize) {
    let how = [format!("--pid={of}"), format!("--nofile={most}:")];
    assert!(Command::new("prlimit").args(how).status().expect("it runs").success());
}

fn descriptors(of: Pid) -> usize {
    fs::read_dir(format!("/proc/{of}/fd")).expect("its descriptors").count()
}

/// Dead, though perhaps not reaped by whoever adopts orphans here.
fn is_gone(pid: Pid) -> bool {
    let stat = file_of(pid, "stat");
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// Real, effective, saved and filesystem user.
fn users(pid: Pid) -> Vec<u32> {
    let status = file_of(pid, "status");
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:")).expect("its users");
    line.split_ascii_whitespace().map(|n| n.parse().expect("a number")).collect()
}

fn own_user() -> String {
    geteuid().to_string()
}

#[test]
fn only_the_keeper_and_dtrace_are_root() {
    if !is_root() {
        return;
    }
    let nobody = User::from_name("nobody").expect("users").expect("nobody").uid.as_raw();
    let family = Family::start("falls-silent", "nobody");
    // Nobody may open this pid file but root, and it is read all the same.
    family.says("attached 12345");
    assert_eq!(users(family.exporter()), [nobody; 4]);
    assert_eq!(users(family.keeper), [0; 4]);
    assert_eq!(users(family.dtrace()), [0; 4]);
    let groups = file_of(family.exporter(), "status");
    let groups = groups.lines().find_map(|l| l.strip_prefix("Groups:")).expect("its groups");
    assert!(!groups.split_ascii_whitespace().any(|group| group == "0"), "{groups}");
}

#[test]
fn dtrace_is_started_again_for_an_exporter_that_is_nobody() {
    if !is_root() {
        return;
    }
    let family = Family::start("early", "nobody");
    eventually("three starts", || {
        let words = family.words();
        let count = |what| words.lines().filter(|line| *line == what).count();
        (count("up") >= 3 && count("down") >= 2).then_some(())
    });
    let started = family.folder.path().join("bin/started");
    let started = fs::read_to_string(started).expect("it was started");
    let reader = format!(" {}", family.exporter());
    assert!(started.lines().all(|line| line.ends_with(&reader)), "{started}");
}

#[test]
fn an_exporter_that_is_killed_leaves_nobody_behind() {
    let family = Family::start("falls-silent", &own_user());
    family.says("attached 12345");
    let (keeper, dtrace) = (family.keeper, family.dtrace());
    drop(family);
    eventually("the keeper's end", || is_gone(keeper).then_some(()));
    eventually("dtrace's end", || is_gone(dtrace).then_some(()));
}

#[test]
fn a_keeper_that_is_killed_takes_dtrace_along_and_the_exporter_says_so() {
    let mut family = Family::start("falls-silent", &own_user());
    family.says("attached 12345");
    let dtrace = family.dtrace();
    kill(family.keeper, Signal::SIGKILL).expect("it runs");
    eventually("dtrace's end", || is_gone(dtrace).then_some(()));
    let words = family.ends();
    let gone = "ended: the keeper, which runs dtrace, has ended (signal: 9 (SIGKILL)): start the exporter again";
    assert!(words.lines().any(|line| line == gone), "{words}");
    let count = |what| words.lines().filter(|line| *line == what).count();
    assert_eq!((count("up"), count("down")), (1, 1), "{words}");
}

#[test]
fn a_service_whose_keeper_is_killed_ends_as_unavailable() {
    let mut family = Family::start_with("falls-silent", &own_user(), &[(SERVES, "")]);
    family.dtrace();
    kill(family.keeper, Signal::SIGKILL).expect("it runs");
    let words = family.ends();
    let gone = "status 69: the keeper, which runs dtrace, has ended (signal: 9 (SIGKILL)): start the exporter again";
    assert!(words.lines().any(|line| line == gone), "{words}");
}

/// What whoever started the exporter had open is not for root's dtrace.
#[test]
fn a_keeper_inherits_its_socket_and_stderr_alone() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut keeper = Command::new("sh")
        .args(["-c", "exec 7</dev/null 9</; exec \"$0\" \"$@\"", PROGRAM])
        .args(["keep-dtrace", "--bufsize=8m", "--switchrate=10hz", "--compile-ms=1000"])
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let file = |n: &str| fs::read_link(format!("/proc/{}/fd/{n}", keeper.id())).ok();
    eventually("its start", || file("0").filter(|stdin| stdin == Path::new("/dev/null")));
    let socket = file("3").expect("the socket");
    assert!(socket.to_string_lossy().starts_with("socket:"), "{}", socket.display());
    assert_eq!(descriptors(Pid::from_raw(keeper.id() as i32)), 4);
    drop(ours);
    eventually("its end", || keeper.try_wait().expect("a child"));
}

/// At a shutdown init tells everybody to end: the exporter decides, the keeper follows.
#[test]
fn a_keeper_that_is_told_to_end_goes_on_for_its_exporter() {
    let family = Family::start("early", &own_user());
    family.says("up");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(family.keeper, signal).expect("it runs");
    }
    let ups = || family.words().lines().filter(|line| *line == "up").count();
    let before = ups();
    eventually("more starts", || (ups() > before + 2).then_some(()));
    assert!(!is_gone(family.keeper));
}

#[test]
fn an_exporter_without_descriptors_tries_again_until_it_has_some() {
    let family = Family::start("early", &own_user());
    family.comes_to("heard", 3);
    let before = descriptors(family.exporter());
    // With one or two that are free, and with none.
    for most in 4..12 {
        limit_descriptors(family.exporter(), most);
        family.comes_to("down", family.count("down") + 2);
    }
    limit_descriptors(family.exporter(), 3);
    family.comes_to("down", family.count("down") + 1);
    let (heard, down) = (family.count("heard"), family.count("down"));
    family.comes_to("down", down + 3);
    assert_eq!(family.count("heard"), heard);
    limit_descriptors(family.exporter(), 256);
    family.comes_to("heard", heard + 3);
    // A dtrace that runs has two, one that is about to start a few more for a moment.
    let leaks = || descriptors(family.exporter()) > before + 2;
    eventually("as few descriptors as before", || (!leaks()).then_some(()));
}

#[test]
fn a_keeper_without_descriptors_leaves_nothing_behind_and_goes_on_later() {
    let family = Family::start("early", &own_user());
    family.comes_to("heard", 3);
    limit_descriptors(family.keeper, 4);
    family.comes_to("down", family.count("down") + 1);
    let (heard, down) = (family.count("heard"), family.count("down"));
    family.comes_to("down", down + 10);
    assert_eq!(family.count("heard"), heard);
    // One may be about to go.
    let folders = || fs::read_dir(family.temporary()).expect("a folder").count();
    eventually("no folder", || (folders() <= 1).then_some(()));
    limit_descriptors(family.keeper, 256);
    family.comes_to("heard", heard + 3);
}

/// As where the port is taken: by then the keeper runs and the command waits.
#[test]
fn a_source_that_is_given_up_before_it_runs_leaves_nobody_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let dtrace = folder.path().join("falls-silent");
    stand_in_dtrace::link(&dtrace);
    let ran = folder.path().join("ran");
    let root = Root::Command(vec!["/usr/bin/touch".into(), ran.clone().into_os_string()]);
    let config = Config {
        targets: vec![Target { name: "command".to_owned(), root }],
        dtrace: dtrace::Options { path: Some(dtrace), ..dtrace::Options::default() },
        own_program: Some(PROGRAM.into()),
        ..Config::default()
    };
    // Both have something of this folder on their command lines.
    let here = folder.path().to_str().expect("a name").to_owned();
    let family =
        || children(getpid()).into_iter().filter(|pid| file_of(*pid, "cmdline").contains(&here));
    let live = Live::prepare(config, || Ok(Box::new(Quiet))).expect("prepared");
    let family: Vec<Pid> = eventually("keeper and command", || {
        Some(family().collect()).filter(|family: &Vec<Pid>| family.len() == 2)
    });
    drop(live);
    eventually("their end", || family.iter().all(|pid| is_gone(*pid)).then_some(()));
    assert!(!ran.exists());
}

/// Compiling takes up to two minutes, and nobody listens for signals yet.
#[test]
fn an_exporter_that_ends_while_a_program_compiles_leaves_nobody_behind() {
    let mut family = Family::start("compiles-for-ever", &own_user());
    let compiles = |pid: &Pid| file_of(*pid, "cmdline").starts_with("sleep\0");
    let dtrace = eventually("dtrace -e", || children(family.keeper).into_iter().find(compiles));
    kill(family.exporter(), Signal::SIGTERM).expect("it runs");
    family.ends();
    eventually("the keeper's end", || is_gone(family.keeper).then_some(()));
    assert!(is_gone(dtrace));
    let left: Vec<_> = fs::read_dir(family.temporary()).expect("a folder").collect();
    assert!(left.is_empty(), "its programs: {left:?}");
}

#[test]
fn a_keeper_that_hears_nonsense_ends_and_runs_nothing() {
    for words in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 4096],
        b"s\x03\0\0\x05\0\0\0",
        b"s\0\0\0\xe0\xff\xff\xff",
        b"s\0\0",
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let dtrace = folder.path().join("early");
        stand_in_dtrace::link(&dtrace);
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut keeper = Command::new(PROGRAM)
            .args(["keep-dtrace", "--bufsize=8m", "--switchrate=10hz", "--compile-ms=1000"])
            .arg(format!("--dtrace={}", dtrace.display()))
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .spawn()
            .expect("started");
        // It may have hung up before it was all said.
        let _ = io::Write::write_all(&mut ours, words);
        ours.shutdown(std::net::Shutdown::Write).expect("shut");
        eventually("its end", || keeper.try_wait().expect("a child"));
        assert!(!folder.path().join("started").exists(), "{}", words.escape_ascii());
    }
}
