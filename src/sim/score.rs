//! Scores of the cross-check: the verdicts on a simulated run are held against what really happened, and counted.

use std::collections::{BTreeMap, HashMap};

use super::grid::Case;
use super::truth::{TrueFact, TrueLife, Truth};
use crate::check::Config;
use crate::check::finding::{Delivered, Finding};
use crate::model::{Fact, KernelTime, Pid, TreeId, Verdict};
use crate::pipeline::Pipeline;

/// How the facts of one class fared. The class of a fact is what really became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Class {
    /// Facts of this class that got a verdict other than undecided.
    pub decided: u64,
    /// Facts of this class that stayed undecided.
    pub undecided: u64,
    /// Facts of this class that neither witness reported: they cannot be counted.
    pub(crate) unreported: u64,
    /// Verdicts that name this class.
    pub given: u64,
    /// Verdicts that name this class and are right.
    pub right: u64,
}

impl Class {
    /// Of the verdicts that name this class, the share that is right.
    pub(crate) fn precision(&self) -> Option<f64> {
        (self.given > 0).then(|| self.right as f64 / self.given as f64)
    }

    /// Of the decided facts of this class, the share that was recognised.
    pub(crate) fn recall(&self) -> Option<f64> {
        (self.decided > 0).then(|| self.right as f64 / self.decided as f64)
    }

    fn merge(&mut self, other: &Class) {
        let Class { decided, undecided, unreported, given, right } = other;
        self.decided += decided;
        self.undecided += undecided;
        self.unreported += unreported;
        self.given += given;
        self.right += right;
    }
}

/// A verdict that is not the truth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Miss {
    pub(crate) fact: Fact,
    /// What really happened; `None` for a fact that never was, or that was judged before.
    pub truth: Option<Verdict>,
    /// The verdict; `None` for a fact that was reported and got none.
    pub verdict: Option<Verdict>,
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |verdict: Option<Verdict>| verdict.map_or("nothing", Verdict::as_str);
        write!(f, "{}: {} was called {}", self.fact, name(self.truth), name(self.verdict))
    }
}

/// How often something went wrong, and a run that shows it: the shortest.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    pub(crate) times: u64,
    pub(crate) case: Case,
    /// How many facts the run has.
    pub(crate) facts: u64,
    /// A process of that run whose verdict is wrong.
    pub(crate) pid: Pid,
}

/// The score of one run, or of many.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Score {
    pub(crate) runs: u64,
    pub(crate) facts: u64,
    /// How many of them lie in a time in which DTrace was really blind.
    pub(crate) overlapping: u64,
    /// By fact and class: births first, then deaths.
    pub(crate) classes: [[Class; Verdict::COUNT]; 2],
    /// What went wrong.
    pub misses: BTreeMap<Miss, Found>,
}

impl Score {
    /// Runs a case through the real pipeline and holds the verdicts against its truth.
    pub fn of_case(case: &Case) -> Score {
        let (truth, findings) = play(case);
        Score::of(case, &truth, &findings)
    }

    /// The score of the mirror and of all consumers.
    pub fn of(case: &Case, truth: &Truth, findings: &[Finding]) -> Score {
        let mut score = Score::of_consumers(case, truth, findings);
        if case.options.mirror {
            score.merge(of_tracker(case, Tracker::Mirror, TreeId(0), truth, findings));
        }
        Score { runs: 1, ..score }
    }

    /// The score of all consumers.
    pub(super) fn of_consumers(case: &Case, truth: &Truth, findings: &[Finding]) -> Score {
        let mut score = Score::default();
        for (n, received) in truth.consumers.iter().enumerate() {
            let tree = TreeId(n as u16 + u16::from(case.options.mirror));
            score.merge(of_tracker(case, Tracker::Consumer, tree, received, findings));
        }
        Score { runs: 1, ..score }
    }

    pub(crate) fn undecided(&self) -> u64 {
        self.classes.iter().flatten().map(|c| c.undecided).sum()
    }

