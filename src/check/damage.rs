//! Counts the damage to a tracker: models the process table that it builds from kevents alone, as the reporter of PR 180385 did
//! (who forked whom, what runs, what has ended), and compares it with the truth. Both come from the findings.
//!
//! A process stays in the table, running or ended, until its pid is used again: a history of parents is what such a
//! tracker is for. So the table, and this one beside it, has at most as many entries as there are pids.

use super::finding::Finding;
use super::stats::TreeStats;
use crate::model::{Fact, KernelTime, Pid, TreeId, Verdict, VerdictClass, named_enum};

named_enum! {
    /// What is wrong with an entry of the tracker's table. An entry can have more than one.
    pub enum Damage {
        /// It names a parent that is not the one that forked it.
        WrongParent = "wrong_parent",
        /// The table has no such parent: PR 180385's children of pid 32512.
        AdoptedByNobody = "adopted_by_nobody",
        /// Its own parent is right, but an ancestor's is not or is missing: no way leads up to the root.
        CutOff = "cut_off",
        /// There is no entry: the tracker does not know the process.
        Unknown = "unknown",
        /// It runs, says the table; it is dead.
        Ghost = "ghost",
        /// It ended with another status than the table says.
        WrongStatus = "wrong_status",
    }
}

/// What the table makes of a fact that has just been decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    /// The parents that one kqueue reported lead from the process up to the root.
    pub(super) reaches_root: bool,
    /// The same with parents from a kqueue that asks for NOTE_TRACK alone.
    pub(super) reaches_root_by_track_alone: bool,
    /// NOTE_TRACKERR made the tracker list the processes, and this one was there.
    pub(super) rescued: bool,
    /// The forker is not known to have ended.
    pub(super) forker_alive: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    tree: TreeId,
    /// Which life of the pid; `None` for a root, whose birth is no fact.
    created: Option<KernelTime>,
    /// Bit `i` is [`Damage::ALL`]`[i]`.
    damage: u8,
    standing: Standing,
    ended: bool,
}

impl Entry {
    fn root(tree: TreeId) -> Entry {
        let standing = Standing {
            reaches_root: true,
            reaches_root_by_track_alone: true,
            ..Standing::default()
        };
        Entry { tree, created: None, damage: 0, standing, ended: false }
    }

    fn has(&self, damage: Damage) -> bool {
        self.damage & 1 << damage.index() != 0
    }
}

/// The table of all trees, beside the truth: what is known of the last life of each pid.
#[derive(Default)]
pub(super) struct TrackerModel(Vec<Option<Entry>>);

impl TrackerModel {
    /// Takes the next finding, and keeps the gauges of `trees` up to date. `unknown_forker`: kqueue has reported nothing of the
    /// forker, and will not.
    pub(super) fn finding(
        &mut self,
        finding: &Finding,
        unknown_forker: bool,
        trees: &mut [TreeStats],
    ) -> Standing {
        match finding.fact {
            Fact::Birth => self.birth(finding, unknown_forker, trees),
            Fact::Death => self.death(finding, trees),
        }
    }

    fn get(&self, pid: Pid) -> Option<&Entry> {
        self.0.get(pid.get() as usize)?.as_ref()
    }

    fn slot(&mut self, pid: Pid) -> &mut Option<Entry> {
        let index = pid.get() as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        &mut self.0[index]
    }

