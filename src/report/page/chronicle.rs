//! The observer behind the report page: verdicts and damage over time, NOTE_CHILD by generation, and the first incidents
//! of each verdict.

use serde::Serialize;

use super::bins::{Bins, Counts, Levels};
use crate::check::Call;
use crate::check::damage::Damage;
use crate::check::finding::{Finding, Observer};
use crate::check::stats::Stats;
use crate::model::{KernelTime, Kevent, Pid, Verdict, note};
use crate::report::evidence::happened;

/// How many incidents are kept of each verdict.
const KEPT: usize = 10;
/// Deeper generations are counted as this one.
const DEEPEST: usize = 32;

/// Births and NOTE_CHILD kevents of one generation: 1 for the children of a root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Generation {
    /// Processes that kqueue announced.
    pub births: u64,
    /// NOTE_CHILD kevents about them.
    pub notes: u64,
}

/// Follows the calls, the findings and the counters of a run.
#[derive(Default)]
pub(crate) struct Chronicle {
    /// Facts by verdict, at the time when they happened.
    pub verdicts: Bins<Counts<{ Verdict::COUNT }>>,
    pub damage: Bins<Levels<{ Damage::COUNT }>>,
    generations: Vec<Generation>,
    /// By tracker and pid: the generation of a process that was announced and has not ended, or 0.
    alive: Vec<Vec<u8>>,
    /// The first findings that are not agreed, of each verdict.
    incidents: [Vec<Finding>; Verdict::COUNT],
}

impl Chronicle {
    fn event(&mut self, tracker: usize, event: &Kevent) {
        let Some(pid) = Pid::new(event.ident) else { return };
        if tracker >= self.alive.len() {
            self.alive.resize(tracker + 1, vec![0; Pid::MAX as usize + 1]);
        }
        let alive = &mut self.alive[tracker];
        let ident = pid.get() as usize;
        let exit = event.fflags & note::EXIT != 0;
        if event.fflags & note::CHILD != 0 {
            let known = alive[ident];
            // With NOTE_EXIT in it, data may be the status: the generation is not known.
            let forker = u64::try_from(event.data).ok().filter(|_| !exit).and_then(Pid::new);
            let generation = match (known, forker) {
                (0, Some(forker)) => alive[forker.get() as usize].saturating_add(1),
                (known, _) => known,
            };
            let generation = generation.min(DEEPEST as u8);
            if generation > 0 {
                let index = usize::from(generation);
                if self.generations.len() < index {
                    self.generations.resize(index, Generation::default());
                }
                self.generations[index - 1].births += u64::from(known == 0);
                self.generations[index - 1].notes += 1;
            }
            alive[ident] = generation;
        }
        if exit {
            alive[ident] = 0;
        }
    }

    /// By generation, the children of the roots first.
    pub(crate) fn generations(&self) -> &[Generation] {
        &self.generations
    }

    /// The first incidents of each verdict, in the order in which they were decided.
    pub(crate) fn incidents(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.incidents.iter().flatten().copied().collect();
        all.sort_by_key(|finding| finding.decided);
        all
    }
}

impl Observer for Chronicle {
    fn call(&mut self, call: &Call) {
        let events = call.notes.iter().filter(|event| !event.is_receipt());
        events.for_each(|event| self.event(call.tracker, event));
    }

    /// Keeps how wrong the tracker's table is now, from the first fact on.
    fn counted(&mut self, stats: &Stats) {
        let Some(start) = self.verdicts.start() else { return };
        let mut damage = [0; Damage::COUNT];
        for tree in &stats.trees {
            damage.iter_mut().zip(tree.damage).for_each(|(sum, n)| *sum += n);
        }
        self.damage.begin(start);
        self.damage.put(KernelTime(stats.clock), Levels(damage));
    }

    fn finding(&mut self, finding: &Finding) {
        let mut one = [0; Verdict::COUNT];
        one[finding.verdict.index()] = 1;
        self.verdicts.put(happened(finding), Counts(one));
        let mut finding = *finding;
        if finding.has_news() {
            self.incidents.iter_mut().flatten().for_each(|kept| kept.share(&mut finding));
        }
        let kept = &mut self.incidents[finding.verdict.index()];
        if !finding.verdict.is_good() && kept.len() < KEPT {
            kept.push(finding);
        }
    }
}
