//! The incidents of a recording: the facts that the witnesses did not agree on, numbered in the order of their verdicts.

use std::collections::{BTreeMap, VecDeque};

use super::evidence::dto::{IncidentDto, IncidentList};
use super::verdict_filter::VerdictFilter;
use crate::check::finding::{Finding, Observer};
use crate::check::stats::Stats;
use crate::input::Input;
use crate::model::TreeId;

/// At least so many are kept while a recording is played: what is found out about one fact of a process explains its
/// other fact too, which was decided shortly before.
const KEPT: usize = 256;

/// Keeps the newest incidents that are asked for.
#[derive(Debug, Default)]
pub(crate) struct IncidentLog {
    tree: Option<String>,
    verdict: Option<VerdictFilter>,
    id: Option<u64>,
    limit: usize,
    trees: BTreeMap<TreeId, String>,
    last_id: u64,
    matched: u64,
    kept: VecDeque<(u64, Finding)>,
}

impl IncidentLog {
    /// The newest `limit` incidents of this tree and verdict, if any is given.
    pub(crate) fn newest(
        limit: usize,
        tree: Option<String>,
        verdict: Option<VerdictFilter>,
    ) -> IncidentLog {
        IncidentLog { tree, verdict, limit, ..IncidentLog::default() }
    }

    pub(crate) fn one(id: u64) -> IncidentLog {
        IncidentLog { id: Some(id), limit: 1, ..IncidentLog::default() }
    }

    /// How many incidents there were of those that are asked for, kept or not.
    pub(crate) fn matched(&self) -> u64 {
        self.matched
    }

    /// Those that are asked for, newest first. `stats` are the counters at the end of the run.
    pub(crate) fn list(&self, stats: &Stats, source: &str, osrelease: &str) -> IncidentList {
        let newest = self.kept.iter().rev().take(self.limit);
        IncidentList {
            origin: "replay".into(),
            detail: source.to_owned(),
            osrelease: osrelease.to_owned(),
            skipped: 0,
            incidents: newest.map(|(id, f)| IncidentDto::of(*id, f, stats)).collect(),
        }
    }

    /// The newest one with its time line.
    pub(crate) fn last_in_full(&self, stats: &Stats) -> Option<IncidentDto> {
        self.kept.back().map(|(id, finding)| IncidentDto::in_full(*id, finding, stats))
    }

    fn wants(&self, id: u64, finding: &Finding) -> bool {
        let tree = self.trees.get(&finding.tree);
        self.id.is_none_or(|wanted| wanted == id)
            && self.tree.as_ref().is_none_or(|wanted| Some(wanted) == tree)
            && self.verdict.is_none_or(|wanted| wanted.has(finding.verdict))
    }
}

impl Observer for IncidentLog {
    fn input(&mut self, input: &Input<'_>) {
        if let Input::Tree { id, name } = input {
            self.trees.insert(*id, (*name).to_owned());
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let mut finding = *finding;
        if finding.has_news() {
            self.kept.iter_mut().for_each(|(_, kept)| kept.share(&mut finding));
        }
        if finding.verdict.is_good() {
            return;
        }
        self.last_id += 1;
        if !self.wants(self.last_id, &finding) {
            return;
        }
        self.matched += 1;
        if self.kept.len() == self.limit.max(KEPT) {
            self.kept.pop_front();
        }
        self.kept.push_back((self.last_id, finding));
    }
}
