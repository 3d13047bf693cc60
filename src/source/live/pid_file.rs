//! The pid file of a tree: it names a process, now and whenever the one before is gone.

use std::path::{Path, PathBuf};

use crate::model::Pid;
use crate::source::keeper::Keeper;

/// A pid file, which the keeper reads for us.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    /// Its number among the keeper's.
    number: u16,
    /// The process that it named last, if that has ended or could not be watched.
    gone: Option<Pid>,
    /// The problem that was logged last.
    complaint: Option<String>,
}

impl PidFile {
    /// The file with this path, which is one of the keeper's.
    pub(super) fn new(path: &Path, pid_files: &[PathBuf]) -> PidFile {
        let number = pid_files.iter().zip(0..).find(|(known, _)| *known == path);
        let number = number.map_or(u16::MAX, |(_, number)| number);
        PidFile { path: path.to_owned(), number, gone: None, complaint: None }
    }

    /// The process that it names for tree `tree`, unless that is [gone](PidFile::lose). A problem is logged once.
    pub(super) fn read(&mut self, keeper: &Keeper, tree: &str) -> Option<Pid> {
        match keeper.read_pid_file(self.number) {
            Ok(pid) if Some(pid) == self.gone => None,
            Ok(pid) => Some(pid),
            Err(error) => {
                self.complain(tree, error.to_string());
                None
            }
        }
    }

    /// The process that it named is watched.
    pub(super) fn found(&mut self) {
        self.complaint = None;
    }

    /// The process that it named has ended, or cannot be watched. It is not tried again.
    pub(super) fn lose(&mut self, pid: Option<Pid>) {
        self.gone = pid;
    }

    /// Logs why the tree still waits, unless that was logged last.
    pub(super) fn complain(&mut self, tree: &str, why: String) {
        if self.complaint.as_ref() != Some(&why) {
            tracing::warn!("tree {tree:?} waits for its pid file {}: {why}", self.path.display());
            self.complaint = Some(why);
        }
    }
}