    /// Adds another score. The order of adding does not matter.
    pub(crate) fn merge(&mut self, other: Score) {
        let Score { runs, facts, overlapping, classes, misses } = other;
        self.runs += runs;
        self.facts += facts;
        self.overlapping += overlapping;
        for (mine, theirs) in self.classes.iter_mut().flatten().zip(classes.iter().flatten()) {
            mine.merge(theirs);
        }
        for (miss, theirs) in misses {
            let Some(mine) = self.misses.get_mut(&miss) else {
                self.misses.insert(miss, theirs);
                continue;
            };
            let times = mine.times + theirs.times;
            let length = |found: &Found| (found.facts, found.case.seed, found.case.to_string());
            if length(&theirs) < length(mine) {
                *mine = theirs;
            }
            mine.times = times;
        }
    }
}

/// Runs a case through the real pipeline: the truth, and what was found.
pub(super) fn play(case: &Case) -> (Truth, Vec<Finding>) {
    let mut pipeline = Pipeline::new(Config::default(), Vec::new());
    let truth = super::run(case.seed, &case.options, &mut pipeline);
    (truth, std::mem::take(pipeline.observer_mut()))
}

/// What a finding and a life may have in common: the time of a probe, or the call that delivered a note.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Probe(Pid, Fact, KernelTime),
    Note(Pid, Fact, u64),
}

fn keys_of_life(life: &TrueLife) -> impl Iterator<Item = Key> {
    Fact::ALL.iter().flat_map(|&fact| {
        let TrueFact { at, printed, call, .. } = life.of(fact);
        let probe = at.filter(|_| *printed).map(|at| Key::Probe(life.pid, fact, at));
        probe.into_iter().chain(call.map(|call| Key::Note(life.pid, fact, call)))
    })
}

/// The keys of a finding; those of the fact that it is about come first. Calls of the mirror are known by their numbers, those
/// of consumers by the times at which they returned.
fn keys_of_finding(finding: &Finding, tracker: Tracker) -> impl Iterator<Item = Key> {
    let Finding { pid, dtrace, kqueue, .. } = *finding;
    let call = move |note: Delivered| match tracker {
        Tracker::Mirror => note.batch,
        Tracker::Consumer => note.at.0,
    };
    let facts = match finding.fact {
        Fact::Birth => [Fact::Birth, Fact::Death],
        Fact::Death => [Fact::Death, Fact::Birth],
    };
    facts.into_iter().flat_map(move |fact| {
        let (at, note) = match fact {
            Fact::Birth => (dtrace.created, kqueue.child),
            Fact::Death => (dtrace.exited, kqueue.exit),
        };
        let probe = at.map(|at| Key::Probe(pid, fact, at));
        probe.into_iter().chain(note.map(|note| Key::Note(pid, fact, call(note))))
    })
}

/// Whose kevents are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tracker {
    Mirror,
    Consumer,
}

/// Matches every finding about this tree with the life that it is about, and counts.
fn of_tracker(
    case: &Case,
    tracker: Tracker,
    tree: TreeId,
    truth: &Truth,
    findings: &[Finding],
) -> Score {
    let lives: Vec<&TrueLife> = truth.lives().collect();
    let findings = findings.iter().filter(|finding| finding.tree == tree);
    let (verdicts, strays) = matched(&lives, findings, tracker);
    let mut score = Score { runs: 1, ..Score::default() };
    let mut misses: Vec<(Miss, Pid)> = vec![];
    for stray in strays {
        let Finding { fact, verdict, pid, .. } = *stray;
        score.classes[fact.index()][verdict.index()].given += 1;
        misses.push((Miss { fact, truth: None, verdict: Some(verdict) }, pid));
    }
    let reported = match tracker {
        Tracker::Mirror => reported_facts(&lives),
        // What a consumer watches may have been registered before DTrace came, or while it was blind.
        Tracker::Consumer => vec![[false; 2]; lives.len()],
    };
    for (i, life) in lives.iter().enumerate() {
        for fact in [Fact::Birth, Fact::Death] {
            let (verdict, reported) = (verdicts[i][fact.index()], reported[i][fact.index()]);
            let miss = score.count(truth, life, fact, verdict, reported);
            misses.extend(miss.map(|miss| (miss, life.pid)));
        }
    }
    let (facts, case) = (score.facts, case.clone());
    for (miss, pid) in misses {
        let new = || Found { times: 0, case: case.clone(), facts, pid };
        score.misses.entry(miss).or_insert_with(new).times += 1;
    }
    score
}

