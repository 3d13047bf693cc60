//! What the exporter and its keeper may do and hold: the user each of them runs as, the descriptors that they inherit, and
//! that they survive without free descriptors.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Pid, User};

use crate::common::exporter::PROGRAM;
use crate::common::{eventually, file_of, is_root};
use crate::family::{Family, own_user};

/// Limits the descriptors that a process may have.
fn limit_descriptors(of: Pid, most: usize) {
    let how = [format!("--pid={of}"), format!("--nofile={most}:")];
    assert!(Command::new("prlimit").args(how).status().expect("it runs").success());
}

fn descriptors(of: Pid) -> usize {
    fs::read_dir(format!("/proc/{of}/fd")).expect("its descriptors").count()
}

/// The real, effective, saved and filesystem user of a process.
fn users(pid: Pid) -> Vec<u32> {
    let status = file_of(pid, "status");
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:")).expect("its users");
    line.split_ascii_whitespace().map(|n| n.parse().expect("a number")).collect()
}

#[test]
fn only_the_keeper_and_dtrace_are_root() {
    if !is_root() {
        return;
    }
    let nobody = User::from_name("nobody").expect("users").expect("nobody").uid.as_raw();
    let family = Family::start("falls-silent", "nobody");
    // Only root may open this pid file: the keeper has read it.
    family.prints("attached 12345");
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
    family.prints_often("up", 3);
    let started = family.folder.path().join("bin/started");
    let started = fs::read_to_string(started).expect("it was started");
    let reader = format!(" {}", family.exporter());
    assert!(started.lines().all(|line| line.ends_with(&reader)), "{started}");
}

/// Descriptors that were open when the exporter was started must not reach root's dtrace.
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

#[test]
fn an_exporter_without_descriptors_tries_again_until_it_has_some() {
    let family = Family::start("early", &own_user());
    family.prints_often("stdout", 3);
    let before = descriptors(family.exporter());
    // A limit that leaves one or two free, and one that leaves none.
    for most in 4..12 {
        limit_descriptors(family.exporter(), most);
        family.prints_often("down", family.count("down") + 2);
    }
    limit_descriptors(family.exporter(), 3);
    family.prints_often("down", family.count("down") + 1);
    let (chunks, down) = (family.count("stdout"), family.count("down"));
    family.prints_often("down", down + 3);
    assert_eq!(family.count("stdout"), chunks);
    limit_descriptors(family.exporter(), 256);
    family.prints_often("stdout", chunks + 3);
    // A dtrace that runs has two, one that is about to start a few more for a moment.
    let leaks = || descriptors(family.exporter()) > before + 2;
    eventually("as few descriptors as before", || (!leaks()).then_some(()));
}

#[test]
fn a_keeper_without_descriptors_leaves_nothing_behind_and_goes_on_later() {
    let family = Family::start("early", &own_user());
    family.prints_often("stdout", 3);
    limit_descriptors(family.keeper, 4);
    family.prints_often("down", family.count("down") + 1);
    let (chunks, down) = (family.count("stdout"), family.count("down"));
    family.prints_often("down", down + 10);
    assert_eq!(family.count("stdout"), chunks);
    // One may be about to be removed.
    let folders = || fs::read_dir(family.temporary()).expect("a folder").count();
    eventually("no folder", || (folders() <= 1).then_some(()));
    limit_descriptors(family.keeper, 256);
    family.prints_often("stdout", chunks + 3);
}
