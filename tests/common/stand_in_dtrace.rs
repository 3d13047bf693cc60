//! A stand-in for dtrace(1): the script `tests/fixtures/stand-in-dtrace.sh`, whose behaviour depends on the name that it is started by.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::fixture;

/// Links the stand-in to `path`. The last part of `path` is the behaviour: the script lists them.
pub fn link(path: &Path) {
    symlink(fixture("stand-in-dtrace.sh"), path).expect("a link");
}

/// The stand-in with one behaviour, in a folder of its own, where it leaves notes about its runs.
pub struct StandInDtrace {
    folder: TempDir,
    pub path: PathBuf,
}

impl StandInDtrace {
    pub fn new(behaviour: &str) -> StandInDtrace {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(behaviour);
        link(&path);
        StandInDtrace { folder, path }
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