/// The verdicts on each life, births first, and the findings that are about none.
fn matched<'a>(
    lives: &[&TrueLife],
    findings: impl Iterator<Item = &'a Finding>,
    tracker: Tracker,
) -> (Vec<[Option<Verdict>; 2]>, Vec<&'a Finding>) {
    let mut index: HashMap<Key, Vec<usize>> = HashMap::new();
    for (i, life) in lives.iter().enumerate() {
        for key in keys_of_life(life) {
            index.entry(key).or_default().push(i);
        }
    }
    let mut verdicts: Vec<[Option<Verdict>; 2]> = vec![[None; 2]; lives.len()];
    let mut strays = vec![];
    for finding in findings {
        let fact = finding.fact.index();
        let life = keys_of_finding(finding, tracker)
            .filter_map(|key| index.get(&key))
            .flatten()
            .copied()
            .find(|life| verdicts[*life][fact].is_none());
        match life {
            Some(life) => verdicts[life][fact] = Some(finding.verdict),
            // No fact of the truth: harmless if it is undecided, a false verdict otherwise.
            None if finding.verdict == Verdict::Undecided => {}
            None => strays.push(finding),
        }
    }
    (verdicts, strays)
}

impl Score {
    /// Counts one fact. Returns what is wrong with its verdict.
    fn count(
        &mut self,
        truth: &Truth,
        life: &TrueLife,
        fact: Fact,
        verdict: Option<Verdict>,
        reported: bool,
    ) -> Option<Miss> {
        // DTrace may show one of several notes and not the others.
        let TrueFact { at, outcome, further, .. } = life.of(fact);
        let shown = verdict.filter(|verdict| further.contains(verdict));
        let Some(really) = shown.or(*outcome) else {
            return verdict.filter(|verdict| *verdict != Verdict::Undecided).map(|verdict| {
                self.classes[fact.index()][verdict.index()].given += 1;
                Miss { fact, truth: None, verdict: Some(verdict) }
            });
        };
        self.facts += 1;
        self.overlapping += u64::from(at.is_some_and(|at| truth.blind_at(at)));
        let classes = &mut self.classes[fact.index()];
        let class = &mut classes[really.index()];
        match verdict {
            Some(Verdict::Undecided) => class.undecided += 1,
            None if !reported => class.unreported += 1,
            None => class.decided += 1,
            Some(verdict) => {
                class.decided += 1;
                class.right += u64::from(verdict == really);
                classes[verdict.index()].given += 1;
            }
        }
        let fine = match verdict {
            Some(verdict) => verdict == really || verdict == Verdict::Undecided,
            None => !reported,
        };
        (!fine).then_some(Miss { fact, truth: Some(really), verdict })
    }
}

/// Which facts the witnesses reported. DTrace reports every process on the machine: that one of them belongs to the tree
/// shows only if the line of creates to the root is unbroken, or if kqueue names it.
fn reported_facts(lives: &[&TrueLife]) -> Vec<[bool; 2]> {
    let mut known = vec![false; lives.len()];
    let mut reported = Vec::with_capacity(lives.len());
    for (i, life) in lives.iter().enumerate() {
        let heir = life.forker_life.is_none_or(|f| known[f as usize]);
        let TrueLife { birth, death, .. } = life;
        let named = birth.call.is_some() || death.call.is_some();
        known[i] = named || birth.printed && heir;
        let is_reported = |fact: &TrueFact| fact.call.is_some() || fact.printed && known[i];
        reported.push([is_reported(birth), is_reported(death)]);
    }
    reported
}

/// The same case with the smallest count that still shows this miss: a run is a prefix of every longer one.
pub(crate) fn shortest(miss: &Miss, case: &Case) -> Case {
    let fails = |count: u32| {
        let mut shorter = case.clone();
        shorter.options.count = count;
        Score::of_case(&shorter).misses.contains_key(miss).then_some(shorter)
    };
    let (mut low, mut best) = (0, case.clone());
    while low + 1 < best.options.count {
        let middle = low + (best.options.count - low) / 2;
        match fails(middle) {
            Some(shorter) => best = shorter,
            None => low = middle,
        }
    }
    best
}
