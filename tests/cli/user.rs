//! The user that an exporter serves as: it gives up root for good, or does not start.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::exporter::{Exporter, PROGRAM};
use crate::common::is_root;
use nix::unistd::{User, geteuid};

/// `serve` without the flag `--user` that the other tests add.
fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--source=replay", "--web.listen-address=127.0.0.1:0"]).args(flags);
    command
}

/// `serve` as a process whose ids and capabilities setpriv(1) has set.
fn made_of_root(how: &[&str], flags: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(how).arg("--").arg(PROGRAM).args(serve(flags).get_args());
    command
}

/// The exit status and stderr of a command that is refused.
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
fn root_serves_as_user_nobody_by_default() {
    if !is_root() {
        return;
    }
    let nobody = User::from_name("nobody").expect("users").expect("nobody");
    let (user, group) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    for flags in [&[][..], &["--user=nobody"], &[&*format!("--user={user}")]] {
        // The groups are to be given up.
        let exporter = Exporter::start(made_of_root(&["--groups=0,4,24"], flags));
        assert_eq!(numbers(&exporter, "Uid:"), [user; 4]);
        assert_eq!(numbers(&exporter, "Gid:"), [group; 4]);
        assert_eq!(numbers(&exporter, "Groups:"), [group]);
        // It can still read its own figures in /proc, though Linux hides them from others.
        let samples = exporter.samples();
        assert!(samples["process_open_fds"] > 3.0);
        assert!(samples["process_resident_memory_bytes"] > 0.0);
    }
}

/// Otherwise a process of the same user could take the keeper's socket from it (pidfd_getfd(2)) and start root's dtrace.
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
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("Permission denied"), "{stderr}");
}

#[test]
fn a_process_that_can_become_root_again_does_not_serve() {
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
        // The capabilities stay when the user changes.
        (vec!["--securebits=+no_setuid_fixup"], &[]),
    ] {
        let (code, stderr) = refused(made_of_root(&how, flags));
        assert_eq!(code, Some(77), "{how:?} {flags:?}: {stderr}");
        assert!(stderr.contains("can still become root or join its group"), "{how:?}: {stderr}");
    }
    let exporter = Exporter::start(made_of_root(&user, &[]));
    assert_eq!(numbers(&exporter, "Uid:"), [1000; 4]);
}

#[test]
fn root_stays_root_with_user_root() {
    if !is_root() {
        return;
    }
    let exporter = Exporter::start(serve(&["--user=root"]));
    assert_eq!(numbers(&exporter, "Uid:"), [0; 4]);
}

#[test]
fn what_user_nobody_may_not_read_is_not_read() {
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
    let (code, stderr) = refused(serve(&[&flag]));
    assert_eq!(code, Some(78), "{stderr}");
    let reason = "kqproc_exporter: as nobody, the user to serve as (see --user): cannot read ";
    assert!(stderr.contains(reason) && stderr.contains("Permission denied"), "{stderr}");
    let (code, stderr) = refused(serve(&[&flag, "--config.check"]));
    assert_eq!(code, Some(78), "{stderr}");
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
    // An address that this host does not have ends it as soon as everything is read.
    let flag = format!("--config.file={}", file.display());
    let (code, stderr) = refused(serve(&[&flag, "--web.listen-address=203.0.113.1:1"]));
    assert_eq!(code, Some(69), "{stderr}");
    let warned = stderr.lines().find(|line| line.contains("a reload will fail")).expect(&stderr);
    assert!(warned.contains("level=WARN") && warned.contains("Permission denied"), "{warned}");
}

#[test]
fn a_user_that_cannot_be_is_refused() {
    let (code, stderr) = refused(serve(&["--user=no-such-user-here"]));
    assert_eq!(code, Some(77), "{stderr}");
    assert!(
        stderr.contains("there is no user \"no-such-user-here\" here: name another"),
        "{stderr}"
    );
    if !geteuid().is_root() {
        let (code, stderr) = refused(serve(&["--user=root"]));
        assert_eq!(code, Some(77), "{stderr}");
        assert!(stderr.contains("only root can become user \"root\""), "{stderr}");
    }
}
