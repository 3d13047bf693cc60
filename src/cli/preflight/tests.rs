//! Tests of `check`: a host without faults, and one for each fault.

use std::path::{Path, PathBuf};

use super::facts::{FileAccess, PreflightFacts, Probe, Ran, Reached, ServedProgram, Wants};
use super::judge::judge;
use super::{CheckStatus, Prerequisite, exit_status};
use crate::cli::user::Identity;
use crate::http::web_args::WebArgs;
use crate::source::sysctl::KernelInfo;

/// A host that answers what a test wants.
#[derive(Clone)]
struct FakeHost {
    os: &'static str,
    uid: u32,
    osreldate: &'static str,
    jailed: &'static str,
    securelevel: &'static str,
    hooks: bool,
    modules: bool,
    device: FileAccess,
    dtrace: Result<ServedProgram, String>,
    taken: bool,
    wrong_config: bool,
    hiding: &'static str,
    user: Result<Identity, String>,
    remotes: Vec<Reached>,
}

fn freebsd_13_2() -> FakeHost {
    FakeHost {
        os: "freebsd",
        uid: 0,
        osreldate: "1302001",
        jailed: "0",
        securelevel: "-1",
        hooks: true,
        modules: true,
        device: FileAccess::Readable,
        dtrace: found("proc-causes.d", None),
        taken: false,
        wrong_config: false,
        hiding: "",
        user: Ok(Identity { name: "nobody".to_owned(), is_root: false }),
        remotes: vec![],
    }
}

impl Probe for FakeHost {
    fn os(&self) -> &str {
        self.os
    }

    fn remotes(&self) -> Vec<Reached> {
        self.remotes.clone()
    }

    fn uid(&self) -> u32 {
        self.uid
    }

    fn run(&self, program: &Path, args: &[&str]) -> Ran {
        let well = |text: &str| Ran::Well(format!("{text}\n"));
        let absent = || Ran::Badly("unknown oid".to_owned());
        match (program.to_str().unwrap_or_default(), args) {
            ("uname", _) if self.os == "freebsd" => well("FreeBSD 13.2-RELEASE amd64"),
            ("uname", _) => well("Linux 6.1.0 x86_64"),
            ("/sbin/sysctl", ["-n", "kern.osreldate"]) => well(self.osreldate),
            ("/sbin/sysctl", ["-n", "security.jail.jailed"]) => well(self.jailed),
            ("/sbin/sysctl", ["-n", "kern.securelevel"]) => well(self.securelevel),
            ("/sbin/sysctl", ["-n", name]) if *name == self.hiding => well("0"),
            ("/sbin/sysctl", ["-n", name]) if name.starts_with("security.bsd.") => well("1"),
            ("/sbin/sysctl", ["-n", "kern.features.kdtrace_hooks"]) if self.hooks => well("1"),
            ("/sbin/kldstat", ["-q", "-m", "dtraceall"]) if self.modules => well(""),
            _ => absent(),
        }
    }

    fn dtrace(&self) -> Result<ServedProgram, String> {
        self.dtrace.clone()
    }

    fn open(&self, path: &Path) -> FileAccess {
        assert_eq!(path, Path::new("/dev/dtrace/dtrace"));
        self.device.clone()
    }

    fn become_user(&self) -> Result<Identity, String> {
        self.user.clone()
    }

    fn config(&self, path: &Path) -> Result<(), String> {
        match self.wrong_config {
            true => Err(format!("{}, line 7: unknown field", path.display())),
            false => Ok(()),
        }
    }

    fn bind(&self, web: &WebArgs) -> Result<(), String> {
        if web.config_file.is_some() && self.wrong_config {
            Err("kqproc.yml: line 3: unknown key".to_owned())
        } else if !web.listen_addresses.is_empty() && self.taken {
            Err("cannot listen on 127.0.0.1:10180: Address already in use".to_owned())
        } else {
            Ok(())
        }
    }
}