    fn birth(
        &mut self,
        finding: &Finding,
        unknown_forker: bool,
        trees: &mut [TreeStats],
    ) -> Standing {
        let mut entry = Entry::root(finding.tree);
        entry.created = finding.dtrace.created;
        if let Some(old) = self.slot(finding.pid).take() {
            count(&old, trees, u64::saturating_sub);
        }
        let mut standing = self.standing_of_forker(finding, unknown_forker);
        let set = |entry: &mut Entry, damage: Damage| entry.damage |= 1 << damage.index();
        let alive = finding.dtrace.exited.is_none();
        match finding.verdict {
            Verdict::Agreed => {
                standing.rescued = false;
                if !standing.reaches_root {
                    set(&mut entry, Damage::CutOff);
                }
            }
            Verdict::Overwritten | Verdict::Corrupt => {
                set(&mut entry, Damage::WrongParent);
                if !self.believes_one_of_its_tree(finding) {
                    set(&mut entry, Damage::AdoptedByNobody);
                }
                standing.reaches_root = false;
                standing.reaches_root_by_track_alone &= finding.verdict == Verdict::Overwritten;
                standing.rescued = false;
            }
            Verdict::LostReported | Verdict::LostSilent | Verdict::LostInherited => {
                set(&mut entry, Damage::Unknown);
                standing.reaches_root = false;
                standing.reaches_root_by_track_alone = false;
                standing.rescued = match finding.verdict {
                    Verdict::LostReported => alive,
                    // Once the forker is registered again, the kernel reports its later children.
                    verdict => verdict == Verdict::LostInherited && standing.rescued,
                };
            }
            // It is not known to be wrong.
            Verdict::KqueueOnly | Verdict::Undecided => {
                standing = Entry::root(finding.tree).standing;
            }
        }
        entry.standing = standing;
        count(&entry, trees, u64::saturating_add);
        *self.slot(finding.pid) = Some(entry);
        standing
    }

    /// What a child has from its forker.
    fn standing_of_forker(&mut self, finding: &Finding, unknown_forker: bool) -> Standing {
        let root = Entry::root(finding.tree);
        let Some(forker) = finding.dtrace.forker else {
            return Standing { forker_alive: true, ..root.standing };
        };
        let standing = match self.get(forker) {
            Some(entry) => entry.standing,
            None if unknown_forker => Standing::default(),
            None if finding.verdict.is_good() => self.slot(forker).insert(root).standing,
            None => root.standing,
        };
        Standing { forker_alive: self.get(forker).is_none_or(|f| !f.ended), ..standing }
    }

    /// Whether the parent that kqueue named is in the table, and of the same tree.
    fn believes_one_of_its_tree(&self, finding: &Finding) -> bool {
        let named = finding.kqueue.child.and_then(|child| u64::try_from(child.event.data).ok());
        let parent = named.and_then(Pid::new).and_then(|pid| self.get(pid));
        parent.is_some_and(|parent| parent.tree == finding.tree)
    }

    fn death(&mut self, finding: &Finding, trees: &mut [TreeStats]) -> Standing {
        let slot = self.slot(finding.pid);
        let entry = slot.get_or_insert(Entry::root(finding.tree));
        if entry.created.is_some() && entry.created != finding.dtrace.created {
            // The pid has been used again: the table has forgotten this life.
            return Standing::default();
        }
        count(entry, trees, u64::saturating_sub);
        entry.ended = true;
        let known = !entry.has(Damage::Unknown);
        let wrong = match finding.verdict.class() {
            VerdictClass::Lost => known.then_some(Damage::Ghost),
            VerdictClass::Wrong => Some(Damage::WrongStatus),
            VerdictClass::Good | VerdictClass::Open => None,
        };
        entry.damage |= wrong.map_or(0, |damage| 1 << damage.index());
        count(entry, trees, u64::saturating_add);
        entry.standing
    }

    /// The note of a fact of this life has come after all: the tracker knows of it now.
    pub(super) fn late_note(
        &mut self,
        pid: Pid,
        created: Option<KernelTime>,
        fact: Fact,
        trees: &mut [TreeStats],
    ) {
        let Some(entry) = self.slot(pid) else { return };
        if entry.created.is_some() && entry.created != created {
            return;
        }
        let ended = match fact {
            Fact::Birth => Damage::Unknown,
            Fact::Death => Damage::Ghost,
        };
        count(entry, trees, u64::saturating_sub);
        entry.damage &= !(1 << ended.index());
        count(entry, trees, u64::saturating_add);
    }

    /// The tracker is gone, and its table with it: takes it off the gauges.
    pub(super) fn forget(self, trees: &mut [TreeStats]) {
        self.0.iter().flatten().for_each(|entry| count(entry, trees, u64::saturating_sub));
    }
}

