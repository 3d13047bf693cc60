//! Incidents as JSON: `/incidents` writes them, `explain` reads them, also those of an exporter of another version.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::event::TimelineEntry;
use super::{events_of, happened, judged_in_full, runbook, tree_name};
use crate::check::finding::{Clues, Delivered, DtraceEvidence, Finding};
use crate::check::stats::Stats;
use crate::model::{KernelTime, Pid, Witness, note};
use crate::report::paths::{KernelPath, path};
use crate::report::rfc3339;

/// A name of a closed set, or a sentence. Another release may send one that this one does not know.
pub(crate) type Text = Cow<'static, str>;

/// The incidents that were asked for, newest first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct IncidentList {
    /// Whose they are: this host's kernel (`live`), or another one's.
    pub origin: Text,
    /// Which recording, or which run of a simulation.
    pub detail: String,
    pub osrelease: String,
    /// Incidents of a flood that were not kept, since the start, also those that were not asked for.
    pub skipped: u64,
    /// Those that were asked for.
    pub incidents: Vec<IncidentDto>,
}

/// One fact that the witnesses did not agree on. Keys that are not known are ignored; those that explain nothing may be
/// missing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct IncidentDto {
    /// The number that it keeps.
    pub id: u64,
    /// When the fact happened; `null` if the source did not tell the wall clock.
    pub time: Option<String>,
    /// The same on DTrace's clock, in nanoseconds.
    #[serde(default)]
    pub at: KernelTime,
    pub tree: String,
    pub pid: Pid,
    /// The consumer's own process, if the tree is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Pid>,
    pub fact: Text,
    pub verdict: Text,
    #[serde(default)]
    pub dtrace: DtraceEvidence,
    #[serde(default)]
    pub kqueue: KqueueDto,
    #[serde(default)]
    pub clues: Clues,
    pub kernel_path: PathDto,
    #[serde(default)]
    pub runbook: String,
    /// Everything in the order of its time; empty if it was not asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineRow>,
}

/// The kevents about an incarnation.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct KqueueDto {
    pub child: Option<KeventDto>,
    pub exit: Option<KeventDto>,
    pub trackerr: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct KeventDto {
    /// Its notes by name.
    pub fflags: String,
    /// Its flags in hexadecimal.
    pub flags: String,
    pub data: i64,
    /// The kevent(2) call that returned it.
    pub batch: u64,
    pub at: KernelTime,
}

/// A [`KernelPath`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct PathDto {
    pub sentence: Text,
    pub function: Text,
    pub condition: Text,
    pub(crate) releases: Text,
    pub sure: Text,
}

/// One row in an incarnation's time line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct TimelineRow {
    /// When, on DTrace's clock, in nanoseconds.
    pub at: KernelTime,
    /// `dtrace` or `kqueue`; `gap` for what kept one of them from seeing; `null` for the verdict on the two.
    pub witness: Option<Text>,
    /// What was reported. Version 0.1.0 calls it `said`.
    #[serde(alias = "said")]
    pub text: String,
    /// How often it was reported in succession.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub times: u32,
    /// The verdict that it states, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Text>,
}

fn once() -> u32 {
    1
}

fn is_once(times: &u32) -> bool {
    *times == 1
}

impl TimelineRow {
    /// This entry of the time line of `pid`.
    pub(in crate::report) fn of(entry: &TimelineEntry, pid: Pid) -> TimelineRow {
        let TimelineEntry { at, event } = entry;
        let witness = event.witness().map_or("gap", Witness::as_str);
        TimelineRow {
            at: *at,
            witness: Some(witness.into()),
            text: event.text(pid),
            times: 1,
            verdict: None,
        }
    }

    /// The verdict on a fact, and what a consumer did not receive, in a tree of this name.
    pub(in crate::report) fn of_verdict(finding: &Finding, tree: &str) -> TimelineRow {
        TimelineRow {
            at: finding.decided,
            witness: None,
            text: judged_in_full(finding, tree),
            times: 1,
            verdict: Some(finding.verdict.as_str().into()),
        }
    }
}

impl IncidentDto {
    /// This finding without its time line.
    pub(crate) fn of(id: u64, finding: &Finding, stats: &Stats) -> IncidentDto {
        let at = happened(finding);
        IncidentDto {
            id,
            time: stats.wall_of(at).map(rfc3339::utc),
            at,
            tree: tree_name(finding, stats).to_owned(),
            pid: finding.pid,
            consumer: finding.consumer,
            fact: finding.fact.as_str().into(),
            verdict: finding.verdict.as_str().into(),
            dtrace: finding.dtrace,
            kqueue: KqueueDto {
                child: finding.kqueue.child.map(KeventDto::from),
                exit: finding.kqueue.exit.map(KeventDto::from),
                trackerr: finding.kqueue.trackerr,
            },
            clues: finding.clues,
            kernel_path: path(finding, stats.regime).into(),
            runbook: runbook(finding.verdict),
            timeline: vec![],
        }
    }

    /// This finding with its time line.
    pub(crate) fn in_full(id: u64, finding: &Finding, stats: &Stats) -> IncidentDto {
        let timeline = timeline(finding, tree_name(finding, stats));
        IncidentDto { timeline, ..IncidentDto::of(id, finding, stats) }
    }
}

impl From<Delivered> for KeventDto {
    fn from(Delivered { event, batch, at }: Delivered) -> KeventDto {
        KeventDto {
            fflags: note::names(event.fflags),
            flags: format!("{:#x}", event.flags),
            data: event.data,
            batch,
            at,
        }
    }
}

impl From<KernelPath> for PathDto {
    fn from(path: KernelPath) -> PathDto {
        let KernelPath { sentence, function, condition, releases, sure } = path;
        let [sentence, function, condition, releases, sure] =
            [sentence, function, condition, releases, sure.as_str()].map(Text::Borrowed);
        PathDto { sentence, function, condition, releases, sure }
    }
}

impl PathDto {
    /// What is known of it beside its sentence.
    pub(in crate::report) fn facts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let PathDto { sentence: _, function, condition, releases, sure } = self;
        let facts =
            [("where", function), ("when", condition), ("releases", releases), ("sure", sure)];
        let known = facts.into_iter().filter(|(_, value)| !value.is_empty());
        known.map(|(name, value)| (name, value.as_ref()))
    }
}

/// Everything that was reported about the finding's incarnation in a tree of this name, in order, and the verdict.
pub(crate) fn timeline(finding: &Finding, tree: &str) -> Vec<TimelineRow> {
    let rows = events_of(finding, tree).map(|entry| TimelineRow::of(&entry, finding.pid));
    let mut rows: Vec<TimelineRow> = rows.chain([TimelineRow::of_verdict(finding, tree)]).collect();
    rows.sort_by_key(|row| row.at);
    rows
}
