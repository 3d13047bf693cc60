//! A command that does not begin before it is tracked: our own program is started in its place, waits at a pipe, and
//! becomes the command when a byte comes. Whatever the command does, it does tracked.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The hidden subcommand that waits: `run-behind-barrier FD -- COMMAND...`, see [`run`].
pub const SUBCOMMAND: &str = "run-behind-barrier";

/// A command behind its barrier.
#[derive(Debug)]
pub(crate) struct Held {
    /// It has the pid that the command will have.
    pub(crate) child: Child,
    barrier: PipeWriter,
}

impl Held {
    /// Starts `program` (ourselves) in the command's place.
    pub(crate) fn start(program: &Path, command: &[OsString]) -> io::Result<Held> {
        let (reader, barrier) = io::pipe()?;
        // The child inherits this end, and the other one is closed by its exec: it sees the end of file if we die.
        fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let child = Command::new(program)
            .arg(SUBCOMMAND)
            .arg(reader.as_raw_fd().to_string())
            .arg("--")
            .args(command)
            .spawn()?;
        Ok(Held { child, barrier })
    }

    /// Lets the command begin.
    pub(crate) fn release(mut self) -> io::Result<Child> {
        self.barrier.write_all(b"x")?;
        Ok(self.child)
    }

    /// Gives the command up: it ends without having begun.
    pub(crate) fn abandon(self) -> io::Result<()> {
        let Held { mut child, barrier } = self;
        drop(barrier);
        child.wait().map(drop)
    }
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
    // SAFETY: whoever started us passed this descriptor for us to own, and nobody else in this process knows it. It is
    // not one of the three standard ones, which Rust's library uses by itself.
    let mut pipe = unsafe { File::from_raw_fd(barrier) };
    if let Err(error) = pipe.read_exact(&mut [0]) {
        return error;
    }
    drop(pipe);
    Command::new(program).args(arguments).exec()
}
