//! Hosts as they are met, and what check says of each.

use std::path::{Path, PathBuf};

use super::facts::{Access, Facts, Probe, Program, Ran, Wants};
use super::judge::judge;
use super::{Line, Status, exit_status};
use crate::cli::user::Identity;
use crate::http::web_args::WebArgs;

/// A host that answers as it is told to.
#[derive(Clone)]
struct Told {
    os: &'static str,
    uid: u32,
    osreldate: &'static str,
    jailed: &'static str,
    securelevel: &'static str,
    hooks: bool,
    modules: bool,
    device: Access,
    probes: Ran,
    /// Which D programs compile, and what dtrace says of the others.
    compiles: &'static [&'static str],
    refusal: Ran,
    taken: bool,
    wrong_config: bool,
    hiding: &'static str,
    user: Result<Identity, String>,
}

const LISTING: &str = "   ID   PROVIDER            MODULE                          FUNCTION NAME
 1001       proc            kernel                              none create
 1002       proc            kernel                              none exit
 1003       proc            kernel                              none exec-success
 1004       proc            kernel                              none exec-failure
 2001    syscall           freebsd                       getpriority entry
";

fn freebsd_13_2() -> Told {
    Told {
        os: "freebsd",
        uid: 0,
        osreldate: "1302001",
        jailed: "0",
        securelevel: "-1",
        hooks: true,
        modules: true,
        device: Access::Readable,
        probes: Ran::Well(LISTING.to_owned()),
        compiles: &["proc.d", "proc-causes.d"],
        refusal: Ran::Badly("failed to compile script: p_xstat is not a member".to_owned()),
        taken: false,
        wrong_config: false,
        hiding: "",
        user: Ok(Identity { name: "nobody".to_owned(), is_root: false }),
    }
}

impl Probe for Told {
    fn os(&self) -> &str {
        self.os
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
            ("/usr/sbin/dtrace", ["-l", "-n", _]) => self.probes.clone(),
            _ => absent(),
        }
    }

    fn compile(&self, dtrace: &Path, program: &str, args: &[&str]) -> Ran {
        assert_eq!((dtrace, args), (Path::new("/usr/sbin/dtrace"), &["1", "2"][..]));
        if self.probes == Ran::NotFound {
            Ran::NotFound
        } else if self.compiles.contains(&program) {
            Ran::Well(String::new())
        } else {
            self.refusal.clone()
        }
    }

    fn open(&self, path: &Path) -> Access {
        assert_eq!(path, Path::new("/dev/dtrace/dtrace"));
        self.device.clone()
    }

    fn settle(&self) -> Result<Identity, String> {
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

fn program(name: &'static str) -> Program<'static> {
    Program { name, text: name, args: &["1", "2"] }
}

fn lines_with(host: &Told, config: Option<&Path>, config_file: Option<PathBuf>) -> Vec<Line> {
    let web = WebArgs {
        listen_addresses: vec!["127.0.0.1:10180".parse().expect("an address")],
        telemetry_path: "/metrics".to_owned(),
        external_url: None,
        route_prefix: None,
        config_file,
        max_requests: 40,
    };
    let wants = Wants {
        dtrace: Path::new("/usr/sbin/dtrace"),
        programs: &[program("proc.d"), program("proc-xstat.d")],
        causes: Some(program("proc-causes.d")),
        config,
        web: &web,
    };
    judge(&Facts::gather(host, &wants))
}

fn lines(host: &Told) -> Vec<Line> {
    lines_with(host, None, Some(PathBuf::from("kqproc.yml")))
}

/// The names of the lines with this status.
fn names(lines: &[Line], status: Status) -> Vec<&'static str> {
    lines.iter().filter(|line| line.status == status).map(|line| line.what).collect()
}

fn found<'a>(lines: &'a [Line], what: &str) -> &'a str {
    &lines.iter().find(|line| line.what == what).expect("a line of that name").found
}

