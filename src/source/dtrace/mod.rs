//! The supervisor of dtrace(1): finds it, chooses the D program that this kernel understands, keeps it running, and
//! tells the pipeline about every outage.

mod drains;
mod platform;
mod policy;
mod process;
pub mod programs;

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;

pub use policy::Limits;

use self::drains::{Causes, Messages, Records};
use self::policy::{Action, Policy, View};
use self::process::{Drain, Process};
use self::programs::{CAUSES, Folder, MAIN, Program, is_option_value};
use super::clock;
use super::message::{Message, Stream, TextLane};
use super::stop::Stop;

/// Where FreeBSD has it.
pub const DTRACE: &str = "/usr/sbin/dtrace";

/// How many buffers of 64 KiB dtrace's stdout may be ahead of the pipeline.
pub(crate) const STDOUT_BUFFERS: usize = 256;
/// The same for the main program's stderr, and for the cause probes' records.
pub(crate) const SIDE_BUFFERS: usize = 64;

/// How dtrace(1) is to be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Its path; `None` for `/usr/sbin/dtrace`.
    pub path: Option<PathBuf>,
    /// Its principal buffer on each CPU, such as `8m`. It halves it by itself where memory is short.
    pub bufsize: String,
    /// How often it reads its buffers, such as `10hz`.
    pub switchrate: String,
    /// Whether to run the cause probes, where they compile.
    pub causes: bool,
    /// How long a trial compilation may take.
    pub compile: Duration,
    /// How patient to be with it.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            path: None,
            bufsize: "8m".to_owned(),
            switchrate: "10hz".to_owned(),
            causes: true,
            compile: Duration::from_secs(120),
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// The switchrate as a period in nanoseconds; `None` where it is no rate.
    pub fn switch_ns(&self) -> Option<u64> {
        period_ns(&self.switchrate)
    }
}

/// Why dtrace(1) cannot be a witness.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, or it cannot be run.
    #[error("cannot run {path}: {source}; give dtrace's path with --dtrace.path")]
    Missing {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's side is missing or closed.
    #[error("{0}")]
    Device(String),
    /// An option that dtrace would not understand.
    #[error("{option} {value:?}: {what}")]
    Option {
        /// The flag.
        option: &'static str,
        /// What was given.
        value: String,
        /// What to give instead.
        what: &'static str,
    },
    /// None of the main programs compiles.
    #[error("no D program compiles on this kernel, so there is no truth to compare with:\n{0}")]
    Compile(String),
    /// The D programs cannot be written for dtrace to read.
    #[error(
        "cannot write the D programs to {folder}: {source}; set TMPDIR to a folder that is writable"
    )]
    Folder {
        /// The folder for temporary files.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A dtrace(1) that was found, and the D programs that compiled with it.
#[derive(Debug)]
pub struct Dtrace {
    path: PathBuf,
    limits: Limits,
    folder: Folder,
    main: Script,
    causes: Option<Script>,
}

/// A D program that compiles.
#[derive(Clone, Debug)]
struct Script {
    name: &'static str,
    text: String,
    file: PathBuf,
}

impl Dtrace {
    /// Finds dtrace(1), loads its modules where they are missing, and chooses the D programs by trial compilation.
    ///
    /// # Errors
    /// [`Error`], worded for the person who runs the exporter.
    pub fn find(options: &Options) -> Result<Dtrace, Error> {
        check(options)?;
        let path = options.path.clone().unwrap_or_else(|| PathBuf::from(DTRACE));
        platform::prepare(path != Path::new(DTRACE))?;
        let folder = Folder::new().map_err(no_folder)?;
        let compiler = Compiler { path: &path, options, folder: &folder };
        let main = compiler.choose()?;
        let causes = if options.causes { compiler.causes()? } else { None };
        Ok(Dtrace { path, limits: options.limits, folder, main, causes })
    }

    /// The name of the main program that compiled.
    pub fn program(&self) -> &str {
        self.main.name
    }

    /// Its text as dtrace(1) gets it.
    pub fn program_text(&self) -> &str {
        &self.main.text
    }

    /// Whether the cause probes compiled.
    pub fn has_causes(&self) -> bool {
        self.causes.is_some()
    }

    /// Starts it, and keeps it running until `stop`. Marks are made of the calls of this process on `kqueue`.
    ///
    /// # Errors
    /// [`Error::Thread`]. That dtrace itself cannot be started is an outage, not an error.
    pub(crate) fn supervise(
        self,
        kqueue: RawFd,
        to: &SyncSender<Message>,
        stop: &Stop,
    ) -> Result<Supervised, Error> {
        let begun = Arc::new(AtomicBool::new(false));
        let reader = [std::process::id().to_string(), kqueue.to_string()];
        let main = Supervisor {
            command: Box::new(script_command(&self.path, &self.main, &reader)),
            limits: self.limits,
            role: Role::Main { to: to.clone(), begun: Arc::clone(&begun) },
            stop: stop.clone(),
        };
        let mut threads = vec![main.spawn("dtrace")?];
        if let Some(script) = &self.causes {
            let causes = Supervisor {
                command: Box::new(script_command(&self.path, script, &[])),
                limits: self.limits,
                role: Role::Causes { to: to.clone() },
                stop: stop.clone(),
            };
            match causes.spawn("dtrace-causes") {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::warn!("going on without the cause probes: {error}"),
            }
        }
        Ok(Supervised { begun, threads, _folder: self.folder })
    }
}

/// dtrace(1), running under supervision.
#[derive(Debug)]
pub(crate) struct Supervised {
    /// Set with its first record.
    pub(crate) begun: Arc<AtomicBool>,
    /// They end after `stop`.
    pub(crate) threads: Vec<JoinHandle<()>>,
    _folder: Folder,
}

fn no_folder(source: io::Error) -> Error {
    Error::Folder { folder: std::env::temp_dir(), source }
}

/// A size as dtrace takes it, such as `8m`.
///
/// # Errors
/// It is none.
pub fn size(text: &str) -> Result<String, &'static str> {
    const SIZE: &str = "give a size for dtrace, such as 8m";
    is_option_value(text, &["", "k", "m", "g"]).then(|| text.to_owned()).ok_or(SIZE)
}

