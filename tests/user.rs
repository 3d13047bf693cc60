//! As whom an exporter serves.
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::exporter::{Exporter, PROGRAM};
use common::is_root;
use nix::unistd::{User, geteuid};

/// Without what the tests add.
fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--source=replay", "--web.listen-address=127.0.0.1:0"]).args(flags);
    command
}

fn refused(flags: &[&str]) -> (Option<i32>, String) {
    let output = serve(flags).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn root_serves_as_nobody_unless_told_otherwise() {
    if !is_root() {
        return;
    }
    let nobody = User::from_name("nobody").expect("users").expect("nobody").uid;
    for flags in [&[][..], &["--user=nobody"], &[&*format!("--user={nobody}")]] {
        let exporter = Exporter::start(serve(flags));
        let status = fs::read_to_string(format!("/proc/{}/status", exporter.id())).expect("status");
        let users = status.lines().find_map(|l| l.strip_prefix("Uid:")).expect("its users");
        let expected = [nobody.to_string(), nobody.to_string(), nobody.to_string()].join("\t");
        assert!(users.trim_start().starts_with(&expected), "{users}");
        // What it says about itself, it still can.
        assert!(exporter.samples()["process_open_fds"] > 3.0);
    }
}

#[test]
fn root_that_is_told_to_stay_root_stays() {
    if !is_root() {
        return;
    }
    let exporter = Exporter::start(serve(&["--user=root"]));
    let status = fs::read_to_string(format!("/proc/{}/status", exporter.id())).expect("status");
    assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
}

#[test]
fn what_nobody_may_read_is_not_read() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let open = |mode| Permissions::from_mode(mode);
    fs::set_permissions(folder.path(), open(0o755)).expect("the mode");
    let file = folder.path().join("web.yml");
    fs::write(&file, "{}").expect("written");
    fs::set_permissions(&file, open(0o600)).expect("the mode");
    let flag = format!("--web.config.file={}", file.display());
    let (code, said) = refused(&[&flag]);
    assert_eq!(code, Some(78), "{said}");
    let whom = "kqproc_exporter: as nobody, the user to serve as (see --user): cannot read ";
    assert!(said.contains(whom) && said.contains("Permission denied"), "{said}");
    let (code, said) = refused(&[&flag, "--config.check"]);
    assert_eq!(code, Some(78), "{said}");
    fs::set_permissions(&file, open(0o644)).expect("the mode");
    Exporter::start(serve(&[&flag]));
}

#[test]
fn a_configuration_that_only_root_may_read_is_warned_of() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("the mode");
    let file = folder.path().join("config.toml");
    fs::write(&file, "").expect("written");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("the mode");
    // An address of nobody's ends it as soon as everything was read.
    let flag = format!("--config.file={}", file.display());
    let (code, said) = refused(&[&flag, "--web.listen-address=203.0.113.1:1"]);
    assert_eq!(code, Some(69), "{said}");
    let warned = said.lines().find(|line| line.contains("a reload will fail")).expect(&said);
    assert!(warned.contains("level=WARN") && warned.contains("Permission denied"), "{warned}");
}

#[test]
fn a_user_that_cannot_be_is_refused() {
    let (code, said) = refused(&["--user=no-such-user-here"]);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("there is no user \"no-such-user-here\" here: name another"), "{said}");
    if !geteuid().is_root() {
        let (code, said) = refused(&["--user=root"]);
        assert_eq!(code, Some(77), "{said}");
        assert!(said.contains("only root can become user \"root\""), "{said}");
    }
}
