//! What the facts of a host mean for `serve`, and what to do about them: pure functions.

use std::path::Path;

use super::facts::{DEVICE, FileAccess, FreeBsd, PreflightFacts, Reached, ServedProgram};
use super::{CheckStatus, Prerequisite};
use crate::cli::exit::{CONFIG, NOPERM, UNAVAILABLE};
use crate::cli::user::Identity;
use crate::report::kernel::regime_by_osreldate;
use crate::source::sysctl::{HIDING_JAILED, KernelInfo};

/// A binary of ours runs on 12.3 and later (the C library's ABI).
const OLDEST: u32 = 1_203_000;

/// From 15.0 on the sysctl kern.proc.kq lists knotes, which holds them in flux (measured on 15.1).
const LISTS_KNOTES: u32 = 1_500_000;

/// One line for each prerequisite, in the order in which they depend on each other.
pub(crate) fn judge(facts: &PreflightFacts) -> Vec<Prerequisite> {
    let mut lines = match &facts.freebsd {
        Some(freebsd) => on_freebsd(facts, freebsd),
        None if facts.this_host => elsewhere(facts),
        None => vec![],
    };
    lines.extend(facts.remotes.iter().map(remote));
    lines.push(user(&facts.user));
    if let (Some(freebsd), Ok(identity)) = (&facts.freebsd, &facts.user) {
        lines.push(sight(freebsd, identity));
    }
    lines.extend(facts.config.as_ref().map(|(path, result)| config(path, result)));
    lines.push(match &facts.web_config {
        Some((path, result)) => config(path, result),
        None => skip("config", "no --web.config.file: no TLS, no authentication"),
    });
    lines.extend(facts.listen.iter().map(|(name, result)| listen(name, result)));
    lines
}

fn line(
    what: &'static str,
    status: CheckStatus,
    found: impl Into<String>,
    remedy: impl Into<String>,
) -> Prerequisite {
    Prerequisite { what, status, found: found.into(), remedy: remedy.into(), exit: UNAVAILABLE }
}

fn ok(what: &'static str, found: impl Into<String>) -> Prerequisite {
    line(what, CheckStatus::Ok, found, "")
}