/// A rate or a period as dtrace takes it, such as `10hz` or `100ms`.
///
/// # Errors
/// It is none.
pub fn rate(text: &str) -> Result<String, &'static str> {
    const RATE: &str = "give a rate for dtrace, such as 10hz";
    period_ns(text).map(|_| text.to_owned()).ok_or(RATE)
}

/// What a rate is as a period (`lib/libdtrace/common/dt_options.c`, `dt_opt_rate`).
fn period_ns(rate: &str) -> Option<u64> {
    if !is_option_value(rate, &["hz", "ms", "us", "ns", "s", "sec", "msec"]) {
        return None;
    }
    let unit = rate.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = rate.strip_suffix(unit)?.parse().ok()?;
    Some(match unit.to_ascii_lowercase().as_str() {
        "hz" => 1_000_000_000 / number,
        "ns" => number,
        "us" => number * 1000,
        "ms" | "msec" => number * 1_000_000,
        _ => number * 1_000_000_000,
    })
}

fn check(options: &Options) -> Result<(), Error> {
    let bad = |option, value: &str, what| Error::Option { option, value: value.to_owned(), what };
    let Options { bufsize, switchrate, .. } = options;
    size(bufsize).map_err(|what| bad("--dtrace.bufsize", bufsize, what))?;
    rate(switchrate).map_err(|what| bad("--dtrace.switchrate", switchrate, what))?;
    Ok(())
}

fn script_command(path: &Path, script: &Script, arguments: &[String]) -> Command {
    let mut command = Command::new(path);
    command.arg("-s").arg(&script.file).args(arguments);
    command
}

/// Trial compilations.
struct Compiler<'a> {
    path: &'a Path,
    options: &'a Options,
    folder: &'a Folder,
}

impl Compiler<'_> {
    /// The first of the main programs that compiles.
    fn choose(&self) -> Result<Script, Error> {
        let mut failures = String::new();
        for program in &MAIN {
            // Any two numbers will do in place of the pid and the descriptor.
            match self.compile(program, &["1", "2"])? {
                Ok(script) => {
                    tracing::info!("D program {} compiles", program.name);
                    return Ok(script);
                }
                Err(why) => failures.push_str(&format!("{}: {why}\n", program.name)),
            }
        }
        Err(Error::Compile(failures.trim_end().to_owned()))
    }

    fn causes(&self) -> Result<Option<Script>, Error> {
        Ok(match self.compile(&CAUSES, &[])? {
            Ok(script) => Some(script),
            Err(why) => {
                tracing::warn!(
                    "going on without the cause probes, which do not compile on this kernel: {why}"
                );
                None
            }
        })
    }

    /// The program as a file that dtrace compiles, or what dtrace says about it.
    fn compile(&self, program: &Program, args: &[&str]) -> Result<Result<Script, String>, Error> {
        let Options { bufsize, switchrate, .. } = self.options;
        // The cause probes print next to nothing: they keep their own small buffers.
        let text = match program == &CAUSES {
            true => program.with_options(&[("switchrate", switchrate)]),
            false => program.with_options(&[("bufsize", bufsize), ("switchrate", switchrate)]),
        };
        let file = self.folder.write(program.name, &text).map_err(no_folder)?;
        let mut command = Command::new(self.path);
        command.arg("-e").arg("-s").arg(&file).args(args);
        match process::run(&mut command, &self.options.limits, self.options.compile) {
            Ok((status, _)) if status.success() => {
                Ok(Ok(Script { name: program.name, text, file }))
            }
            Ok((status, words)) if words.trim().is_empty() => Ok(Err(format!("dtrace: {status}"))),
            Ok((_, words)) => Ok(Err(words.trim().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Ok(Err(format!("dtrace -e: {e}"))),
            Err(source) => Err(Error::Missing { path: self.path.to_owned(), source }),
        }
    }
}

/// Which of the two processes, and where its words go.
enum Role {
    Main { to: SyncSender<Message>, begun: Arc<AtomicBool> },
    Causes { to: SyncSender<Message> },
}

impl Role {
    fn name(&self) -> &'static str {
        match self {
            Role::Main { .. } => "dtrace",
            Role::Causes { .. } => "dtrace (cause probes)",
        }
    }

    fn drains(&self) -> (Box<dyn Drain>, Box<dyn Drain>) {
        let name = self.name();
        match self {
            Role::Main { to, begun } => {
                let stdout = TextLane::new(Stream::Stdout, STDOUT_BUFFERS, to.clone());
                let stderr = TextLane::new(Stream::Stderr, SIDE_BUFFERS, to.clone());
                (
                    Box::new(Records::new(stdout, Arc::clone(begun))),
                    Box::new(Messages::new(name, Some(stderr))),
                )
            }
            Role::Causes { to } => {
                let stdout = TextLane::new(Stream::Stdout, SIDE_BUFFERS, to.clone());
                (Box::new(Causes::new(stdout)), Box::new(Messages::new(name, None)))
            }
        }
    }

    /// The main program was started, or is gone. A full channel is waited for: this must not be lost, and nobody
    /// waits for the supervisor.
    fn say(&self, message: Message) {
        if let Role::Main { to, .. } = self {
            // It fails when the pipeline is gone, and then nobody wants to know.
            let _ = to.send(message);
        }
    }
}

