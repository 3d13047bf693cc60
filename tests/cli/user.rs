//! As whom an exporter serves.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::exporter::{Exporter, PROGRAM};
use crate::common::is_root;
use nix::unistd::{User, geteuid};

/// Without what the tests add.
fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--source=replay", "--web.listen-address=127.0.0.1:0"]).args(flags);
    command
}

/// As a process that setpriv(1) has made of root.
fn made_of_root(how: &[&str], flags: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(how).arg("--").arg(PROGRAM).args(serve(flags).get_args());
    command
}

fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The numbers of a line of /proc/PID/status.
fn numbers(exporter: &Exporter, line: &str) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", exporter.id())).expect("status");
    let numbers = status.lines().find_map(|l| l.strip_prefix(line)).expect("the line");
    numbers.split_ascii_whitespace().map(|n| n.parse().expect("a number")).collect()
}

#[test]
fn root_serves_as_nobody_unless_told_otherwise() {
    if !is_root() {
        return;
    }
    let nobody = User::from_name("nobody").expect("users").expect("nobody");
    let (user, group) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    for flags in [&[][..], &["--user=nobody"], &[&*format!("--user={user}")]] {
        // Groups that it is not to keep.
        let exporter = Exporter::start(made_of_root(&["--groups=0,4,24"], flags));
        assert_eq!(numbers(&exporter, "Uid:"), [user; 4]);
        assert_eq!(numbers(&exporter, "Gid:"), [group; 4]);
        assert_eq!(numbers(&exporter, "Groups:"), [group]);
        // What it says about itself, it still can, though Linux hides it from others.
        let samples = exporter.samples();
        assert!(samples["process_open_fds"] > 3.0);
        assert!(samples["process_resident_memory_bytes"] > 0.0);
    }
}

/// Anybody of the same user could take the socket of the keeper out of it otherwise (pidfd_getfd(2)), and have root's
/// dtrace at its word.
#[test]
fn no_other_process_of_its_user_can_look_into_it() {
    if !is_root() {
        return;
    }
    let exporter = Exporter::start(serve(&[]));
    let look = format!("cat /proc/{}/environ >/dev/null", exporter.id());
    let nobody = User::from_name("nobody").expect("users").expect("nobody");
    let ids = [format!("--reuid={}", nobody.uid), format!("--regid={}", nobody.gid)];
    let mut command = Command::new("setpriv");
    command.args(ids).args(["--clear-groups", "--", "sh", "-c", &look]);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Permission denied"), "{said}");
}

#[test]
fn whoever_can_become_root_again_does_not_serve() {
    if !is_root() {
        return;
    }
    let user = ["--reuid=1000", "--regid=1000", "--clear-groups"];
    let able = |caps| [&user[..], &["--inh-caps", caps, "--ambient-caps", caps]].concat();
    for (how, flags) in [
        (vec!["--euid=65534", "--keep-groups"], &[][..]),
        (vec!["--euid=65534", "--keep-groups"], &["--user=nobody"]),
        (vec!["--euid=65534", "--keep-groups"], &["--config.check"]),
        (able("+setuid"), &[]),
        (able("+setgid"), &[]),
        // Its capabilities stay where its user changes.
        (vec!["--securebits=+no_setuid_fixup"], &[]),
    ] {
        let (code, said) = refused(made_of_root(&how, flags));
        assert_eq!(code, Some(77), "{how:?} {flags:?}: {said}");
        assert!(said.contains("can still become root or join its group"), "{how:?}: {said}");
    }
    let exporter = Exporter::start(made_of_root(&user, &[]));
    assert_eq!(numbers(&exporter, "Uid:"), [1000; 4]);
}

#[test]
fn root_that_is_told_to_stay_root_stays() {
    if !is_root() {
        return;
    }
    let exporter = Exporter::start(serve(&["--user=root"]));
    assert_eq!(numbers(&exporter, "Uid:"), [0; 4]);
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
    let (code, said) = refused(serve(&[&flag]));
    assert_eq!(code, Some(78), "{said}");
    let whom = "kqproc_exporter: as nobody, the user to serve as (see --user): cannot read ";
    assert!(said.contains(whom) && said.contains("Permission denied"), "{said}");
    let (code, said) = refused(serve(&[&flag, "--config.check"]));
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
    let (code, said) = refused(serve(&[&flag, "--web.listen-address=203.0.113.1:1"]));
    assert_eq!(code, Some(69), "{said}");
    let warned = said.lines().find(|line| line.contains("a reload will fail")).expect(&said);
    assert!(warned.contains("level=WARN") && warned.contains("Permission denied"), "{warned}");
}

#[test]
fn a_user_that_cannot_be_is_refused() {
    let (code, said) = refused(serve(&["--user=no-such-user-here"]));
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("there is no user \"no-such-user-here\" here: name another"), "{said}");
    if !geteuid().is_root() {
        let (code, said) = refused(serve(&["--user=root"]));
        assert_eq!(code, Some(77), "{said}");
        assert!(said.contains("only root can become user \"root\""), "{said}");
    }
}