/// Adds the entry to the gauges of its tree, or takes it away.
fn count(entry: &Entry, trees: &mut [TreeStats], step: fn(u64, u64) -> u64) {
    if entry.damage == 0 {
        return;
    }
    let Some(tree) = trees.get_mut(usize::from(entry.tree.0)) else { return };
    for damage in Damage::ALL.iter().filter(|damage| entry.has(**damage)) {
        let gauge = &mut tree.damage[damage.index()];
        *gauge = step(*gauge, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Clues, Delivered, DtraceEvidence, KqueueEvidence};
    use super::*;
    use crate::model::{Kevent, WaitStatus, note};

    /// A tracker's table and the gauges of one tree.
    struct Watched(TrackerModel, Vec<TreeStats>);

    impl Watched {
        fn new() -> Watched {
            Watched(TrackerModel::default(), vec![TreeStats::default()])
        }

        /// A fact of the life of `pid` that began at `created`; NOTE_CHILD, if it came, has `data`.
        fn decide(&mut self, fact: Fact, (pid, created): (u64, u64), verdict: Verdict, data: i64) {
            let event = Kevent { ident: pid, flags: 0, fflags: note::CHILD, data, udata: 0 };
            let child = Delivered { event, batch: 0, at: KernelTime(created) };
            let finding = Finding {
                tree: TreeId(0),
                pid: Pid::new(pid).expect("a pid"),
                consumer: None,
                fact,
                verdict,
                dtrace: DtraceEvidence {
                    created: Some(KernelTime(created)),
                    forker: Pid::new(1),
                    exited: None,
                    status: Some(WaitStatus(0)),
                },
                kqueue: KqueueEvidence {
                    child: Some(child).filter(|_| !verdict.is_lost()),
                    ..KqueueEvidence::default()
                },
                clues: Clues::default(),
                decided: KernelTime(created + 1),
            };
            self.0.finding(&finding, false, &mut self.1);
        }

        fn damage(&self) -> Vec<(&'static str, u64)> {
            let all = Damage::ALL.iter().map(|d| (d.as_str(), self.1[0].damage[d.index()]));
            all.filter(|(_, n)| *n > 0).collect()
        }
    }

    #[test]
    fn a_pid_that_is_used_again_takes_its_damage_with_it() {
        let mut watched = Watched::new();
        watched.decide(Fact::Birth, (7, 10), Verdict::Overwritten, 32512);
        watched.decide(Fact::Death, (7, 10), Verdict::LostSilent, 0);
        assert_eq!(watched.damage(), [("wrong_parent", 1), ("adopted_by_nobody", 1), ("ghost", 1)]);
        watched.decide(Fact::Birth, (7, 20), Verdict::Agreed, 1);
        assert_eq!(watched.damage(), []);
        // The end of the life before is decided late: the table has another process under this pid.
        watched.decide(Fact::Death, (7, 10), Verdict::LostSilent, 0);
        assert_eq!(watched.damage(), []);
    }

    #[test]
    fn a_wrong_parent_may_be_somebody_else_in_the_table() {
        let mut watched = Watched::new();
        watched.decide(Fact::Birth, (512, 10), Verdict::Agreed, 1);
        watched.decide(Fact::Birth, (513, 11), Verdict::Overwritten, 512);
        assert_eq!(watched.damage(), [("wrong_parent", 1)]);
    }

    #[test]
    fn what_is_undecided_is_no_damage() {
        let mut watched = Watched::new();
        for verdict in [Verdict::Undecided, Verdict::KqueueOnly, Verdict::Agreed] {
            watched.decide(Fact::Birth, (7, 10), verdict, 9);
            watched.decide(Fact::Death, (7, 10), verdict, 0);
        }
        assert_eq!(watched.damage(), []);
    }

    #[test]
    fn a_lost_process_is_unknown_and_no_ghost() {
        let mut watched = Watched::new();
        watched.decide(Fact::Birth, (7, 10), Verdict::LostSilent, 0);
        watched.decide(Fact::Death, (7, 10), Verdict::LostSilent, 0);
        assert_eq!(watched.damage(), [("unknown", 1)]);
    }
}