fn fail(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Prerequisite {
    line(what, CheckStatus::Fail, found, remedy)
}

fn skip(what: &'static str, found: impl Into<String>) -> Prerequisite {
    line(what, CheckStatus::Skip, found, "")
}

fn no_permission(line: Prerequisite) -> Prerequisite {
    Prerequisite { exit: NOPERM, ..line }
}

/// The lines that cannot be met on another system.
fn elsewhere(facts: &PreflightFacts) -> Vec<Prerequisite> {
    let (os, uname) = (facts.os, facts.kernel.uname.as_str());
    let never = |what, whose: &str| fail(what, format!("cannot be met on {os}: {whose}"), "");
    let name = if uname.is_empty() { os } else { uname };
    vec![
        fail(
            "kernel",
            format!("{name}: EVFILT_PROC with NOTE_TRACK is FreeBSD's"),
            "use FreeBSD 12.3 or later, or `serve --source replay` or `simulate --serve` here",
        ),
        never("hooks", "KDTRACE_HOOKS is an option of FreeBSD's kernel"),
        never("modules", "dtraceall is a module of FreeBSD's kernel"),
        never("device", DEVICE),
        never("program", "it reads FreeBSD's struct proc"),
    ]
}

fn on_freebsd(facts: &PreflightFacts, freebsd: &FreeBsd) -> Vec<Prerequisite> {
    let mut lines = vec![
        kernel(&facts.kernel),
        root(facts.uid, &freebsd.device),
        jail(freebsd.jailed),
        hooks(freebsd.hooks),
        securelevel(freebsd.securelevel, freebsd.modules),
        modules(freebsd, facts.uid),
        device(&freebsd.device),
        program(freebsd),
    ];
    lines.extend(freebsd.dtrace.as_ref().ok().map(causes));
    lines.extend((facts.kernel.osreldate >= LISTS_KNOTES).then(knotes));
    lines
}

/// Nothing that `serve` needs, but what must not be done beside it.
fn knotes() -> Prerequisite {
    line(
        "knotes",
        CheckStatus::Warn,
        "procstat kqueue (sysctl kern.proc.kq) makes this kernel lose events of the process that it looks at",
        "do not use it on a supervisor at work; `kqproc_exporter consumers` shows what one asks for without it",
    )
}

fn kernel(KernelInfo { uname, osreldate, .. }: &KernelInfo) -> Prerequisite {
    if *osreldate == 0 {
        return line("kernel", CheckStatus::Warn, format!("{uname}, kern.osreldate unknown"), "");
    }
    let regime = regime_by_osreldate(*osreldate);
    let found = format!("{uname}, osreldate {osreldate}: {regime} expected");
    if *osreldate < OLDEST {
        fail(
            "kernel",
            found,
            "use FreeBSD 12.3 or later, or replay a recording of this kernel elsewhere",
        )
    } else {
        ok("kernel", found)
    }
}

fn root(uid: u32, device: &FileAccess) -> Prerequisite {
    if uid == 0 {
        ok("root", "uid 0")
    } else if *device == FileAccess::Readable {
        ok("root", format!("uid {uid}, and {DEVICE} is open to it"))
    } else {
        no_permission(fail("root", format!("uid {uid}"), "run as root: dtrace needs it"))
    }
}

fn jail(jailed: Option<bool>) -> Prerequisite {
    match jailed {
        Some(true) => no_permission(fail(
            "jail",
            "inside a jail, which sees no DTrace",
            "run on the host: it sees the processes of all jails",
        )),
        Some(false) => ok("jail", "none"),
        None => skip("jail", "security.jail.jailed is not there"),
    }
}

fn hooks(hooks: bool) -> Prerequisite {
    if hooks {
        ok("hooks", "the kernel has KDTRACE_HOOKS")
    } else {
        let remedy =
            "run GENERIC, or build the kernel with `options KDTRACE_HOOKS` and `options DDB_CTF`";
        fail("hooks", "the kernel has no KDTRACE_HOOKS", remedy)
    }
}

const AT_BOOT: &str = "load dtraceall at boot: sysrc kld_list+=dtraceall";

fn securelevel(level: Option<i32>, loaded: bool) -> Prerequisite {
    match level {
        Some(level) if level > 0 && !loaded => no_permission(fail(
            "securelevel",
            format!("{level}: no module can be loaded any more"),
            AT_BOOT,
        )),
        Some(level) => ok("securelevel", level.to_string()),
        None => skip("securelevel", "kern.securelevel is not there"),
    }
}

fn modules(freebsd: &FreeBsd, uid: u32) -> Prerequisite {
    let may_load =
        uid == 0 && freebsd.jailed != Some(true) && freebsd.securelevel.unwrap_or(-1) <= 0;
    if freebsd.modules {
        ok("modules", "dtraceall is loaded")
    } else if !may_load {
        let found = "dtraceall is not loaded, and may not be loaded from here";
        no_permission(fail("modules", found, AT_BOOT))
    } else if freebsd.device == FileAccess::Missing {
        fail(
            "modules",
            "dtraceall is not loaded",
            "run `kldload dtraceall`: it says what is missing",
        )
    } else {
        line(
            "modules",
            CheckStatus::Warn,
            "dtraceall was not loaded; dtrace has loaded it",
            AT_BOOT,
        )
    }
}

fn device(device: &FileAccess) -> Prerequisite {
    match device {
        FileAccess::Readable => ok("device", format!("{DEVICE} can be read")),
        FileAccess::Missing => fail(
            "device",
            format!("there is no {DEVICE}"),
            "load dtraceall; in a jail, run on the host",
        ),
        FileAccess::Refused => {
            no_permission(fail("device", format!("{DEVICE} is not open to us"), "run as root"))
        }
        FileAccess::Failed(reason) => fail("device", format!("{DEVICE}: {reason}"), ""),
    }
}

/// dtrace(1) cannot answer without its device, and the device's own line says so.
fn unanswerable(device: &FileAccess) -> bool {
    *device != FileAccess::Readable
}

fn program(freebsd: &FreeBsd) -> Prerequisite {
    match &freebsd.dtrace {
        Ok(found) => ok("program", format!("{} compiles", found.name)),
        Err(_) if unanswerable(&freebsd.device) => {
            skip("program", "cannot be known without the device")
        }
        Err(error) => fail(
            "program",
            error,
            "if no program compiles, report this with the output of `uname -a` and `dtrace -l -P proc`",
        ),
    }
}

fn causes(found: &ServedProgram) -> Prerequisite {
    match &found.no_causes {
        Some(reason) => line(
            "causes",
            CheckStatus::Warn,
            format!("the cause probes do not compile: {reason}"),
            "serve works without: only the errno behind a NOTE_TRACKERR stays unknown",
        ),
        None if found.name.contains("causes") => ok("causes", "the cause probes compile"),
        None => skip("causes", "left out by the configuration"),
    }
}

fn remote(Reached { host, found }: &Reached) -> Prerequisite {
    match found {
        Ok((kernel, found)) => {
            let uname =
                if kernel.uname.is_empty() { "its release is not known" } else { &kernel.uname };
            let regime = regime_by_osreldate(kernel.osreldate);
            ok("remote", format!("{host}: {uname}, {regime} expected; {} compiles", found.name))
        }
        Err(error) => fail(
            "remote",
            format!("{host}: {error}"),
            "run the command by hand as the user that serves: with `-e -n BEGIN` behind it, it must print nothing and end with 0",
        ),
    }
}

fn user(user: &Result<Identity, String>) -> Prerequisite {
    match user {
        Ok(identity) if identity.is_root => line(
            "user",
            CheckStatus::Warn,
            "serves as root: a fault in the server is a fault of root's",
            "leave out --user, or name an unprivileged user",
        ),
        Ok(identity) => ok("user", format!("serves as {identity}")),
        Err(reason) => no_permission(fail("user", reason, "name a user with --user")),
    }
}

fn sight(freebsd: &FreeBsd, identity: &Identity) -> Prerequisite {
    match freebsd.hidden_by {
        _ if identity.is_root => ok("sight", "root sees all processes"),
        Some(sysctl) => no_permission(fail(
            "sight",
            format!("{sysctl} hides other users' processes from {identity}"),
            "change it, or serve with --user root",
        )),
        None if freebsd.hides_jailed => line(
            "sight",
            CheckStatus::Warn,
            format!("{} hides processes in jails from {identity}", HIDING_JAILED.0),
            "where a tree begins in a jail, change it, or serve with --user root",
        ),
        None => ok("sight", format!("{identity} sees other users' processes")),
    }
}

fn config(path: &Path, result: &Result<(), String>) -> Prerequisite {
    match result {
        Ok(()) => ok("config", format!("{} is valid", path.display())),
        Err(reason) => Prerequisite { exit: CONFIG, ..fail("config", reason, "correct the file") },
    }
}

fn listen(name: &str, result: &Result<(), String>) -> Prerequisite {
    match result {
        Ok(()) => ok("listen", format!("{name} is free")),
        Err(reason) => fail("listen", reason, "choose another --web.listen-address"),
    }
}
