//! The NOTE_TRACKERR reports of a process, and which birth each is about. The kernel sets one bit on the forker's knote: it
//! does not say which of its forks failed, nor how many did.

use std::collections::VecDeque;

use super::life::{Life, Note};
use crate::check::judge::UNORDERED_NS;
use crate::check::latest::keep_latest;
use crate::model::KernelTime;

/// A call that returned NOTE_TRACKERR. Calls are counted from 1.
#[derive(Clone, Copy, Debug)]
struct TrackerrReport {
    call: u64,
    at: KernelTime,
    /// The drain before it that did not bring the note.
    not_before: KernelTime,
    /// The last call up to this one whose mark is missing: it may have drained the queue, at a time that is not known.
    unmarked: u64,
}

/// Whether a NOTE_TRACKERR on the forker's knote covers a birth: it came at a time at which it may be about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum TrackerrCover {
    /// None does.
    #[default]
    No,
    /// One does.
    Yes,
    /// One may, but marks are missing.
    Unclear,
}

/// The latest NOTE_TRACKERR about one process. Hardly any process has one.
#[derive(Clone, Debug, Default)]
#[expect(clippy::box_collection, reason = "a life has one of these: eight bytes, not thirty-two")]
pub(crate) struct TrackerrReports(Option<Box<VecDeque<TrackerrReport>>>);

impl TrackerrReports {
    /// More than a reader gets between a fork and the drain that settles it.
    const KEPT: usize = 256;

    pub(crate) fn add(&mut self, call: u64, note: &Note, unmarked: u64) {
        let latest = self.0.get_or_insert_default();
        if latest.back().is_none_or(|last| last.call != call) {
            let (at, not_before) = (note.at, note.not_before);
            keep_latest(latest, Self::KEPT, TrackerrReport { call, at, not_before, unmarked });
        }
    }

    /// Whether one covers the birth of `child`, a child of this process. The kernel sets the bit before proc:::create fires
    /// (13.2 `kern_fork.c:734,741`), so a drain that began after that has delivered it.
    pub(crate) fn cover(&self, child: &Life) -> TrackerrCover {
        let (Some(latest), Some(created)) = (&self.0, child.created) else {
            return TrackerrCover::No;
        };
        let covers = |report: &&TrackerrReport| {
            report.at.plus(UNORDERED_NS) >= created
                && report.not_before <= created.plus(UNORDERED_NS)
        };
        // A call between the two whose mark is missing may have drained the queue.
        let is_sure = |report: &TrackerrReport| {
            let before = child.calls_at_create.min(report.call.saturating_sub(1));
            report.unmarked <= before
        };
        let covering = || latest.iter().filter(covers);
        if covering().any(is_sure) {
            TrackerrCover::Yes
        } else if covering().next().is_some() {
            TrackerrCover::Unclear
        } else {
            TrackerrCover::No
        }
    }
}
