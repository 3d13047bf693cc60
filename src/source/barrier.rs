//! A command that does not begin before it is tracked: our own program is started in its place, waits at a pipe, and
//! becomes the command when a byte comes. The command is tracked from its first system call on.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The hidden subcommand that waits: `run-behind-barrier FD -- COMMAND...`, see [`run`].
pub(crate) const SUBCOMMAND: &str = "run-behind-barrier";

/// How many bytes of a command's stderr are kept, from its end.
const STDERR_TAIL: u64 = 4096;

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandEnd {
    /// Its wait(2) status.
    pub status: ExitStatus,
    /// The last 4 KiB of its stderr, if that was kept.
    pub stderr: String,
}

/// The process of a command, and the unnamed file that keeps its stderr.
#[derive(Debug)]
pub(crate) struct CommandProcess {
    child: Child,
    stderr: Option<File>,
}

impl CommandProcess {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait(&mut self) -> io::Result<CommandEnd> {
        let status = self.child.wait()?;
        let stderr = self.stderr.as_mut().map_or(Ok(String::new()), tail)?;
        Ok(CommandEnd { status, stderr })
    }
}

fn tail(file: &mut File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(STDERR_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(STDERR_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A command that waits behind its barrier.
#[derive(Debug)]
pub(crate) struct GatedCommand {
    /// It has the pid that the command will have.
    pub(crate) process: CommandProcess,
    barrier: PipeWriter,
}

impl GatedCommand {
    /// Starts `program` (this one) in the command's place. Its stderr is this process's, or kept in a file.
    pub(crate) fn start(
        program: &Path,
        command: &[OsString],
        keep_stderr: bool,
    ) -> io::Result<GatedCommand> {
        let (reader, barrier) = io::pipe()?;
        // The child inherits this end, and the other one is closed by its exec: it sees the end of file if we die.
        fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let stderr = if keep_stderr { Some(unnamed_file()?) } else { None };
        let mut behind = Command::new(program);
        behind.arg(SUBCOMMAND).arg(reader.as_raw_fd().to_string()).arg("--").args(command);
        if let Some(file) = &stderr {
            behind.stderr(Stdio::from(file.try_clone()?));
        }
        let child = behind.spawn()?;
        Ok(GatedCommand { process: CommandProcess { child, stderr }, barrier })
    }

    /// Lets the command begin.
    pub(crate) fn release(mut self) -> io::Result<CommandProcess> {
        self.barrier.write_all(b"x")?;
        Ok(self.process)
    }

    /// Gives the command up: it ends without having begun.
    pub(crate) fn abandon(self) -> io::Result<()> {
        let GatedCommand { mut process, barrier } = self;
        drop(barrier);
        process.child.wait().map(drop)
    }
}

/// A file in the folder for temporary files that has no name any more.
fn unnamed_file() -> io::Result<File> {
    let (file, path) = nix::unistd::mkstemp(&std::env::temp_dir().join("kqproc_exporter.XXXXXX"))?;
    std::fs::remove_file(path)?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(File::from(file))
}

/// The other side: waits for a byte from `barrier` and becomes the command. Only returns if it must not or cannot.
///
/// # Errors
/// Why it did not become the command.
pub fn run(barrier: RawFd, command: &[OsString]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no command was given");
    };
    if barrier < 3 {
        return io::Error::new(io::ErrorKind::InvalidInput, "not a barrier's descriptor");
    }
    // SAFETY: our parent passed this descriptor for us to own, and nothing else in this process uses it. It is
    // not one of the three standard ones, which Rust's library uses by itself.
    let mut pipe = unsafe { File::from_raw_fd(barrier) };
    if let Err(error) = pipe.read_exact(&mut [0]) {
        return error;
    }
    drop(pipe);
    Command::new(program).args(arguments).exec()
}
