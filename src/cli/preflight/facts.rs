//! Gathers what `check` judges: the facts of this host, through the trait `Probe`, which tests replace.

use std::path::{Path, PathBuf};

use crate::cli::user::Identity;
use crate::http::web_args::{ListenAddress, WebArgs};
use crate::source::sysctl::{HIDING, HIDING_JAILED, KernelInfo};

/// What a host is asked. Everything else in this module is pure.
pub(crate) trait Probe {
    /// The operating system, as `std::env::consts::OS` spells it.
    fn os(&self) -> &str;
    /// The effective user.
    fn uid(&self) -> u32;
    /// Runs a program and waits for it, but not for ever.
    fn run(&self, program: &Path, args: &[&str]) -> Ran;
    /// Finds dtrace(1) and the D program as serve would; `Err` says why that fails, and what to do.
    fn dtrace(&self) -> Result<ServedProgram, String>;
    /// The hosts that commands reach, each as serve would find it.
    fn remotes(&self) -> Vec<Reached>;
    /// Opens a file for reading and closes it again.
    fn open(&self, path: &Path) -> FileAccess;
    /// Becomes the user as whom serve would serve, for good; `Err` says why that fails.
    fn become_user(&self) -> Result<Identity, String>;
    /// Reads the configuration file as serve would; `Err` says why it cannot be used.
    fn config(&self, path: &Path) -> Result<(), String>;
    /// Reads the web configuration and listens as serve would, then stops again; `Err` says why that fails.
    fn bind(&self, web: &WebArgs) -> Result<(), String>;
}

/// How a program ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ran {
    /// Exit status 0; its standard output.
    Well(String),
    /// Another exit status; the first line that it wrote to standard error.
    Badly(String),
    /// It could not be started.
    NotFound,
    /// It did not end in time.
    Hung,
}

/// Whether a file can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FileAccess {
    /// It can.
    Readable,
    /// It is not there.
    Missing,
    /// It is there, and not for us.
    Refused,
    /// Opening it failed for this reason.
    Failed(String),
}

/// The D program that serve would run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServedProgram {
    /// Its name.
    pub program: String,
    /// Why it has no cause probes, if it was to have them.
    pub(crate) no_causes: Option<String>,
}

/// A host that a command reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reached {
    /// How it is called, or its command.
    pub(crate) host: String,
    /// Its kernel and the D program that serve would run there, or why there is none.
    pub(crate) found: Result<(KernelInfo, ServedProgram), String>,
}

/// What serve would need.
#[derive(Clone, Debug)]
pub(crate) struct Wants<'a> {
    /// The configuration file.
    pub config: Option<&'a Path>,
    /// Whether it would watch processes of this host.
    pub this_host: bool,
    /// How it would be reached over HTTP.
    pub web: &'a WebArgs,
}

/// What was found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PreflightFacts {
    /// The operating system.
    pub os: String,
    /// System, release and machine; empty where uname(1) is missing.
    pub uname: String,
    /// The effective user.
    pub uid: u32,
    /// Whether processes of this host are to be watched.
    pub this_host: bool,
    /// What commands reach.
    pub remotes: Vec<Reached>,
    /// As whom serve would serve, or why it would not.
    pub user: Result<Identity, String>,
    /// Where to listen, and why that fails.
    pub listen: Vec<(String, Result<(), String>)>,
    /// The configuration file, and what is wrong with it.
    pub config: Option<(PathBuf, Result<(), String>)>,
    /// The same of the web configuration.
    pub web_config: Option<(PathBuf, Result<(), String>)>,
    /// What only FreeBSD has.
    pub freebsd: Option<FreeBsd>,
}

