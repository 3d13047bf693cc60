//! Gathers what `check` judges: the facts of this host and of those that commands reach, found as `serve` would find them.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::config::Settings;
use crate::cli::user::{Identity, UserArgs};
use crate::http::Server;
use crate::http::web_args::WebArgs;
use crate::source::dtrace::{DtraceOptions, DtraceWitness, KeeperScope};
use crate::source::live::{LiveError, Remote, RemoteConfig};
use crate::source::sysctl::{self, KernelInfo};

/// What `serve` would be given.
pub(crate) struct PlannedService<'a> {
    pub(crate) user: &'a UserArgs,
    /// The configuration file.
    pub(crate) config: Option<&'a Path>,
    /// Whether it would watch processes of this host.
    pub(crate) this_host: bool,
    /// How it would run dtrace(1) here.
    pub(crate) dtrace: DtraceOptions,
    /// Which hosts it would watch over commands.
    pub(crate) remotes: Vec<RemoteConfig>,
    pub(crate) web: &'a WebArgs,
}

/// What was found out. An `Err` says why something fails, and what to do.
#[derive(Clone, Debug)]
pub(crate) struct PreflightFacts {
    /// The operating system, as `std::env::consts::OS` spells it.
    pub(crate) os: &'static str,
    pub(crate) kernel: KernelInfo,
    /// The effective user.
    pub(crate) uid: u32,
    /// Whether processes of this host are to be watched.
    pub(crate) this_host: bool,
    /// What commands reach.
    pub(crate) remotes: Vec<Reached>,
    /// As whom serve would serve.
    pub(crate) user: Result<Identity, String>,
    /// Where to listen.
    pub(crate) listen: Vec<(String, Result<(), String>)>,
    /// The configuration file.
    pub(crate) config: Option<(PathBuf, Result<(), String>)>,
    /// The web configuration.
    pub(crate) web_config: Option<(PathBuf, Result<(), String>)>,
    /// What only FreeBSD has; `None` elsewhere, and if this host is not to be watched.
    pub(crate) freebsd: Option<FreeBsd>,
}

/// What was found out about a FreeBSD host. `None` if a sysctl is missing.
#[derive(Clone, Debug)]
pub(crate) struct FreeBsd {
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
    pub(crate) modules: bool,
    /// /dev/dtrace/dtrace, after dtrace(1) ran: it loads the modules itself if it may (libdtrace `dt_open.c`).
    pub(crate) device: FileAccess,
    /// The D program that serve would run.
    pub(crate) dtrace: Result<ServedProgram, String>,
}

/// Whether a file can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FileAccess {
    Readable,
    Missing,
    /// It is there, and not for us.
    Refused,
    /// Opening it failed for this reason.
    Failed(String),
}

/// The D program that serve would run.
#[derive(Clone, Debug)]
pub(crate) struct ServedProgram {
    pub(crate) name: String,
    /// Why it has no cause probes, if it was to have them.
    pub(crate) no_causes: Option<String>,
}

/// A host that a command reaches.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// How it is called, or its command.
    pub(crate) host: String,
    /// Its kernel and the D program that serve would run there.
    pub(crate) found: Result<(KernelInfo, ServedProgram), String>,
}

/// The gate to DTrace: a process that can open it may do everything (13.2 `dtrace.c:8282`).
pub(crate) const DEVICE: &str = "/dev/dtrace/dtrace";

impl PreflightFacts {
    /// Finds them out, and becomes the user on the way. On FreeBSD, dtrace(1) loads its modules if they are not loaded.
    pub(crate) fn gather(planned: &PlannedService<'_>) -> PreflightFacts {
        let PlannedService { config, this_host, web, .. } = *planned;
        let uid = nix::unistd::geteuid().as_raw();
        let is_freebsd = this_host && cfg!(target_os = "freebsd");
        let freebsd = is_freebsd.then(|| FreeBsd::gather(&planned.dtrace));
        let read = |file| Settings::read(file).map(drop).map_err(|e| e.to_string());
        let config = config.map(|file| (file.to_owned(), read(file)));
        // In the order of serve: from here on with the rights of that user.
        let user = planned.user.apply().map_err(|e| e.to_string());
        let listen = web.listen_addresses.iter().map(|address| {
            let alone = vec![address.clone()];
            let web = WebArgs { config_file: None, listen_addresses: alone, ..web.clone() };
            (address.to_string(), bind(&web))
        });
        let web_config = web.config_file.clone().map(|file| {
            let web = WebArgs { listen_addresses: vec![], ..web.clone() };
            (file, bind(&web))
        });
        PreflightFacts {
            os: std::env::consts::OS,
            kernel: sysctl::kernel_info(),
            uid,
            this_host,
            remotes: planned.remotes.iter().map(Reached::by).collect(),
            user,
            listen: listen.collect(),
            config,
            web_config,
            freebsd,
        }
    }
}

/// Reads the web configuration and listens as serve would, then stops again.
fn bind(web: &WebArgs) -> Result<(), String> {
    Server::bind(web).map(drop).map_err(|e| e.to_string())
}

impl FreeBsd {
    fn gather(options: &DtraceOptions) -> FreeBsd {
        let modules = Command::new("/sbin/kldstat")
            .args(["-q", "-m", "dtraceall"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // It loads the modules and makes the device, if it may.
        let dtrace = served_program(options);
        FreeBsd {
            jailed: sysctl::integer("security.jail.jailed").map(|jailed| jailed != 0),
            securelevel: sysctl::integer("kern.securelevel"),
            hidden_by: sysctl::hidden_by(),
            hides_jailed: sysctl::hides_jailed(),
            hooks: sysctl::integer("kern.features.kdtrace_hooks") == Some(1),
            modules: modules.is_ok_and(|status| status.success()),
            device: FileAccess::of(Path::new(DEVICE)),
            dtrace,
        }
    }
}

fn served_program(options: &DtraceOptions) -> Result<ServedProgram, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let scope = KeeperScope { trees: true, ..KeeperScope::default() };
    let (mut dtrace, _keeper) =
        DtraceWitness::by_keeper(&program, options, scope).map_err(|error| error.to_string())?;
    dtrace.choose(&[]).map_err(|error| error.to_string())?;
    Ok(ServedProgram::of(&dtrace))
}

impl ServedProgram {
    fn of(dtrace: &DtraceWitness) -> ServedProgram {
        ServedProgram {
            name: dtrace.program_name().to_owned(),
            no_causes: dtrace.no_causes().map(str::to_owned),
        }
    }
}

impl FileAccess {
    fn of(path: &Path) -> FileAccess {
        match File::open(path) {
            Ok(_) => FileAccess::Readable,
            Err(e) if e.kind() == ErrorKind::NotFound => FileAccess::Missing,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => FileAccess::Refused,
            Err(e) => FileAccess::Failed(e.to_string()),
        }
    }
}

impl Reached {
    /// Runs the command as serve would.
    fn by(config: &RemoteConfig) -> Reached {
        let reach = || {
            let mut remote = Remote::new(config.clone())?;
            let kernel = remote.reach()?;
            Ok((kernel, ServedProgram::of(remote.dtrace())))
        };
        let host = match config.host.as_str() {
            "" => config.command.join(" "),
            host => host.to_owned(),
        };
        Reached { host, found: reach().map_err(|error: LiveError| error.to_string()) }
    }
}
