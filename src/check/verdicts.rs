//! The sink of verdicts: it counts them, keeps the findings, and passes each to the observers of decided facts.

use super::clues::RecentContext;
use super::damage::TrackerModel;
use super::finding::{Finding, Observer};
use super::stats::{Stats, TreeStats};
use super::strategies;
use crate::model::{Fact, KernelTime, Pid, TreeId};

#[derive(Default)]
pub(crate) struct Verdicts {
    pub(crate) stats: Stats,
    /// Findings that were not handed on yet.
    findings: Vec<Finding>,
    /// By the tracker's number.
    observers: Vec<Observers>,
}

/// What observes the decided facts of one tracker.
#[derive(Default)]
pub(crate) struct Observers {
    /// What it makes of the kevents.
    model: TrackerModel,
    /// What shows why something was lost.
    pub(crate) recent: RecentContext,
}

impl Verdicts {
    /// A fact was decided. `unknown_forker`: kqueue has reported nothing of its forker, and will not.
    pub(crate) fn decided(&mut self, tracker: usize, mut finding: Finding, unknown_forker: bool) {
        let delay = finding.happened().map_or(0, |at| finding.decided.since(at));
        self.stats.verdict_delay.add(delay);
        self.tree(finding.tree).count(finding.fact, finding.verdict);
        if finding.verdict.needs_clues() {
            let recent = &self.observers(tracker).recent;
            recent.about(finding.pid, &finding.dtrace, &mut finding.clues);
        }
        let (model, trees) = self.model(tracker);
        let standing = model.finding(&finding, unknown_forker, trees);
        strategies::count(&finding, standing, self.tree(finding.tree));
        self.findings.push(finding);
    }

    /// The note of a fact of this life has come after the verdict that it would not.
    pub(crate) fn late_note(
        &mut self,
        tracker: usize,
        pid: Pid,
        created: Option<KernelTime>,
        fact: Fact,
    ) {
        let (model, trees) = self.model(tracker);
        model.late_note(pid, created, fact, trees);
    }

    /// This tracker has ended, and the table that it had built is gone.
    pub(crate) fn forget_table(&mut self, tracker: usize) {
        let (model, trees) = self.model(tracker);
        std::mem::take(model).forget(trees);
    }

    /// The model of this tracker's table, and the trees whose gauges it keeps.
    fn model(&mut self, tracker: usize) -> (&mut TrackerModel, &mut [TreeStats]) {
        self.make_room(tracker);
        (&mut self.observers[tracker].model, &mut self.stats.trees)
    }

    /// Hands on what was decided since the last time.
    pub(crate) fn hand_on(&mut self, observer: &mut impl Observer) {
        self.findings.drain(..).for_each(|finding| observer.finding(&finding));
    }

    /// What observes this tracker's facts.
    pub(crate) fn observers(&mut self, tracker: usize) -> &mut Observers {
        self.make_room(tracker);
        &mut self.observers[tracker]
    }

    fn make_room(&mut self, tracker: usize) {
        if self.observers.len() <= tracker {
            self.observers.resize_with(tracker + 1, Observers::default);
        }
    }

    /// Whether a tree is watched by the exporter's own kqueue.
    pub(crate) fn has_mirrored_tree(&self) -> bool {
        self.stats.trees.iter().any(|tree| tree.consumer.is_none())
    }

    /// The counts of this tree, which need not have been declared.
    pub(crate) fn tree(&mut self, tree: TreeId) -> &mut TreeStats {
        let (trees, number) = (&mut self.stats.trees, usize::from(tree.0));
        if trees.len() <= number {
            declare(trees, number);
        }
        &mut trees[number]
    }
}

/// Makes room for the counts of trees up to this number.
#[cold]
fn declare(trees: &mut Vec<TreeStats>, number: usize) {
    for number in trees.len()..=number {
        trees.push(TreeStats { name: format!("tree{number}"), ..TreeStats::default() });
    }
}