struct Supervisor {
    command: Box<Command>,
    limits: Limits,
    role: Role,
    stop: Stop,
}

impl Supervisor {
    fn spawn(mut self, thread: &str) -> Result<JoinHandle<()>, Error> {
        Builder::new().name(thread.to_owned()).spawn(move || self.run()).map_err(Error::Thread)
    }

    fn run(&mut self) {
        let mut policy = Policy::new(self.limits);
        let mut process: Option<Process> = None;
        loop {
            let stops = self.stop.requests();
            let view = View {
                now: Duration::from_nanos(clock::now().0),
                exited: process.as_ref().is_some_and(Process::has_ended),
                heard: process.as_ref().and_then(|p| Some(Duration::from_nanos(p.heard()?.0))),
                stops,
            };
            match policy.next(&view) {
                Action::Wait(time) => self.stop.wait(stops, time),
                Action::Start => {
                    process = self.start();
                    if process.is_none() {
                        policy.failed(view.now);
                    }
                }
                Action::Terminate(silent) => {
                    if let Some(silent) = silent {
                        let name = self.role.name();
                        tracing::warn!("{name} has said nothing for {silent:.1?}: restarting it");
                    }
                    signal(process.as_ref(), Signal::SIGTERM);
                }
                Action::Kill => signal(process.as_ref(), Signal::SIGKILL),
                Action::Bury => {
                    if let Some(process) = process.take() {
                        self.bury(process, &policy, &view);
                    }
                }
                Action::Over => return,
            }
        }
    }

    fn start(&mut self) -> Option<Process> {
        let (stdout, stderr) = self.role.drains();
        // Said before its first word can be read. Where it does not start, the outage is said right after.
        self.role.say(Message::DtraceUp { at: clock::now() });
        match Process::start(&mut self.command, stdout, stderr) {
            Ok(process) => {
                tracing::info!("{} started, pid {}", self.role.name(), process.id());
                Some(process)
            }
            Err(error) => {
                tracing::error!("cannot start {}: {error}", self.role.name());
                self.role.say(Message::DtraceDown { at: clock::now() });
                None
            }
        }
    }

    fn bury(&self, process: Process, policy: &Policy, view: &View) {
        let name = self.role.name();
        let ended = process.bury();
        self.role.say(Message::DtraceDown { at: clock::now() });
        let ended = match ended {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        match policy.retry_at() {
            Some(at) if view.stops == 0 => {
                let wait = at.saturating_sub(view.now);
                tracing::warn!("{name} ended ({ended}); starting it again in {wait:.1?}");
            }
            _ => tracing::info!("{name} ended ({ended})"),
        }
    }
}

/// Only while it has not been buried.
fn signal(process: Option<&Process>, signal: Signal) {
    if let Some(process) = process {
        process.signal(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_period() {
        for (rate, ns) in [
            ("10hz", Some(100_000_000)),
            ("2Hz", Some(500_000_000)),
            ("50ms", Some(50_000_000)),
            ("1sec", Some(1_000_000_000)),
            ("7us", Some(7000)),
            ("10", None),
            ("0hz", None),
        ] {
            assert_eq!(period_ns(rate), ns, "{rate}");
        }
    }
}