#[test]
fn freebsd_13_2_as_root() {
    let lines = lines(&freebsd_13_2());
    assert_eq!(
        names(&lines, Status::Ok),
        [
            "kernel",
            "root",
            "jail",
            "hooks",
            "securelevel",
            "modules",
            "device",
            "probes",
            "programs",
            "causes",
            "user",
            "sight",
            "config",
            "listen"
        ]
    );
    assert_eq!(
        found(&lines, "kernel"),
        "FreeBSD 13.2-RELEASE amd64, osreldate 1302001: split expected"
    );
    assert_eq!(found(&lines, "programs"), "proc.d compiles");
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn every_line_that_is_not_ok_says_what_to_do_or_why_not() {
    for host in [
        Told { uid: 1001, device: Access::Refused, ..freebsd_13_2() },
        Told { modules: false, device: Access::Missing, ..freebsd_13_2() },
        Told { hooks: false, taken: true, compiles: &[], ..freebsd_13_2() },
        Told { jailed: "1", device: Access::Missing, modules: false, ..freebsd_13_2() },
    ] {
        for line in lines(&host) {
            assert_eq!(
                matches!(line.status, Status::Warn | Status::Fail),
                !line.remedy.is_empty(),
                "{line:?}"
            );
        }
    }
}

#[test]
fn without_root() {
    let refused = Ran::Badly("DTrace requires additional privileges".to_owned());
    let host = Told {
        uid: 1001,
        device: Access::Refused,
        probes: refused.clone(),
        compiles: &[],
        refusal: refused,
        ..freebsd_13_2()
    };
    let lines = lines(&host);
    assert_eq!(names(&lines, Status::Fail), ["root", "device"]);
    assert_eq!(names(&lines, Status::Skip), ["probes", "programs", "causes"]);
    assert_eq!(exit_status(&lines), 77);
}

#[test]
fn a_device_that_is_open_to_a_user_is_enough_for_dtrace() {
    let lines = lines(&Told { uid: 1001, ..freebsd_13_2() });
    assert_eq!(found(&lines, "root"), "uid 1001, and /dev/dtrace/dtrace is open to it");
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn in_a_jail() {
    let unavailable = Ran::Badly("DTrace device not available on system".to_owned());
    let host = Told {
        jailed: "1",
        modules: false,
        device: Access::Missing,
        probes: unavailable.clone(),
        compiles: &[],
        refusal: unavailable,
        ..freebsd_13_2()
    };
    let lines = lines(&host);
    assert_eq!(names(&lines, Status::Fail), ["jail", "modules", "device"]);
    assert_eq!(exit_status(&lines), 77);
}

#[test]
fn without_dtrace() {
    let lines = lines(&Told { probes: Ran::NotFound, ..freebsd_13_2() });
    assert_eq!(names(&lines, Status::Fail), ["probes"]);
    assert_eq!(found(&lines, "probes"), "there is no /usr/sbin/dtrace");
    assert_eq!(exit_status(&lines), 69);
}

#[test]
fn without_the_hooks() {
    let lines = lines(&Told { hooks: false, ..freebsd_13_2() });
    assert_eq!((names(&lines, Status::Fail), exit_status(&lines)), (vec!["hooks"], 69));
}

#[test]
fn modules_that_dtrace_loads_itself_are_no_failure() {
    let lines = lines(&Told { modules: false, ..freebsd_13_2() });
    assert_eq!(names(&lines, Status::Warn), ["modules"]);
    assert_eq!(exit_status(&lines), 0);
}

#[test]
fn modules_that_are_not_installed() {
    let lines = lines(&Told { modules: false, device: Access::Missing, ..freebsd_13_2() });
    assert_eq!(names(&lines, Status::Fail), ["modules", "device"]);
    assert_eq!(exit_status(&lines), 69);
}

#[test]
fn a_securelevel_matters_only_where_modules_must_be_loaded() {
    let raised = Told { securelevel: "1", ..freebsd_13_2() };
    assert_eq!(exit_status(&lines(&raised)), 0);
    let lines = lines(&Told { modules: false, device: Access::Missing, ..raised });
    assert_eq!(names(&lines, Status::Fail)[0], "securelevel");
    assert_eq!(exit_status(&lines), 77);
}

#[test]
fn a_probe_that_is_not_listed_is_missing() {
    let without = |name: &str| {
        let kept = LISTING.lines().filter(|line| !line.ends_with(name)).collect::<Vec<_>>();
        lines(&Told { probes: Ran::Well(kept.join("\n")), ..freebsd_13_2() })
    };
    assert_eq!(found(&without(" create"), "probes"), "missing: proc:::create");
    assert_eq!(
        found(&without("getpriority entry"), "probes"),
        "missing: syscall::getpriority:entry"
    );
    assert_eq!(exit_status(&without(" create")), 69);
}

#[test]
fn one_main_program_is_enough_and_causes_are_a_luxury() {
    let host = |compiles| lines(&Told { compiles, ..freebsd_13_2() });
    let older = host(&["proc-xstat.d", "proc-causes.d"]);
    assert_eq!(found(&older, "programs"), "proc-xstat.d compiles");
    assert_eq!(exit_status(&older), 0);
    let no_causes = host(&["proc.d"]);
    assert_eq!((names(&no_causes, Status::Warn), exit_status(&no_causes)), (vec!["causes"], 0));
    let none = host(&[]);
    assert_eq!((names(&none, Status::Fail), exit_status(&none)), (vec!["programs"], 69));
    assert!(found(&none, "programs").ends_with("p_xstat is not a member"));
}

#[test]
fn a_dtrace_that_hangs_is_a_failure() {
    let host = Told { probes: Ran::Hung, compiles: &[], refusal: Ran::Hung, ..freebsd_13_2() };
    let lines = lines(&host);
    assert_eq!(names(&lines, Status::Fail), ["probes", "programs"]);
    assert_eq!(exit_status(&lines), 69);
}

#[test]
fn a_kernel_that_is_too_old() {
    let lines = lines(&Told { osreldate: "1003000", ..freebsd_13_2() });
    assert_eq!(names(&lines, Status::Fail), ["kernel"]);
    assert!(found(&lines, "kernel").ends_with("merged-status expected"));
}

#[test]
fn a_wrong_configuration_and_a_taken_address() {
    let wrong = lines(&Told { wrong_config: true, ..freebsd_13_2() });
    assert_eq!(names(&wrong, Status::Fail), ["config"]);
    assert_eq!(found(&wrong, "config"), "kqproc.yml: line 3: unknown key");
    assert_eq!(exit_status(&wrong), 78);
    assert_eq!(names(&lines_with(&freebsd_13_2(), None, None), Status::Skip), ["config"]);
    let taken = lines(&Told { taken: true, ..freebsd_13_2() });
    assert_eq!((names(&taken, Status::Fail), exit_status(&taken)), (vec!["listen"], 69));
}

#[test]
fn the_configuration_file_has_a_line_of_its_own() {
    let file = Some(Path::new("config.toml"));
    let good = lines_with(&freebsd_13_2(), file, None);
    assert_eq!(found(&good, "config"), "config.toml is valid");
    assert_eq!(names(&good, Status::Skip), ["config"], "no web configuration");
    let wrong = lines_with(&Told { wrong_config: true, ..freebsd_13_2() }, file, None);
    assert_eq!((names(&wrong, Status::Fail), exit_status(&wrong)), (vec!["config"], 78));
    assert_eq!(found(&wrong, "config"), "config.toml, line 7: unknown field");
}

#[test]
fn processes_that_are_hidden_from_the_user_cannot_be_watched() {
    let hidden = Told { hiding: "security.bsd.see_other_uids", ..freebsd_13_2() };
    let lines_as = |user: Identity| lines(&Told { user: Ok(user), ..hidden.clone() });
    let nobody = lines(&hidden);
    assert_eq!((names(&nobody, Status::Fail), exit_status(&nobody)), (vec!["sight"], 77));
    let what = "security.bsd.see_other_uids hides other users' processes from user nobody";
    assert_eq!(found(&nobody, "sight"), what);
    let jails = lines(&Told { hiding: "security.bsd.see_jail_proc", ..freebsd_13_2() });
    assert_eq!((names(&jails, Status::Warn), exit_status(&jails)), (vec!["sight"], 0));
    let root = lines_as(Identity { name: "root".to_owned(), is_root: true });
    assert_eq!((names(&root, Status::Warn), exit_status(&root)), (vec!["user"], 0));
}

#[test]
fn a_user_that_is_not_there() {
    let user = Err("there is no user \"x\" here".to_owned());
    let lines = lines(&Told { user, ..freebsd_13_2() });
    assert_eq!((names(&lines, Status::Fail), exit_status(&lines)), (vec!["user"], 77));
}

#[test]
fn on_linux() {
    let lines = lines(&Told { os: "linux", ..freebsd_13_2() });
    assert_eq!(
        names(&lines, Status::Fail),
        ["kernel", "hooks", "modules", "device", "probes", "programs"]
    );
    assert!(found(&lines, "kernel").starts_with("Linux 6.1.0 x86_64: "));
    assert!(found(&lines, "probes").starts_with("cannot be met on linux: "));
    assert_eq!(names(&lines, Status::Ok), ["user", "config", "listen"]);
    assert_eq!(exit_status(&lines), 69);
}
