//! What to watch: named trees, by pid, by pid file, or a command of ours.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::model::Pid;
use crate::plain_file;

/// A tree to watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The value of the `tree` label.
    pub name: String,
    /// Where its root comes from.
    pub root: Root,
}

/// Where the root of a tree comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Root {
    /// A process that runs.
    Pid(Pid),
    /// The process that a file names, now and whenever the one before is gone.
    PidFile(PathBuf),
    /// A command that we start.
    Command(Vec<OsString>),
}

impl FromStr for Target {
    type Err = String;

    /// Reads `NAME=pid:N` and `NAME=pidfile:PATH`.
    fn from_str(text: &str) -> Result<Target, String> {
        const FORM: &str = "give NAME=pid:NUMBER or NAME=pidfile:PATH";
        let (name, root) = text.split_once('=').ok_or(FORM)?;
        if !is_name(name) {
            return Err(format!("a tree needs a name that can be printed: {FORM}"));
        }
        let root = match root.split_once(':').ok_or(FORM)? {
            ("pid", number) => Root::Pid(pid(number)?),
            ("pidfile", "") => return Err("the path of the pid file is missing".to_owned()),
            ("pidfile", path) => Root::PidFile(PathBuf::from(path)),
            (kind, _) => return Err(format!("unknown kind of target {kind:?}: {FORM}")),
        };
        Ok(Target { name: name.to_owned(), root })
    }
}

/// Whether this can be the name of a tree: something that can be printed.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    /// It is not there (yet), cannot be read, or is a folder, a pipe, or the like.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It holds something else than a pid. The text is not shown: someone who may write the file's name could have root read
    /// another one aloud.
    #[error("it holds no pid")]
    Junk,
}

/// The pid in a pid file: the first line, as daemon(8) and rc(8) write it.
///
/// # Errors
/// [`PidFileError`]. At most 64 bytes of the file are read.
pub(crate) fn read_pid_file(path: &Path) -> Result<Pid, PidFileError> {
    let mut bytes = Vec::new();
    plain_file::open(path)?.take(64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    pid(text.lines().next().unwrap_or_default().trim()).map_err(|_| PidFileError::Junk)
}

/// A pid that can be a root: the kernel's own, 0, cannot.
///
/// # Errors
/// It is none.
pub(crate) fn pid(digits: &str) -> Result<Pid, String> {
    let pid = digits.parse().ok().and_then(root_pid);
    pid.ok_or_else(|| format!("{digits:?} is not a pid (1 to {})", Pid::MAX))
}

/// The pid of this number, if it can be a root.
pub(crate) fn root_pid(number: u64) -> Option<Pid> {
    Pid::new(number).filter(|pid| pid.get() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let target = |text: &str| text.parse::<Target>();
        let pid = Pid::new(812).expect("a pid");
        let expected = Target { name: "pg".to_owned(), root: Root::Pid(pid) };
        assert_eq!(target("pg=pid:812"), Ok(expected));
        let root = target("x=pidfile:/var/run/a=b:c.pid").expect("a pid file").root;
        assert_eq!(root, Root::PidFile(PathBuf::from("/var/run/a=b:c.pid")));
        for (text, why) in [
            ("", "give NAME"),
            ("812", "give NAME"),
            ("pg=812", "give NAME"),
            ("=pid:812", "needs a name"),
            ("a\nb=pid:812", "needs a name"),
            ("pg=pid:", "not a pid"),
            ("pg=pid:0", "not a pid"),
            ("pg=pid:-1", "not a pid"),
            ("pg=pid:100000", "not a pid"),
            ("pg=pidfile:", "path"),
            ("pg=service:x", "unknown kind"),
        ] {
            let error = target(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn pid_files_are_read_and_junk_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            read_pid_file(&path)
        };
        assert_eq!(read(b"812\n").ok(), Pid::new(812));
        assert_eq!(read(b"  812 \nsecond line").ok(), Pid::new(812));
        for junk in
            [&b""[..], b"\n812", b"pid", b"-1", b"0", b"1e3", b"99999999999999", &[0xff; 9999]]
        {
            assert!(matches!(read(junk), Err(PidFileError::Junk)), "{}", junk.escape_ascii());
        }
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert!(matches!(read_pid_file(&pipe), Err(PidFileError::Io(_))));
        let missing = read_pid_file(&folder.path().join("missing"));
        assert!(matches!(missing, Err(PidFileError::Io(e)) if e.kind() == io::ErrorKind::NotFound));
    }
}
