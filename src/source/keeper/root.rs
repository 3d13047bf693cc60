//! The keeper's own side: a process that owns dtrace(1) and nothing else. It reads eight bytes at a time from its
//! exporter, runs the project's own D programs alone, and ends with what it has started once the exporter is gone. In
//! between it blocks in read(2), and for a dtrace that runs in waitid(2): it does not wake up by itself.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::UsageWho;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::getppid;

use super::NO_ROOM;
use super::cpu::CpuTimes;
use super::modules;
use super::process::{self, Script, Supervised};
use super::protocol::{Reply, Request, is_closed};
use crate::input::MOST_CONSUMERS;
use crate::model::Pid;
use crate::source::clock;
use crate::source::dtrace::programs::{Program, ProgramFile};
use crate::source::dtrace::{BufferSize, DTRACE, Switchrate};
use crate::source::target::read_pid_file;

/// All that a keeper may do. It is fixed at the start, before the exporter answers any request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeeperJob {
    /// dtrace(1), if it is not /usr/sbin/dtrace.
    pub dtrace: Option<PathBuf>,
    /// Its principal buffer on each CPU.
    pub bufsize: BufferSize,
    /// How often it reads its buffers.
    pub switchrate: Switchrate,
    /// Whether its program prints the marks of the exporter's reader of kqueue.
    pub marks: bool,
    /// How long a trial compilation may take.
    pub compile: Duration,
    /// The pid files that it may read for the exporter, which may not be allowed to.
    pub(crate) pid_files: Vec<PathBuf>,
    /// The consumers that were named by their pids.
    pub consumers: Vec<Pid>,
}

impl KeeperJob {
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let KeeperJob { dtrace, bufsize, switchrate, marks, compile, pid_files, consumers } = self;
        let flag = |flag: &str, value: &OsStr| {
            let mut text = OsString::from(flag);
            text.push("=");
            text.push(value);
            text
        };
        let compile = compile.as_millis().to_string();
        let mut arguments = vec![
            flag("--bufsize", bufsize.as_str().as_ref()),
            flag("--switchrate", switchrate.as_str().as_ref()),
            flag("--compile-ms", compile.as_ref()),
        ];
        arguments.extend(marks.then(|| "--marks".into()));
        arguments.extend(dtrace.iter().map(|path| flag("--dtrace", path.as_ref())));
        arguments.extend(pid_files.iter().map(|path| flag("--pid-file", path.as_ref())));
        let consumers = consumers.iter().map(|pid| flag("--consumer", pid.to_string().as_ref()));
        arguments.extend(consumers);
        arguments
    }
}

/// Keeps dtrace for the process at the other end of `exporter`, which started this one, until that end is closed.
///
/// # Errors
/// The exporter cannot be answered: it is gone.
pub fn run(exporter: UnixStream, job: KeeperJob) -> io::Result<()> {
    let mut keeper = KeeperProcess::new(exporter, job);
    keeper.outlive_signals()?;
    while let Some(request) = Request::receive(&keeper.exporter) {
        keeper.answer(request).send(&keeper.exporter)?;
    }
    Ok(())
}

struct KeeperProcess {
    exporter: UnixStream,
    job: KeeperJob,
    /// The one that was started last.
    dtrace: Option<Supervised>,
    /// The pids that may be watched as consumers: those of the job, and those that its pid files have named.
    known: BTreeSet<Pid>,
    /// The consumers of the next program.
    consumers: Vec<Pid>,
}

impl KeeperProcess {
    fn new(exporter: UnixStream, job: KeeperJob) -> KeeperProcess {
        // The exporter's own pid is for trial compilations.
        let own = Pid::new(getppid().as_raw() as u64);
        let known = job.consumers.iter().copied().chain(own).collect();
        KeeperProcess { exporter, job, dtrace: None, known, consumers: Vec::new() }
    }