fn found(program: &str, no_causes: Option<&str>) -> Result<ServedProgram, String> {
    Ok(ServedProgram { program: program.to_owned(), no_causes: no_causes.map(str::to_owned) })
}

fn lines_with(
    host: &FakeHost,
    config: Option<&Path>,
    config_file: Option<PathBuf>,
) -> Vec<Prerequisite> {
    let web = WebArgs {
        listen_addresses: vec!["127.0.0.1:10180".parse().expect("an address")],
        telemetry_path: "/metrics".to_owned(),
        external_url: None,
        route_prefix: None,
        config_file,
        max_requests: 40,
    };
    let this_host = host.remotes.is_empty();
    judge(&PreflightFacts::gather(host, &Wants { config, this_host, web: &web }))
}

fn lines(host: &FakeHost) -> Vec<Prerequisite> {
    lines_with(host, None, Some(PathBuf::from("kqproc.yml")))
}

/// The names of the lines with this status.
fn names(lines: &[Prerequisite], status: CheckStatus) -> Vec<&'static str> {
    lines.iter().filter(|line| line.status == status).map(|line| line.what).collect()
}

fn text<'a>(lines: &'a [Prerequisite], what: &str) -> &'a str {
    &lines.iter().find(|line| line.what == what).expect("a line of that name").found
}

