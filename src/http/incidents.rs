//! Incidents: the latest facts on which kqueue and DTrace disagreed, with the evidence of both.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::token_bucket::TokenBucket;
use crate::check::finding::{Finding, Observer};
use crate::check::stats::Stats;
use crate::model::Verdict;
use crate::report::evidence::dto::IncidentDto;
use crate::report::{evidence, rfc3339};

/// How many incidents are kept of each verdict. Each verdict has its own ring, so a flood of one keeps the others.
const KEPT: usize = 256;
/// A flood of one verdict is sampled: this many at once, then one each `STEADY`. That is less than [`KEPT`] a minute, so
/// an incident stays for at least a minute after it was listed.
const BURST: u32 = 64;
const STEADY: Duration = Duration::from_millis(350);

/// One finding, by the number that it keeps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct NumberedFinding {
    /// From 1, in the order of the verdicts.
    pub id: u64,
    /// Which of the service's parts found it, as `State::publish` numbers them.
    pub part: usize,
    /// The evidence.
    pub finding: Finding,
    /// When it happened, in nanoseconds since 1970, once the run that found it has ended: the next run has another clock, for
    /// its host was booted.
    pub wall_ns: Option<u64>,
}

impl NumberedFinding {
    /// When it happened, if that is known. `stats` are those of its part.
    pub(super) fn time(&self, stats: &Stats) -> Option<String> {
        let wall_ns = self.wall_ns.or_else(|| stats.wall_of(evidence::happened(&self.finding)));
        wall_ns.map(rfc3339::utc)
    }

    pub(super) fn dto(&self, stats: &Stats) -> IncidentDto {
        let dto = IncidentDto::of(self.id, &self.finding, stats);
        IncidentDto { time: self.time(stats), ..dto }
    }

    /// The same with its time line.
    pub(super) fn dto_in_full(&self, stats: &Stats) -> IncidentDto {
        let dto = IncidentDto::in_full(self.id, &self.finding, stats);
        IncidentDto { time: self.time(stats), ..dto }
    }
}

/// The latest incidents. Clones share the rings; the lock is held only to copy from them.
#[derive(Clone, Default)]
pub struct Incidents {
    rings: Arc<Mutex<Rings>>,
    /// The part that this handle's findings come from.
    part: usize,
}

#[derive(Default)]
struct Rings {
    last_id: u64,
    by_verdict: [Ring; Verdict::COUNT],
}

impl Rings {
    /// Copies what is known of one fact of an incarnation to its other fact, in either order of arrival.
    fn share(&mut self, part: usize, finding: &mut Finding) {
        for verdict in Verdict::ALL.iter().filter(|verdict| verdict.needs_clues()) {
            let kept = self.by_verdict[verdict.index()].latest.iter_mut();
            kept.filter(|incident| incident.part == part)
                .for_each(|incident| incident.finding.share(finding));
        }
    }
}

/// The incidents of one verdict.
struct Ring {
    latest: VecDeque<NumberedFinding>,
    pace: TokenBucket,
    skipped: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Ring { latest: VecDeque::new(), pace: TokenBucket::new(STEADY, BURST), skipped: 0 }
    }
}

impl Observer for Incidents {
    fn finding(&mut self, finding: &Finding) {
        if finding.verdict.is_good() && !finding.has_news() {
            return;
        }
        let mut finding = *finding;
        let now = Instant::now();
        let part = self.part;
        let mut rings = self.rings();
        if finding.has_news() {
            rings.share(part, &mut finding);
        }
        if finding.verdict.is_good() {
            return;
        }
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
        ring.latest.push_back(NumberedFinding { id: *last_id, part, finding, wall_ns: None });
    }
}

impl Incidents {
    /// The same incidents, if a part reports its findings.
    pub(super) fn of_part(&self, part: usize) -> Incidents {
        Incidents { part, ..self.clone() }
    }

    /// The run of this part has ended with `stats`: from now on its incidents have the time that they have by its clock.
    pub(crate) fn run_ended(&self, stats: &Stats) {
        let mut rings = self.rings();
        let kept = rings.by_verdict.iter_mut().flat_map(|ring| &mut ring.latest);
        for incident in kept.filter(|incident| incident.part == self.part) {
            let at = evidence::happened(&incident.finding);
            incident.wall_ns = incident.wall_ns.or_else(|| stats.wall_of(at));
        }
    }

    /// The newest of each verdict that the filter lets through, newest first.
    pub(super) fn latest(
        &self,
        of_each: usize,
        filter: impl Fn(&NumberedFinding) -> bool,
    ) -> Vec<NumberedFinding> {
        let mut latest = Vec::new();
        for ring in &self.rings().by_verdict {
            let matching = ring.latest.iter().rev().filter(|incident| filter(incident));
            latest.extend(matching.take(of_each).copied());
        }
        latest.sort_unstable_by_key(|incident| std::cmp::Reverse(incident.id));
        latest
    }

    /// The incident with this number, while it is kept.
    pub(crate) fn get(&self, id: u64) -> Option<NumberedFinding> {
        let rings = self.rings();
        let mut all = rings.by_verdict.iter().flat_map(|ring| &ring.latest);
        all.find(|incident| incident.id == id).copied()
    }

    /// How many were not kept, because too many of the same verdict came at once.
    pub(super) fn skipped(&self) -> u64 {
        self.rings().by_verdict.iter().map(|ring| ring.skipped).sum()
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::{Clues, DtraceEvidence, KqueueEvidence};
    use crate::model::{Fact, KernelTime, Pid, TreeId};

    fn finding(pid: u64, verdict: Verdict) -> Finding {
        Finding {
            tree: TreeId(0),
            pid: Pid::new(pid).unwrap(),
            consumer: None,
            fact: Fact::Birth,
            verdict,
            dtrace: DtraceEvidence::default(),
            kqueue: KqueueEvidence::default(),
            clues: Clues::default(),
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
    fn what_is_known_of_one_fact_is_known_of_the_other_even_if_that_is_no_incident() {
        let known = Clues { named_forker: Some(KernelTime(5)), ..Clues::default() };
        for verdict in [Verdict::LostSilent, Verdict::Agreed] {
            let mut incidents = Incidents::default();
            for pid in [1, 2] {
                let mut birth = finding(pid, Verdict::LostSilent);
                birth.dtrace.created = Some(KernelTime(pid));
                incidents.finding(&birth);
            }
            let death = Finding { fact: Fact::Death, verdict, ..incidents.get(1).unwrap().finding };
            incidents.finding(&Finding { clues: known, ..death });
            let clues = [1, 2].map(|id| incidents.get(id).unwrap().finding.clues);
            assert_eq!(clues, [known, Clues::default()], "{verdict}");
        }
    }

    #[test]
    fn a_minute_of_flood_fits() {
        let steady = Duration::from_secs(60).div_duration_f64(STEADY) as usize;
        assert!(BURST as usize + steady <= KEPT);
    }
}
