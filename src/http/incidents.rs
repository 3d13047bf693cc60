//! Incidents: the latest facts that the witnesses did not agree on, with the evidence.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::bucket::Bucket;
use crate::check::finding::{Delivered, DtraceSaid, Finding, Observer};
use crate::check::stats::Stats;
use crate::model::{KernelTime, Pid, Verdict, note};
use crate::report::evidence::{self, Moment};
use crate::report::paths::{self, KernelPath};
use crate::report::wall;

/// How many are kept of each verdict: a flood of one does not wash a rare other one away.
const KEPT: usize = 256;
/// Of a flood of one verdict, a sample is kept: so many at once and then one each `STEADY`. That makes less than
/// [`KEPT`] a minute, so whoever sees an incident has a minute at least to open it.
const BURST: u32 = 64;
const STEADY: Duration = Duration::from_millis(350);

/// One finding, by the number that it keeps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Incident {
    /// From 1, in the order of the verdicts.
    pub id: u64,
    /// The evidence.
    pub finding: Finding,
}

/// The latest incidents. Clones are the same ring; whoever holds it holds it for a copy only.
#[derive(Clone, Default)]
pub struct Incidents(Arc<Mutex<Rings>>);

#[derive(Default)]
struct Rings {
    last_id: u64,
    by_verdict: [Ring; Verdict::COUNT],
}

/// The incidents of one verdict.
struct Ring {
    latest: VecDeque<Incident>,
    pace: Bucket,
    skipped: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Ring { latest: VecDeque::new(), pace: Bucket::new(STEADY, BURST), skipped: 0 }
    }
}

impl Observer for Incidents {
    fn finding(&mut self, finding: &Finding) {
        if finding.verdict == Verdict::Agreed {
            return;
        }
        let now = Instant::now();
        let mut rings = self.rings();
        let Rings { last_id, by_verdict } = &mut *rings;
        let ring = &mut by_verdict[finding.verdict.index()];
        if !ring.pace.take(now) {
            ring.skipped += 1;
            return;
        }
        *last_id += 1;
        if ring.latest.len() == KEPT {
            ring.latest.pop_front();
        }
        ring.latest.push_back(Incident { id: *last_id, finding: *finding });
    }
}

impl Incidents {
    /// The newest of each verdict that the filter lets through, newest first.
    pub(super) fn latest(
        &self,
        of_each: usize,
        filter: impl Fn(&Finding) -> bool,
    ) -> Vec<Incident> {
        let mut latest = Vec::new();
        for ring in &self.rings().by_verdict {
            let matching = ring.latest.iter().rev().filter(|incident| filter(&incident.finding));
            latest.extend(matching.take(of_each).copied());
        }
        latest.sort_unstable_by_key(|incident| std::cmp::Reverse(incident.id));
        latest
    }

    /// The incident with this number, while it is kept.
    pub(super) fn get(&self, id: u64) -> Option<Incident> {
        let rings = self.rings();
        let mut all = rings.by_verdict.iter().flat_map(|ring| &ring.latest);
        all.find(|incident| incident.id == id).copied()
    }

    /// How many were not kept, because too many of the same verdict came at once.
    pub(super) fn skipped(&self) -> u64 {
        self.rings().by_verdict.iter().map(|ring| ring.skipped).sum()
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An incident as it is told to programs.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    pub(super) id: u64,
    /// When the fact happened; `null` where the source did not tell the wall clock.
    pub(super) time: Option<String>,
    /// The same on DTrace's clock, in nanoseconds.
    at: KernelTime,
    pub(super) tree: &'a str,
    pub(super) pid: Pid,
    fact: &'static str,
    verdict: Verdict,
    dtrace: DtraceSaid,
    kqueue: ToldKqueue,
    kernel_path: KernelPath,
    runbook: String,
}

#[derive(Serialize)]
struct ToldKqueue {
    child: Option<ToldKevent>,
    exit: Option<ToldKevent>,
    trackerr: bool,
}

#[derive(Serialize)]
struct ToldKevent {
    fflags: String,
    flags: String,
    data: i64,
    batch: u64,
    at: KernelTime,
}

impl<'a> Told<'a> {
    pub(super) fn new(incident: &Incident, stats: &'a Stats) -> Told<'a> {
        let finding = &incident.finding;
        let at = evidence::happened(finding);
        let kevent = |delivered: Option<Delivered>| {
            delivered.map(|Delivered { event, batch, at }| ToldKevent {
                fflags: note::names(event.fflags),
                flags: format!("{:#x}", event.flags),
                data: event.data,
                batch,
                at,
            })
        };
        Told {
            id: incident.id,
            time: stats.wall_of(at).map(wall::rfc3339),
            at,
            tree: tree_name(finding, stats),
            pid: finding.pid,
            fact: evidence::fact(finding.fact),
            verdict: finding.verdict,
            dtrace: finding.dtrace,
            kqueue: ToldKqueue {
                child: kevent(finding.kqueue.child),
                exit: kevent(finding.kqueue.exit),
                trackerr: finding.kqueue.trackerr,
            },
            kernel_path: paths::path(finding, stats.regime),
            runbook: runbook(finding.verdict),
        }
    }
}

/// One incident with its time line, as JSON.
pub(super) fn one_json(incident: &Incident, stats: &Stats) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct WithTimeline<'a> {
        #[serde(flatten)]
        told: Told<'a>,
        timeline: Vec<Moment>,
    }
    let timeline = evidence::timeline(&incident.finding);
    serde_json::to_vec(&WithTimeline { told: Told::new(incident, stats), timeline })
}

/// Where the runbook speaks of this verdict.
pub(super) fn runbook(verdict: Verdict) -> String {
    format!("/runbook#{}", evidence::runbook_anchor(verdict))
}

/// The tree's name, empty in the moment before it is published.
pub(super) fn tree_name<'a>(finding: &Finding, stats: &'a Stats) -> &'a str {
    stats.trees.get(usize::from(finding.tree.0)).map_or("", |tree| &tree.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::KqueueSaid;
    use crate::model::{Fact, TreeId};

    fn finding(pid: u64, verdict: Verdict) -> Finding {
        Finding {
            tree: TreeId(0),
            pid: Pid::new(pid).unwrap(),
            fact: Fact::Birth,
            verdict,
            dtrace: DtraceSaid::default(),
            kqueue: KqueueSaid::default(),
            clues: Default::default(),
            decided: KernelTime(pid),
        }
    }

    #[test]
    fn a_flood_of_one_verdict_leaves_the_others_and_its_own_first_in_place() {
        let mut incidents = Incidents::default();
        incidents.finding(&finding(1, Verdict::LostSilent));
        incidents.finding(&finding(2, Verdict::Agreed));
        for pid in 0..10_000 {
            incidents.finding(&finding(pid, Verdict::Overwritten));
        }
        let all = incidents.latest(usize::MAX, |_| true);
        assert_eq!(all.len() as u64 + incidents.skipped(), 10_001);
        assert!((BURST as usize..=KEPT).contains(&(all.len() - 1)), "{}", all.len());
        assert!(all.is_sorted_by(|a, b| a.id > b.id));
        assert_eq!(all.last().unwrap().finding, finding(1, Verdict::LostSilent));
        assert_eq!(incidents.get(2).unwrap().finding, finding(0, Verdict::Overwritten));
        assert_eq!(incidents.latest(3, |_| true).len(), 4);
    }

    #[test]
    fn a_minute_of_flood_fits() {
        let steady = Duration::from_secs(60).div_duration_f64(STEADY) as usize;
        assert!(BURST as usize + steady <= KEPT);
    }
}
