//! The keeper's own side: a process that owns dtrace(1) and nothing else. It reads eight bytes at a time from its
//! exporter, knows three D programs, and ends with whatever it has started once the exporter is gone.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::getppid;

use super::NO_ROOM;
use super::modules;
use super::process::{self, Process};
use super::protocol::{Reply, Request, is_closed};
use crate::source::dtrace::DTRACE;
use crate::source::dtrace::programs::{ALL, CAUSES, Folder, Program};
use crate::source::target::read_pid_file;

/// All that a keeper may do. It is settled before the exporter hears from anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// dtrace(1), where it is not /usr/sbin/dtrace.
    pub dtrace: Option<PathBuf>,
    /// Its principal buffer on each CPU.
    pub bufsize: String,
    /// How often it reads its buffers.
    pub switchrate: String,
    /// How long a trial compilation may take.
    pub compile: Duration,
    /// The pid files that it may read for the exporter, which may not be allowed to.
    pub pid_files: Vec<PathBuf>,
}

impl Job {
    /// The flags of the hidden subcommand.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let Job { dtrace, bufsize, switchrate, compile, pid_files } = self;
        let flag = |flag: &str, value: &OsStr| {
            let mut text = OsString::from(flag);
            text.push("=");
            text.push(value);
            text
        };
        let compile = compile.as_millis().to_string();
        let mut arguments = vec![
            flag("--bufsize", bufsize.as_ref()),
            flag("--switchrate", switchrate.as_ref()),
            flag("--compile-ms", compile.as_ref()),
        ];
        arguments.extend(dtrace.iter().map(|path| flag("--dtrace", path.as_ref())));
        arguments.extend(pid_files.iter().map(|path| flag("--pid-file", path.as_ref())));
        arguments
    }
}

/// Keeps dtrace for whoever has the other end of `exporter`, the process that started this one, until that is closed.
///
/// # Errors
/// The exporter cannot be answered: it is gone.
pub fn run(exporter: UnixStream, job: Job) -> io::Result<()> {
    let mut keeper = Root { exporter, job, running: [const { None }; ALL.len()] };
    keeper.outlive_signals()?;
    while let Some(request) = Request::receive(&keeper.exporter) {
        keeper.answer(request).send(&keeper.exporter)?;
    }
    Ok(())
}

struct Root {
    exporter: UnixStream,
    job: Job,
    /// By the program's place.
    running: [Option<Process>; ALL.len()],
}

impl Root {
    /// At a shutdown everybody is told to end: the exporter first ends its dtrace, and this process then follows.
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
            Request::Compile(program) => self.compile(program),
            Request::Start(program, kqueue) => self.start(program, kqueue),
            Request::HasEnded(program) => {
                Reply::done(self.process(program).is_none_or(|p| p.has_ended()).into())
            }
            Request::Terminate(program) => self.signal(program, Signal::SIGTERM),
            Request::Kill(program) => self.signal(program, Signal::SIGKILL),
            Request::Bury(program) => self.bury(program),
            Request::ReadPidFile(number) => self.read_pid_file(number),
        }
    }

    fn compile(&self, program: &Program) -> Reply {
        let loaded = match modules::prepare(self.job.dtrace.is_some()) {
            Ok(loaded) => loaded,
            Err(why) => return Reply::failed(why),
        };
        // Any two numbers will do in place of the pid and the descriptor.
        let any = ["1".to_owned(), "2".to_owned()];
        let (mut command, folder) = match self.command(&["-e"], program, any) {
            Ok(prepared) => prepared,
            Err(reply) => return reply,
        };
        let wanted = || !is_closed(self.exporter.as_fd());
        match process::run(&mut command, folder, self.job.compile, wanted) {
            Ok((status, _)) if status.success() => Reply { text: loaded, ..Reply::done(0) },
            Ok((status, words)) if words.trim().is_empty() => {
                Reply::refused(format!("dtrace: {status}"))
            }
            Ok((_, words)) => Reply::refused(words.trim()),
            Err(e) if e.kind() == ErrorKind::TimedOut => Reply::refused(format!("dtrace -e: {e}")),
            Err(error) => Reply::failed(format!(
                "cannot run {}: {error}; give dtrace's path with --dtrace.path",
                self.path().display()
            )),
        }
    }

    fn start(&mut self, program: &'static Program, kqueue: i32) -> Reply {
        let reader = [getppid().to_string(), kqueue.to_string()];
        let (mut command, folder) = match self.command(&[], program, reader) {
            Ok(prepared) => prepared,
            Err(reply) => return reply,
        };
        let started = Process::start(&mut command, folder).and_then(|mut process| {
            let descriptors = process.take_pipes()?;
            Ok((process, descriptors))
        });
        match started {
            Ok((process, descriptors)) => {
                let pid = process.id();
                // Where another one runs still, which the exporter should have buried, it ends here.
                self.running[usize::from(program.place())] = Some(process);
                Reply { descriptors, ..Reply::done(pid as i32) }
            }
            Err(error) if is_full(&error) => Reply::failed(format!("{error}; {NO_ROOM}")),
            Err(error) => Reply::failed(error),
        }
    }

    fn signal(&self, program: &Program, signal: Signal) -> Reply {
        if let Some(process) = self.process(program) {
            process.signal(signal);
        }
        Reply::done(0)
    }

    fn bury(&mut self, program: &Program) -> Reply {
        match self.running[usize::from(program.place())].take().map(Process::bury) {
            Some(Ok(status)) => Reply::done(status.into_raw()),
            Some(Err(error)) => Reply::failed(error),
            None => Reply::refused("it was not started"),
        }
    }

    /// Only the pid is told: whoever owns the file may have made it a link to another.
    fn read_pid_file(&self, number: u16) -> Reply {
        match self.job.pid_files.get(usize::from(number)).map(|path| read_pid_file(path)) {
            Some(Ok(pid)) => Reply::done(pid.get() as i32),
            Some(Err(error)) => Reply::refused(error),
            None => Reply::refused("it was not named at the start"),
        }
    }

    fn process(&self, program: &Program) -> Option<&Process> {
        self.running[usize::from(program.place())].as_ref()
    }

    fn path(&self) -> &Path {
        self.job.dtrace.as_deref().unwrap_or(Path::new(DTRACE))
    }

    /// dtrace with a program of ours. It is written anew each time: what lies in a folder for temporary files for
    /// days may be cleared away.
    fn command(
        &self,
        flags: &[&str],
        program: &Program,
        reader: [String; 2],
    ) -> Result<(Command, Folder), Reply> {
        let Job { bufsize, switchrate, .. } = &self.job;
        let written = Folder::new().and_then(|mut folder| {
            let file = folder.write(program.name, &program.tuned(bufsize, switchrate))?;
            Ok((folder, file))
        });
        let (folder, file) = written.map_err(|error| {
            let hint =
                if is_full(&error) { NO_ROOM } else { "set TMPDIR to a folder that is writable" };
            let folder = std::env::temp_dir();
            Reply::failed(format!(
                "cannot write the D programs to {}: {error}; {hint}",
                folder.display()
            ))
        })?;
        let mut command = Command::new(self.path());
        command.args(flags).arg("-s").arg(file);
        // The cause probes are about every reader.
        if *program != CAUSES {
            command.args(reader);
        }
        Ok((command, folder))
    }
}

/// There are no descriptors left.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_descriptors_are_a_matter_of_their_limit() {
        let is_full = |errno: Errno| is_full(&errno.into());
        assert!(is_full(Errno::EMFILE) && is_full(Errno::ENFILE));
        assert!(!is_full(Errno::EACCES) && !is_full(Errno::ENOSPC));
    }
}
