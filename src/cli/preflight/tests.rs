//! Tests of `check`: a host without faults, and one for each fault.

use std::path::PathBuf;

use super::facts::{FileAccess, FreeBsd, PreflightFacts, Reached, ServedProgram};
use super::judge::judge;
use super::{CheckStatus, Prerequisite, exit_status};
use crate::cli::user::Identity;
use crate::source::sysctl::KernelInfo;

/// The lines about FreeBSD 13.2 as root, with all that `serve` needs, but for what `change` changes.
fn lines(change: impl FnOnce(&mut PreflightFacts, &mut FreeBsd)) -> Vec<Prerequisite> {
    let mut freebsd = FreeBsd {
        jailed: Some(false),
        securelevel: Some(-1),
        hidden_by: None,
        hides_jailed: false,
        hooks: true,
        modules: true,
        device: FileAccess::Readable,
        dtrace: Ok(served("proc-causes.d", None)),
    };
    let mut facts = PreflightFacts {
        os: "freebsd",
        kernel: kernel("FreeBSD 13.2-RELEASE amd64", 1_302_001),
        uid: 0,
        this_host: true,
        remotes: vec![],
        user: Ok(identity("nobody")),
        listen: vec![("127.0.0.1:10180".to_owned(), Ok(()))],
        config: None,
        web_config: Some((PathBuf::from("kqproc.yml"), Ok(()))),
        freebsd: None,
    };
    change(&mut facts, &mut freebsd);
    if facts.this_host && facts.os == "freebsd" {
        facts.freebsd = Some(freebsd);
    }
    judge(&facts)
}

fn kernel(uname: &str, osreldate: u32) -> KernelInfo {
    KernelInfo { uname: uname.to_owned(), osreldate, ..KernelInfo::default() }
}

fn identity(name: &str) -> Identity {
    Identity { name: name.to_owned(), is_root: name == "root" }
}

fn served(program: &str, no_causes: Option<&str>) -> ServedProgram {
    ServedProgram { name: program.to_owned(), no_causes: no_causes.map(str::to_owned) }
}

fn err<T>(why: &str) -> Result<T, String> {
    Err(why.to_owned())
}

/// The names of the lines with this status.
fn names(lines: &[Prerequisite], status: CheckStatus) -> Vec<&'static str> {
    lines.iter().filter(|line| line.status == status).map(|line| line.what).collect()
}

/// Asserts which lines fail, and the exit status.
fn assert_fails(lines: &[Prerequisite], expected: &[&str], status: u8) {
    assert_eq!(names(lines, CheckStatus::Fail), expected, "{lines:?}");
    assert_eq!(exit_status(lines), status);
}

/// Asserts which lines warn, and that none fails.
fn assert_warns(lines: &[Prerequisite], expected: &[&str]) {
    assert_eq!(names(lines, CheckStatus::Warn), expected, "{lines:?}");
    assert_eq!(exit_status(lines), 0, "{lines:?}");
}

fn text<'a>(lines: &'a [Prerequisite], what: &str) -> &'a str {
    &lines.iter().find(|line| line.what == what).expect("a line of that name").found
}