/// What was found out about a FreeBSD host. `None` if a sysctl is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FreeBsd {
    /// kern.osreldate.
    pub osreldate: Option<u32>,
    /// security.jail.jailed.
    pub(crate) jailed: Option<bool>,
    /// kern.securelevel.
    pub(crate) securelevel: Option<i32>,
    /// The sysctl that hides other users' processes from users other than root.
    pub(crate) hidden_by: Option<&'static str>,
    /// Another one hides processes in jails from users other than root.
    pub(crate) hides_jailed: bool,
    /// kern.features.kdtrace_hooks: only there if the kernel has KDTRACE_HOOKS (`sys/kern/kern_dtrace.c`).
    pub(crate) hooks: bool,
    /// Whether dtraceall was loaded before dtrace(1) ran.
    pub modules: bool,
    /// /dev/dtrace/dtrace, after dtrace(1) ran: it loads the modules itself if it may (libdtrace `dt_open.c`).
    pub device: FileAccess,
    /// The D program that serve would run, or why there is none.
    pub dtrace: Result<ServedProgram, String>,
}

/// The gate to DTrace: a process that can open it may do everything (13.2 `dtrace.c:8282`).
pub(crate) const DEVICE: &str = "/dev/dtrace/dtrace";

impl PreflightFacts {
    /// Asks the host. On FreeBSD, dtrace(1) loads its modules on the way if they are not loaded.
    pub(crate) fn gather(probe: &dyn Probe, wants: &Wants<'_>) -> PreflightFacts {
        let uname = match probe.run(Path::new("uname"), &["-srm"]) {
            Ran::Well(out) => out.trim().to_owned(),
            _ => String::new(),
        };
        let web = |config_file: Option<&PathBuf>, address: Option<&ListenAddress>| {
            probe.bind(&WebArgs {
                config_file: config_file.cloned(),
                listen_addresses: address.into_iter().cloned().collect(),
                ..wants.web.clone()
            })
        };
        let addresses = &wants.web.listen_addresses;
        let is_asked = wants.this_host && probe.os() == "freebsd";
        let (uid, freebsd) = (probe.uid(), is_asked.then(|| FreeBsd::gather(probe)));
        let config = wants.config.map(|file| (file.to_owned(), probe.config(file)));
        // In the order of serve: from here on with the rights of that user.
        let user = probe.become_user();
        PreflightFacts {
            os: probe.os().to_owned(),
            uname,
            uid,
            this_host: wants.this_host,
            remotes: probe.remotes(),
            user,
            listen: addresses.iter().map(|at| (at.to_string(), web(None, Some(at)))).collect(),
            config,
            web_config: wants
                .web
                .config_file
                .as_ref()
                .map(|file| (file.clone(), web(Some(file), None))),
            freebsd,
        }
    }
}

impl FreeBsd {
    fn gather(probe: &dyn Probe) -> FreeBsd {
        let hides = |(name, value): &(&str, i32)| sysctl(probe, name) == Some(*value);
        let modules = probe.run(Path::new("/sbin/kldstat"), &["-q", "-m", "dtraceall"]);
        // It loads the modules and makes the device, if it may.
        let dtrace = probe.dtrace();
        FreeBsd {
            osreldate: sysctl(probe, "kern.osreldate"),
            jailed: sysctl(probe, "security.jail.jailed").map(|jailed: i32| jailed != 0),
            securelevel: sysctl(probe, "kern.securelevel"),
            hidden_by: HIDING.iter().find(|hiding| hides(hiding)).map(|(name, _)| *name),
            hides_jailed: hides(&HIDING_JAILED),
            hooks: sysctl::<i32>(probe, "kern.features.kdtrace_hooks") == Some(1),
            modules: matches!(modules, Ran::Well(_)),
            device: probe.open(Path::new(DEVICE)),
            dtrace,
        }
    }
}

fn sysctl<T: std::str::FromStr>(probe: &dyn Probe, name: &str) -> Option<T> {
    match probe.run(Path::new("/sbin/sysctl"), &["-n", name]) {
        Ran::Well(out) => out.trim().parse().ok(),
        _ => None,
    }
}
