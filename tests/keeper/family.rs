//! An exporter, its keeper and its dtrace as processes. The exporter is this test binary with a kernel without events, since
//! only FreeBSD has a kqueue; the keeper is the real one; dtrace(1) is a stand-in.

use std::fs::{self, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::exporter::PROGRAM;
use crate::common::scripted_kernel::{Scripted, quiet};
use crate::common::{children, eventually, file_of, stand_in_dtrace};
use clap::Parser;
use kqproc_exporter::cli::exit;
use kqproc_exporter::cli::feed::Feed;
use kqproc_exporter::cli::service::ServiceArgs;
use kqproc_exporter::cli::user::UserArgs;
use kqproc_exporter::input::Input;
use kqproc_exporter::source::dtrace::{self, RestartLimits};
use kqproc_exporter::source::kqueue::Notes;
use kqproc_exporter::source::live::{Live, LiveConfig};
use kqproc_exporter::source::target::{Root, Target};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

/// The variable with the folder of the exporter's dtrace and its pid file.
const FOLDER: &str = "KQPROC_KEEPER_TEST_FOLDER";
/// The variable with the user to serve as.
const USER: &str = "KQPROC_KEEPER_TEST_USER";

/// Set if it is to serve HTTP too.
pub const SERVES: &str = "KQPROC_KEEPER_TEST_SERVES";

/// The command line of a service.
#[derive(clap::Parser)]
struct Service {
    #[command(flatten)]
    args: ServiceArgs,
}

/// Not a test: the exporter that the tests below start. It prints a line for each input, until it is killed.
#[test]
#[ignore = "started by the others"]
fn exporter() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let limits = RestartLimits {
        silence: Duration::from_secs(3600),
        retry_first: Duration::from_millis(1),
        retry_most: Duration::from_millis(4),
        ..RestartLimits::default()
    };
    let root = Root::PidFile(folder.join("pid"));
    let config = LiveConfig {
        targets: vec![Target { name: "tree".to_owned(), root }],
        notes: Notes::default(),
        dtrace: dtrace::DtraceOptions {
            path: Some(folder.join("dtrace")),
            limits,
            ..dtrace::DtraceOptions::default()
        },
        own_program: Some(PROGRAM.into()),
        ..LiveConfig::default()
    };
    let live = Live::prepare(config, || Ok(Box::new(Scripted(quiet)))).expect("prepared");
    if std::env::var_os(SERVES).is_some() {
        let user = format!("--user={}", std::env::var(USER).expect("a user"));
        let service = Service::parse_from(["", "--web.listen-address=127.0.0.1:0", &user]).args;
        let error =
            service.serve(Feed::live(Some(live), Vec::new())).expect_err("it runs until it fails");
        println!("\nstatus {}: {error:#}", exit::status_of(&error));
        return;
    }
    UserArgs { user: std::env::var(USER).ok() }.apply().expect("another user");
    let ended = live.run(&mut |input: Input<'_>| {
        match input {
            Input::Batch(batch) => {
                for attached in batch.attached {
                    println!("\nattached {}", attached.pid);
                }
            }
            Input::Stdout { .. } => println!("\nstdout"),
            Input::DtraceUp { .. } => println!("\nup"),
            Input::DtraceDown { .. } => println!("\ndown"),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match ended {
        Ok(_) => println!("\nended well"),
        Err(error) => println!("\nended: {error}"),
    }
}

/// The exporter, its keeper and its dtrace, in a folder that only its owner may enter.
pub struct Family {
    exporter: Child,
    pub folder: TempDir,
    pub keeper: Pid,
}

impl Family {
    pub fn start(fault: &str, user: &str) -> Family {
        Family::start_with(fault, user, &[])
    }

    pub fn start_with(fault: &str, user: &str, more: &[(&str, &str)]) -> Family {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = Permissions::from_mode(0o700);
        fs::set_permissions(folder.path(), mode).expect("the mode");
        for name in ["bin", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let named = folder.path().join("bin").join(fault);
        stand_in_dtrace::link(&named);
        let start = format!("#!/bin/sh\nexec '{}' \"$@\"\n", named.display());
        let dtrace = folder.path().join("dtrace");
        fs::write(&dtrace, start).expect("written");
        fs::set_permissions(&dtrace, Permissions::from_mode(0o700)).expect("the mode");
        fs::write(folder.path().join("pid"), "12345\n").expect("written");
        let printed = fs::File::create(folder.path().join("printed")).expect("a file");
        let exporter = Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "family::exporter", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(USER, user)
            .envs(more.iter().copied())
            .env("TMPDIR", folder.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(printed)
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let of = Pid::from_raw(exporter.id() as i32);
        let is_keeper = |pid: &Pid| file_of(*pid, "cmdline").contains("keep-dtrace");
        let keeper = eventually("a keeper", || children(of).into_iter().find(is_keeper));
        Family { exporter, folder, keeper }
    }

    /// The folder in which the keeper puts the D programs.
    pub fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    pub fn exporter(&self) -> Pid {
        Pid::from_raw(self.exporter.id() as i32)
    }

    /// The dtrace that the keeper runs, once it has printed everything.
    pub fn dtrace(&self) -> Pid {
        let settled = |pid: &Pid| file_of(*pid, "cmdline").starts_with("sleep\0");
        eventually("dtrace", || children(self.keeper).into_iter().find(settled))
    }

    /// What the exporter has printed so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("printed")).expect("its output")
    }

    /// Waits until the exporter has printed this line.
    pub fn prints(&self, line: &str) {
        self.prints_often(line, 1);
    }

    /// How often it has printed this line.
    pub fn count(&self, line: &str) -> usize {
        self.printed().lines().filter(|printed| *printed == line).count()
    }

    /// Waits until it has printed this line so often.
    pub fn prints_often(&self, line: &str, count: usize) {
        eventually(line, || (self.count(line) >= count).then_some(()));
    }

    /// Waits for the end of the exporter; what it has printed.
    pub fn ends(&mut self) -> String {
        eventually("its end", || self.exporter.try_wait().expect("a child"));
        self.printed()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let _ = self.exporter.kill();
        let _ = self.exporter.wait();
    }
}

/// Whether a process has ended, reaped or not.
pub fn is_gone(pid: Pid) -> bool {
    let stat = file_of(pid, "stat");
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

pub fn own_user() -> String {
    geteuid().to_string()
}