    /// At a shutdown every process gets a signal to end: the exporter first ends its dtrace, and this process then follows.
    fn outlive_signals(&self) -> io::Result<()> {
        extern "C" fn nothing(_: i32) {}
        // A handler, for dtrace would inherit that a signal is ignored.
        let nothing =
            SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            // SAFETY: a handler that does nothing may run at any time.
            unsafe { sigaction(signal, &nothing)? };
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Compile(program) => self.compile(program).unwrap_or_else(|refusal| refusal),
            Request::Start(program) => self.start(program).unwrap_or_else(|refusal| refusal),
            Request::Terminate => self.signal(Signal::SIGTERM),
            Request::Kill => self.signal(Signal::SIGKILL),
            Request::ReadPidFile(number) => self.read_pid_file(number),
            Request::AddConsumer(pid) => self.add_consumer(pid),
            Request::CpuTimes => self.cpu_times(),
        }
    }

    fn cpu_times(&self) -> Reply {
        let keeper = clock::processor_time(UsageWho::RUSAGE_SELF);
        let times = keeper.and_then(|keeper| {
            let dtrace = process::children_cpu(self.dtrace.as_ref())?;
            Ok(CpuTimes { keeper, dtrace })
        });
        match times {
            Ok(times) => Reply { text: times.to_text(), ..Reply::done(0) },
            Err(errno) => Reply::failed(errno.desc()),
        }
    }

    /// A user who has taken over the exporter must not have any process watched: it was named at the start, or by a pid file.
    fn add_consumer(&mut self, pid: Pid) -> Reply {
        if self.known.contains(&pid) && self.consumers.len() < MOST_CONSUMERS {
            self.consumers.push(pid);
            return Reply::done(0);
        }
        self.consumers.clear();
        Reply::refused(format!(
            "process {pid} cannot be watched: neither a flag nor a pid file names it, or more than {MOST_CONSUMERS} are"
        ))
    }

    fn compile(&mut self, program: &Program) -> Result<Reply, Reply> {
        let loaded = modules::prepare(self.job.dtrace.is_some()).map_err(Reply::failed)?;
        let (mut command, file) = self.command(&["-e"], program)?;
        let wanted = || !is_closed(self.exporter.as_fd());
        let ran = process::run(&mut command, Script::File(file), self.job.compile, wanted);
        Ok(match ran {
            Ok(ended) if ended.status.success() => Reply { text: loaded, ..Reply::done(0) },
            Ok(ended) if ended.stderr.trim().is_empty() => {
                Reply::refused(format!("dtrace: {}", ended.status))
            }
            Ok(ended) => Reply::refused(ended.stderr.trim()),
            Err(e) if e.kind() == ErrorKind::TimedOut => Reply::refused(format!("dtrace -e: {e}")),
            Err(error) => Reply::failed(format!(
                "cannot run {}: {error}; give dtrace's path with --dtrace.path, or install it (package FreeBSD-dtrace, \
                 if the base system comes as packages)",
                self.path().display()
            )),
        })
    }

    fn start(&mut self, program: &Program) -> Result<Reply, Reply> {
        let (mut command, file) = self.command(&[], program)?;
        self.dtrace = None;
        let started = Supervised::start(&mut command, Script::File(file));
        let (dtrace, descriptors) = started.map_err(|error| match is_full(&error) {
            true => Reply::failed(format!("{error}; {NO_ROOM}")),
            false => Reply::failed(error),
        })?;
        let pid = self.dtrace.insert(dtrace).pid();
        Ok(Reply { descriptors, ..Reply::done(pid as i32) })
    }

    fn signal(&self, signal: Signal) -> Reply {
        if let Some(dtrace) = &self.dtrace {
            dtrace.signal(signal);
        }
        Reply::done(0)
    }

    /// Only the pid is given: the owner of the file may have made it a link to another.
    fn read_pid_file(&mut self, number: u16) -> Reply {
        match self.job.pid_files.get(usize::from(number)).map(|path| read_pid_file(path)) {
            Some(Ok(pid)) => {
                self.known.insert(pid);
                Reply::done(pid.get() as i32)
            }
            Some(Err(error)) => Reply::refused(error),
            None => Reply::refused("it was not named at the start"),
        }
    }

    fn path(&self) -> &Path {
        self.job.dtrace.as_deref().unwrap_or(Path::new(DTRACE))
    }

    /// dtrace with a program of ours. It is written anew each time: what lies in a folder for temporary files for
    /// days may be cleared away.
    fn command(
        &mut self,
        flags: &[&str],
        program: &Program,
    ) -> Result<(Command, ProgramFile), Reply> {
        let consumers = std::mem::take(&mut self.consumers);
        let KeeperJob { bufsize, switchrate, marks, .. } = &self.job;
        let text = program.tuned(bufsize, switchrate, *marks, &consumers);
        let file = ProgramFile::write(program.name, &text).map_err(|error| {
            let hint =
                if is_full(&error) { NO_ROOM } else { "set TMPDIR to a folder that is writable" };
            let folder = std::env::temp_dir();
            let folder = folder.display();
            Reply::failed(format!("cannot write the D programs to {folder}: {error}; {hint}"))
        })?;
        let mut command = Command::new(self.path());
        command.args(flags).arg("-s").arg(file.path());
        // $1 is the exporter. An argument that a program does not use is an error (libdtrace, dt_cc.c, D_MACRO_UNUSED).
        if text.contains("$1") {
            command.arg(getppid().to_string());
        }
        Ok((command, file))
    }
}

/// There are no descriptors left.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Outcome;
    use super::*;
    use crate::source::dtrace::{DtraceOptions, KeeperScope};

    #[test]
    fn only_who_was_named_is_watched_as_a_consumer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        std::fs::write(&path, "812\n").expect("written");
        let [named, by_file, other] = [46, 812, 813].map(|pid| Pid::new(pid).expect("a pid"));
        let scope = KeeperScope { trees: true, pid_files: vec![path], consumers: vec![named] };
        let job = DtraceOptions::default().job(scope);
        let (exporter, _ours) = UnixStream::pair().expect("a pair");
        let mut keeper = KeeperProcess::new(exporter, job);
        let mut ask = |request| keeper.answer(request).outcome;
        assert_eq!(ask(Request::AddConsumer(by_file)), Outcome::Refused);
        assert_eq!(ask(Request::ReadPidFile(0)), Outcome::Done);
        assert_eq!(ask(Request::AddConsumer(by_file)), Outcome::Done);
        assert_eq!(ask(Request::AddConsumer(named)), Outcome::Done);
        assert_eq!(ask(Request::AddConsumer(other)), Outcome::Refused);
        assert_eq!(keeper.consumers, [], "a program for some of them is not run");
    }

    #[test]
    fn only_missing_descriptors_are_a_matter_of_their_limit() {
        let is_full = |errno: Errno| is_full(&errno.into());
        assert!(is_full(Errno::EMFILE) && is_full(Errno::ENFILE));
        assert!(!is_full(Errno::EACCES) && !is_full(Errno::ENOSPC));
    }
}