#[test]
fn freebsd_13_2_as_root() {
    let lines = lines(&freebsd_13_2());
    assert_eq!(
        names(&lines, CheckStatus::Ok),
        [
            "kernel",
            "root",
            "jail",
            "hooks",
            "securelevel",
            "modules",
            "device",
            "program",
            "causes",
            "user",
            "sight",
            "config",
            "listen"
        ]
    );
    assert_eq!(
        text(&lines, "kernel"),
        "FreeBSD 13.2-RELEASE amd64, osreldate 1302001: split expected"
    );
    assert_eq!(text(&lines, "program"), "proc-causes.d compiles");
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn every_line_that_is_not_ok_says_what_to_do_or_why_not() {
    for host in [
        FakeHost { uid: 1001, device: FileAccess::Refused, ..freebsd_13_2() },
        FakeHost { modules: false, device: FileAccess::Missing, ..freebsd_13_2() },
        FakeHost { hooks: false, taken: true, dtrace: Err("no".to_owned()), ..freebsd_13_2() },
        FakeHost { jailed: "1", device: FileAccess::Missing, modules: false, ..freebsd_13_2() },
    ] {
        for line in lines(&host) {
            assert_eq!(
                matches!(line.status, CheckStatus::Warn | CheckStatus::Fail),
                !line.remedy.is_empty(),
                "{line:?}"
            );
        }
    }
}

#[test]
fn without_root() {
    let dtrace = Err("DTrace requires additional privileges".to_owned());
    let host = FakeHost { uid: 1001, device: FileAccess::Refused, dtrace, ..freebsd_13_2() };
    let lines = lines(&host);
    assert_eq!(names(&lines, CheckStatus::Fail), ["root", "device"]);
    assert_eq!(names(&lines, CheckStatus::Skip), ["program"]);
    assert_eq!(exit_status(&lines), 77);
}

#[test]
fn a_device_that_is_open_to_a_user_is_enough_for_dtrace() {
    let lines = lines(&FakeHost { uid: 1001, ..freebsd_13_2() });
    assert_eq!(text(&lines, "root"), "uid 1001, and /dev/dtrace/dtrace is open to it");
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn in_a_jail() {
    let dtrace = Err("DTrace device not available on system".to_owned());
    let device = FileAccess::Missing;
    let host = FakeHost { jailed: "1", modules: false, device, dtrace, ..freebsd_13_2() };
    let lines = lines(&host);
    assert_eq!(names(&lines, CheckStatus::Fail), ["jail", "modules", "device"]);
    assert_eq!(exit_status(&lines), 77);
}

#[test]
fn without_dtrace() {
    let dtrace = Err("cannot run /usr/sbin/dtrace: No such file or directory".to_owned());
    let lines = lines(&FakeHost { dtrace, ..freebsd_13_2() });
    assert_eq!(names(&lines, CheckStatus::Fail), ["program"]);
    assert!(text(&lines, "program").starts_with("cannot run /usr/sbin/dtrace"));
    assert_eq!(exit_status(&lines), 69);
}

#[test]
fn without_the_hooks() {
    let lines = lines(&FakeHost { hooks: false, ..freebsd_13_2() });
    assert_eq!((names(&lines, CheckStatus::Fail), exit_status(&lines)), (vec!["hooks"], 69));
}

#[test]
fn modules_that_dtrace_loads_itself_are_no_failure() {
    let lines = lines(&FakeHost { modules: false, ..freebsd_13_2() });
    assert_eq!(names(&lines, CheckStatus::Warn), ["modules"]);
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn modules_that_are_not_installed() {
    let lines = lines(&FakeHost { modules: false, device: FileAccess::Missing, ..freebsd_13_2() });
    assert_eq!(names(&lines, CheckStatus::Fail), ["modules", "device"]);
    assert_eq!(exit_status(&lines), 69);
}

#[test]
fn a_securelevel_matters_only_where_modules_must_be_loaded() {
    let raised = FakeHost { securelevel: "1", ..freebsd_13_2() };
    assert_eq!(exit_status(&lines(&raised)), 0);
    let lines = lines(&FakeHost { modules: false, device: FileAccess::Missing, ..raised });
    assert_eq!(names(&lines, CheckStatus::Fail)[0], "securelevel");
    assert_eq!(exit_status(&lines), 77);
}

#[test]
fn one_program_is_enough_and_causes_are_a_luxury() {
    let host = |dtrace| lines(&FakeHost { dtrace, ..freebsd_13_2() });
    let older = host(found("proc-xstat.d", Some("kn_influx is not a member")));
    assert_eq!(text(&older, "program"), "proc-xstat.d compiles");
    assert_eq!((names(&older, CheckStatus::Warn), exit_status(&older)), (vec!["causes"], 0));
    let unwanted = host(found("proc.d", None));
    assert_eq!((names(&unwanted, CheckStatus::Skip), exit_status(&unwanted)), (vec!["causes"], 0));
    let none = host(Err("no D program compiles: p_xstat is not a member".to_owned()));
    assert_eq!((names(&none, CheckStatus::Fail), exit_status(&none)), (vec!["program"], 69));
    assert!(text(&none, "program").ends_with("p_xstat is not a member"));
}

#[test]
fn a_kernel_that_lists_knotes_is_not_to_be_asked_for_them() {
    let lines = lines(&FakeHost { osreldate: "1501000", ..freebsd_13_2() });
    assert_eq!((names(&lines, CheckStatus::Warn), exit_status(&lines)), (vec!["knotes"], 0));
    assert!(text(&lines, "knotes").contains("kern.proc.kq"), "{lines:?}");
}

#[test]
fn of_hosts_that_commands_reach_only_dtrace_is_asked() {
    let reached = |host: &str, found| Reached { host: host.to_owned(), found };
    let kernel = KernelInfo {
        uname: "FreeBSD 9.3-RELEASE".to_owned(),
        osreldate: 903_000,
        ..KernelInfo::default()
    };
    let program = found("proc-xstat.d", None).expect("a program");
    let remotes = vec![
        reached("old", Ok((kernel, program))),
        reached("down", Err("no answer of dtrace's (exit status: 255): refused".to_owned())),
    ];
    let lines = lines(&FakeHost { os: "linux", remotes, ..freebsd_13_2() });
    assert_eq!(
        text(&lines, "remote"),
        "old: FreeBSD 9.3-RELEASE, merged-status expected; proc-xstat.d compiles"
    );
    assert_eq!((names(&lines, CheckStatus::Fail), exit_status(&lines)), (vec!["remote"], 69));
    assert!(lines.iter().all(|line| line.what != "kernel"), "this host is not watched");
}

#[test]
fn a_kernel_that_is_too_old() {
    let lines = lines(&FakeHost { osreldate: "1003000", ..freebsd_13_2() });
    assert_eq!(names(&lines, CheckStatus::Fail), ["kernel"]);
    assert!(text(&lines, "kernel").ends_with("merged-status expected"));
}

#[test]
fn a_wrong_configuration_and_a_taken_address() {
    let wrong = lines(&FakeHost { wrong_config: true, ..freebsd_13_2() });
    assert_eq!(names(&wrong, CheckStatus::Fail), ["config"]);
    assert_eq!(text(&wrong, "config"), "kqproc.yml: line 3: unknown key");
    assert_eq!(exit_status(&wrong), 78);
    assert_eq!(names(&lines_with(&freebsd_13_2(), None, None), CheckStatus::Skip), ["config"]);
    let taken = lines(&FakeHost { taken: true, ..freebsd_13_2() });
    assert_eq!((names(&taken, CheckStatus::Fail), exit_status(&taken)), (vec!["listen"], 69));
}

#[test]
fn the_configuration_file_has_a_line_of_its_own() {
    let file = Some(Path::new("config.toml"));
    let good = lines_with(&freebsd_13_2(), file, None);
    assert_eq!(text(&good, "config"), "config.toml is valid");
    assert_eq!(names(&good, CheckStatus::Skip), ["config"], "no web configuration");
    let wrong = lines_with(&FakeHost { wrong_config: true, ..freebsd_13_2() }, file, None);
    assert_eq!((names(&wrong, CheckStatus::Fail), exit_status(&wrong)), (vec!["config"], 78));
    assert_eq!(text(&wrong, "config"), "config.toml, line 7: unknown field");
}

#[test]
fn processes_that_are_hidden_from_the_user_cannot_be_watched() {
    let hidden = FakeHost { hiding: "security.bsd.see_other_uids", ..freebsd_13_2() };
    let lines_as = |user: Identity| lines(&FakeHost { user: Ok(user), ..hidden.clone() });
    let nobody = lines(&hidden);
    assert_eq!((names(&nobody, CheckStatus::Fail), exit_status(&nobody)), (vec!["sight"], 77));
    let what = "security.bsd.see_other_uids hides other users' processes from user nobody";
    assert_eq!(text(&nobody, "sight"), what);
    let jails = lines(&FakeHost { hiding: "security.bsd.see_jail_proc", ..freebsd_13_2() });
    assert_eq!((names(&jails, CheckStatus::Warn), exit_status(&jails)), (vec!["sight"], 0));
    let root = lines_as(Identity { name: "root".to_owned(), is_root: true });
    assert_eq!((names(&root, CheckStatus::Warn), exit_status(&root)), (vec!["user"], 0));
}

#[test]
fn a_user_that_is_not_there() {
    let user = Err("there is no user \"x\" here".to_owned());
    let lines = lines(&FakeHost { user, ..freebsd_13_2() });
    assert_eq!((names(&lines, CheckStatus::Fail), exit_status(&lines)), (vec!["user"], 77));
}

#[test]
fn on_linux() {
    let lines = lines(&FakeHost { os: "linux", ..freebsd_13_2() });
    assert_eq!(
        names(&lines, CheckStatus::Fail),
        ["kernel", "hooks", "modules", "device", "program"]
    );
    assert!(text(&lines, "kernel").starts_with("Linux 6.1.0 x86_64: "));
    assert!(text(&lines, "program").starts_with("cannot be met on linux: "));
    assert_eq!(names(&lines, CheckStatus::Ok), ["user", "config", "listen"]);
    assert_eq!(exit_status(&lines), 69);
}
