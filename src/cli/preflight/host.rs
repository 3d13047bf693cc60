//! Answers the questions of `Probe` on the real host: runs programs, opens files, binds the port.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::facts::{FileAccess, Probe, Ran, Reached, ServedProgram};
use crate::cli::config::Settings;
use crate::cli::user::{Identity, UserArgs};
use crate::http::Server;
use crate::http::web_args::WebArgs;
use crate::source::dtrace::{DtraceOptions, DtraceWitness, KeeperScope};
use crate::source::live::{self, Remote, RemoteConfig};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of a program's output is kept.
const ENOUGH: u64 = 1 << 20;

/// The host that we run on.
#[derive(Clone, Debug)]
pub(crate) struct LocalHost {
    /// As whom serve would serve.
    pub user: UserArgs,
    /// How it would run dtrace(1).
    pub dtrace: DtraceOptions,
    /// Which hosts it would watch over commands.
    pub remotes: Vec<RemoteConfig>,
}

impl Probe for LocalHost {
    fn os(&self) -> &str {
        std::env::consts::OS
    }

    fn uid(&self) -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    fn run(&self, program: &Path, args: &[&str]) -> Ran {
        run(Command::new(program).args(args), PATIENCE)
    }

    fn dtrace(&self) -> Result<ServedProgram, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let scope = KeeperScope { trees: true, ..KeeperScope::default() };
        let (mut dtrace, _keeper) = DtraceWitness::by_keeper(&program, &self.dtrace, scope)
            .map_err(|error| error.to_string())?;
        dtrace.choose(&[]).map_err(|error| error.to_string())?;
        Ok(found(&dtrace))
    }

    fn remotes(&self) -> Vec<Reached> {
        let reach = |config: &RemoteConfig| {
            let mut remote = Remote::new(config.clone())?;
            let kernel = remote.reach()?;
            Ok::<_, live::LiveError>((kernel, found(remote.dtrace())))
        };
        let reached = |config: &RemoteConfig| Reached {
            host: match config.host.as_str() {
                "" => config.command.join(" "),
                host => host.to_owned(),
            },
            found: reach(config).map_err(|error| error.to_string()),
        };
        self.remotes.iter().map(reached).collect()
    }

    fn open(&self, path: &Path) -> FileAccess {
        match File::open(path) {
            Ok(_) => FileAccess::Readable,
            Err(e) if e.kind() == ErrorKind::NotFound => FileAccess::Missing,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => FileAccess::Refused,
            Err(e) => FileAccess::Failed(e.to_string()),
        }
    }

    fn become_user(&self) -> Result<Identity, String> {
        self.user.apply().map_err(|e| e.to_string())
    }

    fn config(&self, path: &Path) -> Result<(), String> {
        Settings::read(path).map(drop).map_err(|e| e.to_string())
    }

    fn bind(&self, web: &WebArgs) -> Result<(), String> {
        Server::bind(web).map(drop).map_err(|e| e.to_string())
    }
}

fn found(dtrace: &DtraceWitness) -> ServedProgram {
    ServedProgram {
        program: dtrace.program_name().to_owned(),
        no_causes: dtrace.no_causes().map(str::to_owned),
    }
}

fn run(command: &mut Command, patience: Duration) -> Ran {
    let child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return Ran::NotFound };
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait(&mut child, patience);
    match status {
        Some(true) => Ran::Well(text_of(stdout)),
        Some(false) => {
            let stderr = text_of(stderr);
            let first = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
            Ran::Badly(first.trim().to_owned())
        }
        None => Ran::Hung,
    }
}

/// Whether the child ended well; `None` if it had to be killed.
fn wait(child: &mut Child, patience: Duration) -> Option<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => {
                // It may have ended in between, which is as good.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// Reads a pipe to its end on a thread of its own, so that a talkative program never waits for us.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = vec![];
        if let Some(mut pipe) = pipe {
            // What could be read is all that there is to show.
            let _ = pipe.by_ref().take(ENOUGH).read_to_end(&mut kept);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        kept
    })
}

fn text_of(reader: thread::JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> LocalHost {
        LocalHost {
            user: UserArgs::default(),
            dtrace: DtraceOptions::default(),
            remotes: Vec::new(),
        }
    }

    fn sh(script: &str) -> Ran {
        host().run(Path::new("sh"), &["-c", script])
    }

    #[test]
    fn a_program_ends_well_or_badly_or_is_not_there() {
        assert_eq!(sh("echo out; echo err >&2"), Ran::Well("out\n".to_owned()));
        assert_eq!(
            sh("echo; echo ' why' >&2; echo more >&2; exit 3"),
            Ran::Badly("why".to_owned())
        );
        assert_eq!(sh("exit 1"), Ran::Badly("no message".to_owned()));
        assert_eq!(host().run(Path::new("/nonexistent/prog"), &[]), Ran::NotFound);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let hung = run(Command::new("sleep").arg("600"), Duration::ZERO);
        assert_eq!(hung, Ran::Hung);
    }

    #[test]
    fn a_program_that_floods_costs_a_megabyte() {
        let Ran::Well(out) = sh("head -c 3000000 /dev/zero") else { panic!("head ended badly") };
        assert_eq!(out.len() as u64, ENOUGH);
    }
}
