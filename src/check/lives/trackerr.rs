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

/// Whether NOTE_TRACKERR on the forker's knote is about a birth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Reported {
    /// None is.
    #[default]
    No,
    /// The note that this call returned is about it.
    By(u64),
    /// A note may be about it, but marks are missing, or it may be about another one.
    Unclear,
}

/// The latest NOTE_TRACKERR about one process. Hardly any process has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Option<Box<Latest>>);

#[derive(Clone, Debug, Default)]
struct Latest {
    latest: VecDeque<TrackerrReport>,
    /// The last call whose note has explained a loss.
    explained: u64,
}

impl Reports {
    pub(crate) fn add(&mut self, call: u64, note: &Note, unmarked: u64) {
        self.0.get_or_insert_default().add(call, note, unmarked);
    }

    /// What they say of the birth of `child`.
    pub(crate) fn about(&self, child: &Life) -> Reported {
        self.0.as_ref().map_or(Reported::No, |latest| latest.about(child))
    }

    /// This has explained a loss.
    pub(crate) fn explain(&mut self, reported: Reported) {
        if let (Some(latest), Reported::By(call)) = (&mut self.0, reported) {
            latest.explained = latest.explained.max(call);
        }
    }
}

impl Latest {
    /// More than a reader gets between the fork and the drain that settles it, unless marks are missing.
    const KEPT: usize = 64;

    fn add(&mut self, call: u64, note: &Note, unmarked: u64) {
        if self.latest.back().is_some_and(|last| last.call == call) {
            return;
        }
        let (at, not_before) = (note.at, note.not_before);
        keep_latest(
            &mut self.latest,
            Self::KEPT,
            TrackerrReport { call, at, not_before, unmarked },
        );
    }

    fn about(&self, child: &Life) -> Reported {
        match child.child {
            Some(note) => self.about_announced(child, &note),
            None => self.about_missed(child),
        }
    }

    /// The knote for its exit may have failed right after the one that announced it was queued: the note came after the
    /// create, or since NOTE_CHILD; or with the call before that, if the forker's knote was just being read.
    fn about_announced(&self, child: &Life, note: &Note) -> Reported {
        let first = child.calls.announced.min(child.calls.created + 1);
        // With many copies of the forker's knotes the failure may be long after the first NOTE_CHILD.
        let last = child.created.unwrap_or_default().max(note.at);
        let since = |report: &&TrackerrReport| report.call >= first && report.not_before <= last;
        let just_before = |report: &&TrackerrReport| report.call + 1 == first;
        let report = self.latest.iter().find(since);
        match report.or_else(|| self.latest.iter().find(just_before)) {
            None => Reported::No,
            Some(report) if report.unmarked >= first => Reported::Unclear,
            Some(report) => Reported::By(report.call),
        }
    }

    /// A note speaks of it that came after the create; or before it, because the forker was held up between knote_fork
    /// and the probe, but after the forker's previous fork, if it has explained no other loss. One bit may hide many
    /// failures, and several threads may fork at once: an older note, or one that has explained a loss, may mean this one.
    fn about_missed(&self, child: &Life) -> Reported {
        let created = child.created.unwrap_or_default();
        let before = |report: &&TrackerrReport| report.call <= child.calls.created;
        let held_up = |report: &&TrackerrReport| {
            before(report)
                && report.call > child.calls.forked_before
                && report.call > self.explained
        };
        let later = |report: &&TrackerrReport| {
            !before(report) && report.not_before <= created.plus(UNORDERED_NS)
        };
        let perhaps = |report: &&TrackerrReport| {
            before(report)
                && (report.call > child.calls.forked_before
                    || created.since(report.at) <= UNORDERED_NS)
        };
        let report = self.latest.iter().find(held_up).or_else(|| self.latest.iter().find(later));
        match report {
            Some(report) if report.unmarked > child.calls.created.min(report.call - 1) => {
                Reported::Unclear
            }
            // A drain that began about when it was created did not bring the note.
            Some(report) if report.not_before > created => Reported::Unclear,
            Some(report) => Reported::By(report.call),
            None if self.latest.iter().any(|r| perhaps(&r)) => Reported::Unclear,
            None => Reported::No,
        }
    }
}
