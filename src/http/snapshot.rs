//! The figures that the service shows: of one kernel, or of several side by side.

use std::sync::Arc;

use super::incidents::NumberedFinding;
use crate::check::stats::Stats;
use crate::model::Regime;

/// The figures of one moment. A service has one part, or one for each kernel whose recording it plays.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    /// Those of all parts: their trees side by side, and the sums of the rest.
    pub(super) total: Arc<Stats>,
    pub(super) parts: Vec<Arc<Stats>>,
}

impl Snapshot {
    pub(super) fn of(parts: Vec<Arc<Stats>>) -> Snapshot {
        let total = match parts.as_slice() {
            [only] => Arc::clone(only),
            several => Arc::new(total(several)),
        };
        Snapshot { total, parts }
    }

    /// The figures of the part that an incident comes from: its tree's name, its kernel and its clock.
    pub(super) fn of_incident(&self, incident: &NumberedFinding) -> &Stats {
        self.parts.get(incident.part).unwrap_or(&self.total)
    }

    /// What each kernel is called, and how it delivers its notes, if there are several.
    pub(super) fn kernels(&self) -> impl Iterator<Item = (&str, Regime)> {
        let several = if self.parts.len() > 1 { self.parts.as_slice() } else { &[] };
        several
            .iter()
            .flat_map(|part| part.trees.iter().map(|tree| (tree.name.as_str(), part.regime)))
    }
}

fn total(parts: &[Arc<Stats>]) -> Stats {
    let mut total = Stats::default();
    for part in parts {
        let mut part = Stats::clone(part);
        total.trees.append(&mut part.trees);
        total.add_past(&part);
        total.dtrace_blind_now |= part.dtrace_blind_now;
        total.reconcile_delta += part.reconcile_delta;
        for (all, one) in total.tables.iter_mut().zip(&part.tables) {
            all.entries += one.entries;
            all.capacity += one.capacity;
        }
    }
    if parts.iter().any(|part| part.regime != total.regime) {
        total.regime = Regime::Unknown;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::stats::TreeStats;

    fn part(name: &str, regime: Regime, births: u64) -> Arc<Stats> {
        let births_reported = births;
        let tree = TreeStats { name: name.into(), births_reported, ..TreeStats::default() };
        let mut stats = Stats { trees: vec![tree], regime, reconcile_delta: 1, ..Stats::default() };
        stats.records[0] = births;
        Arc::new(stats)
    }

    #[test]
    fn several_parts_are_their_trees_and_their_sums() {
        let parts = vec![part("a", Regime::Split, 3), part("b", Regime::MergedStatus, 4)];
        let snapshot = Snapshot::of(parts);
        let trees = snapshot.total.trees.iter().map(|t| (t.name.as_str(), t.births_reported));
        assert_eq!(trees.collect::<Vec<_>>(), [("a", 3), ("b", 4)]);
        assert_eq!((snapshot.total.records[0], snapshot.total.reconcile_delta), (7, 2));
        assert_eq!(snapshot.total.regime, Regime::Unknown, "they differ");
        let kernels: Vec<_> = snapshot.kernels().collect();
        assert_eq!(kernels, [("a", Regime::Split), ("b", Regime::MergedStatus)]);
        let alike = Snapshot::of(vec![part("a", Regime::Split, 3), part("b", Regime::Split, 4)]);
        assert_eq!(alike.total.regime, Regime::Split);
    }

    #[test]
    fn one_part_is_all_there_is() {
        let only = part("a", Regime::Split, 3);
        let snapshot = Snapshot::of(vec![Arc::clone(&only)]);
        assert_eq!(snapshot.total, only);
        assert_eq!(snapshot.kernels().count(), 0);
    }
}
