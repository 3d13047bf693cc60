//! Which of exporter, keeper, dtrace and command end when another one of them ends: no process of root's is left behind.

use std::fs;
use std::io::Write;
use std::process::Command;

use kqproc_exporter::source::dtrace;
use kqproc_exporter::source::live::{Live, LiveConfig};
use kqproc_exporter::source::target::{Root, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::common::exporter::PROGRAM;
use crate::common::scripted_kernel::{Scripted, quiet};
use crate::common::{children, eventually, file_of, stand_in_dtrace};
use crate::family::{Family, SERVES, is_gone, own_user};

#[test]
fn an_exporter_that_is_killed_leaves_no_process_behind() {
    let family = Family::start("falls-silent", &own_user());
    family.prints("attached 12345");
    let (keeper, dtrace) = (family.keeper, family.dtrace());
    drop(family);
    eventually("the keeper's end", || is_gone(keeper).then_some(()));
    eventually("dtrace's end", || is_gone(dtrace).then_some(()));
}

#[test]
fn a_keeper_that_is_killed_takes_dtrace_along_and_the_exporter_reports_it() {
    let mut family = Family::start("falls-silent", &own_user());
    family.prints("attached 12345");
    let dtrace = family.dtrace();
    kill(family.keeper, Signal::SIGKILL).expect("it runs");
    eventually("dtrace's end", || is_gone(dtrace).then_some(()));
    let printed = family.ends();
    let gone = "ended: the keeper, which runs dtrace, has ended (signal: 9 (SIGKILL)): start the exporter again";
    assert!(printed.lines().any(|line| line == gone), "{printed}");
    let count = |what| printed.lines().filter(|line| *line == what).count();
    assert_eq!((count("up"), count("down")), (1, 1), "{printed}");
}

#[test]
fn a_service_whose_keeper_is_killed_ends_as_unavailable() {
    let mut family = Family::start_with("falls-silent", &own_user(), &[(SERVES, "")]);
    family.dtrace();
    kill(family.keeper, Signal::SIGKILL).expect("it runs");
    let printed = family.ends();
    let gone = "status 69: the keeper, which runs dtrace, has ended (signal: 9 (SIGKILL)): start the exporter again";
    assert!(printed.lines().any(|line| line == gone), "{printed}");
}

/// At a shutdown init sends SIGTERM to every process: the exporter decides, and the keeper follows it.
#[test]
fn a_keeper_ignores_signals_and_goes_on_for_its_exporter() {
    let family = Family::start("early", &own_user());
    family.prints("up");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(family.keeper, signal).expect("it runs");
    }
    family.prints_often("up", family.count("up") + 3);
    assert!(!is_gone(family.keeper));
}

/// For example because the port is taken: by then the keeper runs and the command waits.
#[test]
fn a_source_that_is_given_up_before_it_runs_leaves_no_process_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let dtrace = folder.path().join("falls-silent");
    stand_in_dtrace::link(&dtrace);
    let ran = folder.path().join("ran");
    let root = Root::Command(vec!["/usr/bin/touch".into(), ran.clone().into_os_string()]);
    let config = LiveConfig {
        targets: vec![Target { name: "command".to_owned(), root }],
        dtrace: dtrace::DtraceOptions { path: Some(dtrace), ..dtrace::DtraceOptions::default() },
        own_program: Some(PROGRAM.into()),
        ..LiveConfig::default()
    };
    // Both have this folder on their command lines.
    let here = folder.path().to_str().expect("a name").to_owned();
    let family =
        || children(getpid()).into_iter().filter(|pid| file_of(*pid, "cmdline").contains(&here));
    let live = Live::prepare(config, || Ok(Box::new(Scripted(quiet)))).expect("prepared");
    let family: Vec<Pid> = eventually("keeper and command", || {
        Some(family().collect()).filter(|family: &Vec<Pid>| family.len() == 2)
    });
    drop(live);
    eventually("their end", || family.iter().all(|pid| is_gone(*pid)).then_some(()));
    assert!(!ran.exists());
}

/// A compilation may take two minutes, during which the exporter does not handle signals yet.
#[test]
fn an_exporter_that_ends_while_a_program_compiles_leaves_no_process_behind() {
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
fn a_keeper_that_reads_nonsense_ends_and_runs_nothing() {
    for bytes in [
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
        // The keeper may have closed the socket before it has read everything.
        let _ = ours.write_all(bytes);
        ours.shutdown(std::net::Shutdown::Write).expect("shut");
        eventually("its end", || keeper.try_wait().expect("a child"));
        assert!(!folder.path().join("started").exists(), "{}", bytes.escape_ascii());
    }
}
