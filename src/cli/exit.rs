//! Exit statuses: sysexits(3), except where a command documents its own answers (stress: 0, 1 and 2).

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use crate::source::{directory, replay};

/// Defines a constant for each exit status, and [`ALL`] of them with what the manual page says they mean.
macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $meaning:literal;)+) => {
        $($(#[$doc])* pub(crate) const $name: u8 = $status;)+

        /// Every status but 0, and what it means.
        pub const ALL: &[(u8, &str)] = &[$(($name, $meaning)),+];
    };
}

statuses! {
    /// The command line is wrong.
    USAGE = 64, "usage";
    /// What was read is not what it should be.
    DATAERR = 65, "damaged data";
    /// A file to be read is not there.
    NOINPUT = 66, "no such input";
    /// Something that is needed is not there: no dtrace, no kqueue, an address that is taken.
    UNAVAILABLE = 69, "something that is needed is missing";
    /// Anything else.
    SOFTWARE = 70, "an error in the program";
    /// The system refused what it should be able to give.
    OSERR = 71, "the system refused";
    /// Reading or writing failed.
    IOERR = 74, "reading or writing failed";
    /// Another try may succeed.
    TEMPFAIL = 75, "try again";
    /// Root, or the right to open a file, is missing.
    NOPERM = 77, "no permission";
    /// The configuration is wrong.
    CONFIG = 78, "bad configuration";
}

/// An error that knows with which status the process should exit. It reads as the error within.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    error: anyhow::Error,
}

impl Failure {
    /// An error with which the process exits with `status`.
    pub(crate) fn new(status: u8, error: impl Into<anyhow::Error>) -> Failure {
        Failure { status, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Gives an error its exit status.
pub(crate) trait OrExit<T> {
    /// The value, or an error with which the process exits with `status`.
    ///
    /// # Errors
    /// The error within, as a [`Failure`].
    fn or_exit(self, status: u8) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, status: u8) -> anyhow::Result<T> {
        self.map_err(|error| Failure::new(status, error).into())
    }
}

/// The error and its causes, each once: many texts have their cause in them already.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The exit status for this error: its own if it has one, what the system's error means otherwise.
pub fn status_of(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.status;
    }
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        Some(ErrorKind::NotFound) => NOINPUT,
        Some(ErrorKind::PermissionDenied) => NOPERM,
        Some(ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => UNAVAILABLE,
        Some(ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => DATAERR,
        Some(_) => IOERR,
        None if error.chain().any(|cause| {
            cause.is::<replay::ReplayError>() || cause.is::<directory::DirectoryError>()
        }) =>
        {
            DATAERR
        }
        None => SOFTWARE,
    }
}

/// What a wrong command line, `--help` or `--version` has to say, and the status to exit with.
pub fn usage(error: &clap::Error) -> ExitCode {
    // There is no terminal left to report that it is gone.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_keeps_its_status_under_more_context() {
        let error = Err::<(), _>(anyhow!("no dtrace")).or_exit(UNAVAILABLE).context("cannot serve");
        let error = error.expect_err("an error");
        assert_eq!(status_of(&error), UNAVAILABLE);
        assert_eq!(error_text(&error), "cannot serve: no dtrace");
    }

    #[test]
    fn causes_are_printed_once() {
        let io = std::io::Error::from(ErrorKind::NotFound);
        let error =
            Err::<(), _>(io).context("cannot read x").or_exit(CONFIG).expect_err("an error");
        assert_eq!(error_text(&error), "cannot read x: entity not found");
        let path = Path::new("x");
        let source = std::io::Error::from(ErrorKind::NotFound);
        let error =
            anyhow::Error::from(replay::ReplayError::Open { path: path.to_owned(), source });
        assert_eq!(error_text(&error).matches("entity not found").count(), 1);
    }

    #[test]
    fn the_systems_errors_have_their_status() {
        for (kind, status) in [
            (ErrorKind::NotFound, NOINPUT),
            (ErrorKind::PermissionDenied, NOPERM),
            (ErrorKind::AddrInUse, UNAVAILABLE),
            (ErrorKind::InvalidData, DATAERR),
            (ErrorKind::StorageFull, IOERR),
        ] {
            let error = anyhow::Error::from(std::io::Error::from(kind)).context("context");
            assert_eq!(status_of(&error), status, "{kind}");
        }
        assert_eq!(status_of(&anyhow!("other")), SOFTWARE);
        let none =
            anyhow::Error::from(directory::DirectoryError::NotARun(Path::new("x").to_owned()));
        assert_eq!(status_of(&none.context("context")), DATAERR);
    }
}