#[test]
fn freebsd_13_2_as_root() {
    let lines = lines(|_, _| {});
    let all =
        "kernel root jail hooks securelevel modules device program causes user sight config listen";
    assert_eq!(names(&lines, CheckStatus::Ok).join(" "), all);
    assert_eq!(
        text(&lines, "kernel"),
        "FreeBSD 13.2-RELEASE amd64, osreldate 1302001: split expected"
    );
    assert_eq!(text(&lines, "program"), "proc-causes.d compiles");
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn every_line_that_is_not_ok_says_what_to_do_or_why_not() {
    let faults: [fn(&mut PreflightFacts, &mut FreeBsd); 4] = [
        |facts, freebsd| (facts.uid, freebsd.device) = (1001, FileAccess::Refused),
        |_, freebsd| (freebsd.modules, freebsd.device) = (false, FileAccess::Missing),
        |facts, freebsd| {
            (freebsd.hooks, freebsd.dtrace) = (false, err("no"));
            facts.listen[0].1 = err("taken");
        },
        |_, freebsd| {
            (freebsd.jailed, freebsd.modules) = (Some(true), false);
            freebsd.device = FileAccess::Missing;
        },
    ];
    for fault in faults {
        for line in lines(fault) {
            let is_bad = matches!(line.status, CheckStatus::Warn | CheckStatus::Fail);
            assert_eq!(is_bad, !line.remedy.is_empty(), "{line:?}");
        }
    }
}

#[test]
fn without_root() {
    let lines = lines(|facts, freebsd| {
        facts.uid = 1001;
        freebsd.device = FileAccess::Refused;
        freebsd.dtrace = err("DTrace requires additional privileges");
    });
    assert_fails(&lines, &["root", "device"], 77);
    assert_eq!(names(&lines, CheckStatus::Skip), ["program"]);
}

#[test]
fn a_device_that_is_open_to_a_user_is_enough_for_dtrace() {
    let lines = lines(|facts, _| facts.uid = 1001);
    assert_eq!(text(&lines, "root"), "uid 1001, and /dev/dtrace/dtrace is open to it");
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn in_a_jail() {
    let lines = lines(|_, freebsd| {
        (freebsd.jailed, freebsd.modules) = (Some(true), false);
        freebsd.device = FileAccess::Missing;
        freebsd.dtrace = err("DTrace device not available on system");
    });
    assert_fails(&lines, &["jail", "modules", "device"], 77);
}

#[test]
fn without_dtrace() {
    let why = "cannot run /usr/sbin/dtrace: No such file or directory";
    let lines = lines(|_, freebsd| freebsd.dtrace = err(why));
    assert_fails(&lines, &["program"], 69);
    assert_eq!(text(&lines, "program"), why);
}

#[test]
fn without_the_hooks() {
    assert_fails(&lines(|_, freebsd| freebsd.hooks = false), &["hooks"], 69);
}

#[test]
fn modules_that_dtrace_loads_itself_are_no_failure() {
    assert_warns(&lines(|_, freebsd| freebsd.modules = false), &["modules"]);
}

#[test]
fn modules_that_are_not_installed() {
    let lines =
        lines(|_, freebsd| (freebsd.modules, freebsd.device) = (false, FileAccess::Missing));
    assert_fails(&lines, &["modules", "device"], 69);
}

#[test]
fn a_securelevel_matters_only_where_modules_must_be_loaded() {
    assert_fails(&lines(|_, freebsd| freebsd.securelevel = Some(1)), &[], 0);
    let lines = lines(|_, freebsd| {
        freebsd.securelevel = Some(1);
        (freebsd.modules, freebsd.device) = (false, FileAccess::Missing);
    });
    assert_fails(&lines, &["securelevel", "modules", "device"], 77);
}

#[test]
fn one_program_is_enough_and_causes_are_a_luxury() {
    let with = |dtrace| lines(|_, freebsd| freebsd.dtrace = dtrace);
    let older = with(Ok(served("proc-xstat.d", Some("kn_influx is not a member"))));
    assert_eq!(text(&older, "program"), "proc-xstat.d compiles");
    assert_warns(&older, &["causes"]);
    let unwanted = with(Ok(served("proc.d", None)));
    assert_eq!((names(&unwanted, CheckStatus::Skip), exit_status(&unwanted)), (vec!["causes"], 0));
    let none = with(err("no D program compiles: p_xstat is not a member"));
    assert_fails(&none, &["program"], 69);
    assert!(text(&none, "program").ends_with("p_xstat is not a member"));
}

#[test]
fn a_kernel_that_lists_knotes_is_not_to_be_asked_for_them() {
    let lines = lines(|facts, _| facts.kernel.osreldate = 1_501_000);
    assert_warns(&lines, &["knotes"]);
    assert!(text(&lines, "knotes").contains("kern.proc.kq"), "{lines:?}");
}

#[test]
fn of_hosts_that_commands_reach_only_dtrace_is_asked() {
    let reached = |host: &str, found| Reached { host: host.to_owned(), found };
    let found = (kernel("FreeBSD 9.3-RELEASE", 903_000), served("proc-xstat.d", None));
    let why = "no answer of dtrace's (exit status: 255): refused";
    let lines = lines(|facts, _| {
        facts.this_host = false;
        facts.remotes = vec![reached("old", Ok(found)), reached("down", err(why))];
    });
    assert_eq!(
        text(&lines, "remote"),
        "old: FreeBSD 9.3-RELEASE, merged-status expected; proc-xstat.d compiles"
    );
    assert_fails(&lines, &["remote"], 69);
    assert!(lines.iter().all(|line| line.what != "kernel"), "this host is not watched");
}

#[test]
fn a_kernel_that_is_too_old() {
    let lines = lines(|facts, _| facts.kernel.osreldate = 1_003_000);
    assert_fails(&lines, &["kernel"], 69);
    assert!(text(&lines, "kernel").ends_with("merged-status expected"));
}

#[test]
fn a_wrong_web_configuration_and_a_taken_address() {
    let why = "kqproc.yml: line 3: unknown key";
    let wrong = lines(|facts, _| facts.web_config = Some(("kqproc.yml".into(), err(why))));
    assert_fails(&wrong, &["config"], 78);
    assert_eq!(text(&wrong, "config"), why);
    assert_eq!(names(&lines(|facts, _| facts.web_config = None), CheckStatus::Skip), ["config"]);
    let taken = lines(|facts, _| facts.listen[0].1 = err("Address already in use"));
    assert_fails(&taken, &["listen"], 69);
}

#[test]
fn the_configuration_file_has_a_line_of_its_own() {
    let with = |read| lines(|facts, _| facts.config = Some(("config.toml".into(), read)));
    assert_eq!(text(&with(Ok(())), "config"), "config.toml is valid");
    let wrong = with(err("config.toml, line 7: unknown field"));
    assert_fails(&wrong, &["config"], 78);
    assert_eq!(text(&wrong, "config"), "config.toml, line 7: unknown field");
}

#[test]
fn processes_that_are_hidden_from_the_user_cannot_be_watched() {
    let hidden_from = |name| {
        lines(|facts, freebsd| {
            facts.user = Ok(identity(name));
            freebsd.hidden_by = Some("security.bsd.see_other_uids");
        })
    };
    let nobody = hidden_from("nobody");
    assert_fails(&nobody, &["sight"], 77);
    let what = "security.bsd.see_other_uids hides other users' processes from user nobody";
    assert_eq!(text(&nobody, "sight"), what);
    assert_warns(&hidden_from("root"), &["user"]);
    assert_warns(&lines(|_, freebsd| freebsd.hides_jailed = true), &["sight"]);
}

#[test]
fn a_user_that_is_not_there() {
    let lines = lines(|facts, _| facts.user = err("there is no user \"x\" here"));
    assert_fails(&lines, &["user"], 77);
}

#[test]
fn on_linux() {
    let lines =
        lines(|facts, _| (facts.os, facts.kernel) = ("linux", kernel("Linux 6.1.0 x86_64", 0)));
    assert_fails(&lines, &["kernel", "hooks", "modules", "device", "program"], 69);
    assert!(text(&lines, "kernel").starts_with("Linux 6.1.0 x86_64: "));
    assert!(text(&lines, "program").starts_with("cannot be met on linux: "));
    assert_eq!(names(&lines, CheckStatus::Ok), ["user", "config", "listen"]);
}
