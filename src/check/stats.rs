//! The counters: plain numbers that only grow, gauges beside them. One clone is one consistent snapshot.

use super::damage::Damage;
use super::strategies::{Strategy, StrategyCounts};
use crate::model::{Fact, KernelTime, Kevent, Pid, Regime, Verdict, Winner, named_enum, note};
use crate::wire::decode::Reason;
use crate::wire::drops::DropKind;
use crate::wire::record::Kind;

named_enum! {
    /// An order of events that the kernel should never give.
    pub enum Order {
        /// NOTE_EXIT of a process that no NOTE_CHILD announced, while DTrace says that it was a descendant.
        ExitBeforeChild = "exit_before_child",
        /// A second NOTE_EXIT for one incarnation.
        DuplicateExit = "duplicate_exit",
        /// A note about a process that neither witness knows.
        UnknownProcess = "unknown_process",
        /// A note, or DTrace's record of a fork, after the verdict that it would not come.
        Late = "late",
        /// A kevent whose ident cannot be a pid.
        BadIdent = "bad_ident",
    }
}

named_enum! {
    /// Why a witness may have missed something.
    pub enum BlindReason {
        /// dtrace reported drops.
        Drops = "drops",
        /// dtrace was not running, or had not begun yet.
        Outage = "outage",
        /// A line could not be decoded.
        BadLine = "bad_line",
        /// A record came later than the reorder horizon.
        Late = "late",
        /// sysctl counted more forks than DTrace showed.
        Reconcile = "reconcile",
        /// Our own ring or table was full.
        Overflow = "overflow",
        /// The clocks of the witnesses jumped apart.
        Clock = "clock",
    }
}

named_enum! {
    /// The tables that are bounded.
    pub enum BoundedTable {
        /// Incarnations that are alive or not yet settled.
        Incarnations = "incarnations",
        /// DTrace's records that wait for their turn.
        Records = "records",
        /// Events of batches that wait for their mark.
        Events = "events",
    }
}

/// How full a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fill {
    /// How many it holds.
    pub entries: u64,
    /// At how many it gives something up for each that comes.
    pub capacity: u64,
}

named_enum! {
    /// The notes that kevents are counted by.
    pub enum NoteKind {
        /// NOTE_CHILD.
        Child = "child",
        /// NOTE_EXIT.
        Exit = "exit",
        /// NOTE_FORK.
        Fork = "fork",
        /// NOTE_EXEC.
        Exec = "exec",
        /// NOTE_TRACKERR.
        Trackerr = "trackerr",
        /// EV_ERROR: what became of a change that the reader asked for; no note.
        Receipt = "receipt",
    }
}

named_enum! {
    /// Why kevent(2) refused a registration.
    pub enum Refusal {
        /// There is no knote to be changed or deleted.
        Enoent = "ENOENT",
        /// There is no such process, or none that may be seen.
        Esrch = "ESRCH",
        /// The kernel has no memory for a knote.
        Enomem = "ENOMEM",
        /// It may not be watched.
        Eacces = "EACCES",
        /// Its flags or its process id make no sense.
        Einval = "EINVAL",
        /// Any other errno.
        Other = "other",
    }
}

impl Refusal {
    /// What this errno says.
    pub(crate) const fn of(errno: i32) -> Refusal {
        match errno {
            2 => Refusal::Enoent,
            3 => Refusal::Esrch,
            12 => Refusal::Enomem,
            13 => Refusal::Eacces,
            22 => Refusal::Einval,
            _ => Refusal::Other,
        }
    }
}

/// What only a tree in consumer mode has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConsumerStats {
    /// Gauge: its process; `None` while the next one is waited for.
    pub pid: Option<Pid>,
    /// Gauge: facts whose note it has not been given, in kevent(2), by now.
    pub undelivered: u64,
    /// Gauge: for how long the oldest of them has waited, in nanoseconds of DTrace's clock; 0 if there is none.
    pub lag_ns: u64,
    /// Gauge: NOTE_FORK and NOTE_EXEC, if it asked for them with the same knote as for NOTE_EXIT.
    pub beside_exit: u32,
    /// Registrations that kevent(2) refused, indexed by [`Refusal::index`]: no facts.
    pub refused: [u64; Refusal::COUNT],
}

/// Counts of one tree.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TreeStats {
    /// The value of the `tree` label.
    pub name: String,
    /// Births by verdict, indexed by [`Verdict::index`].
    pub births: [u64; Verdict::COUNT],
    /// Deaths by verdict.
    pub deaths: [u64; Verdict::COUNT],
    /// Kevents with NOTE_CHILD and NOTE_EXIT, by which value won.
    pub collisions: [u64; Winner::COUNT],
    /// Kevents with NOTE_TRACKERR: each hides one lost process or more.
    pub trackerr_reports: u64,
    /// NOTE_CHILD for an incarnation that had been announced.
    pub duplicate_child_notes: u64,
    /// Orders of events that the kernel should not give.
    pub order_violations: [u64; Order::COUNT],
    /// Gauge: processes that kqueue believes alive.
    pub tracked: u64,
    /// Gauge: processes of the tree that are alive and that kqueue does not know.
    pub lost_alive: u64,
    /// Births that a witness reported: the sum of `births` and those still pending.
    pub births_reported: u64,
    /// Deaths that a witness reported.
    pub deaths_reported: u64,
    /// proc:::create to the kevent(2) return that delivered NOTE_CHILD, in nanoseconds.
    pub child_latency: Histogram,
    /// proc:::exit to the kevent(2) return that delivered NOTE_EXIT, in nanoseconds.
    pub exit_latency: Histogram,
    /// It is what a user's own tracker gets; `None`: what the exporter's own kqueue gets.
    pub consumer: Option<ConsumerStats>,
    /// Gauge: whether the tree has a process to watch.
    pub attached: bool,
    /// Gauge: the fflags that its registrations asked for, 0 while nothing is known. What was not asked for is no fact.
    pub notes: u32,
    /// Gauges: how wrong the table of a tracker is that believes every kevent, indexed by [`Damage::index`].
    pub damage: [u64; Damage::COUNT],
    /// What each way to use NOTE_TRACK would have got right, indexed by [`Strategy::index`].
    pub strategies: [StrategyCounts; Strategy::COUNT],
}

impl TreeStats {
    /// The counts of this fact, by verdict.
    pub fn of(&self, fact: Fact) -> &[u64; Verdict::COUNT] {
        match fact {
            Fact::Birth => &self.births,
            Fact::Death => &self.deaths,
        }
    }

    /// Counts a fact with its verdict.
    pub(crate) fn count(&mut self, fact: Fact, verdict: Verdict) {
        let by_verdict = match fact {
            Fact::Birth => &mut self.births,
            Fact::Death => &mut self.deaths,
        };
        by_verdict[verdict.index()] += 1;
    }

    /// The same tree when nothing of it is there any more.
    fn without_gauges(&self) -> TreeStats {
        let consumer = self.consumer.as_ref();
        let consumer = consumer.map(|consumer| ConsumerStats {
            refused: consumer.refused,
            ..ConsumerStats::default()
        });
        TreeStats {
            tracked: 0,
            lost_alive: 0,
            attached: false,
            damage: [0; Damage::COUNT],
            consumer,
            ..self.clone()
        }
    }

    /// Gauge: processes that are dead, and that kqueue's user believes alive.
    pub fn ghosts(&self) -> u64 {
        self.damage[Damage::Ghost.index()]
    }

    /// Adds the counters of another tree, or of an earlier run of this one. Gauges stay as they are.
    pub(crate) fn add_past(&mut self, past: &TreeStats) {
        let TreeStats {
            births,
            deaths,
            collisions,
            trackerr_reports,
            duplicate_child_notes,
            order_violations,
            births_reported,
            deaths_reported,
            child_latency,
            exit_latency,
            consumer,
            strategies,
            name: _,
            tracked: _,
            lost_alive: _,
            attached: _,
            notes: _,
            damage: _,
        } = past;
        add(&mut self.births, births);
        add(&mut self.deaths, deaths);
        add(&mut self.collisions, collisions);
        self.trackerr_reports += trackerr_reports;
        self.duplicate_child_notes += duplicate_child_notes;
        add(&mut self.order_violations, order_violations);
        self.births_reported += births_reported;
        self.deaths_reported += deaths_reported;
        self.child_latency.add_past(child_latency);
        self.exit_latency.add_past(exit_latency);
        if let (Some(mine), Some(past)) = (&mut self.consumer, consumer) {
            let ConsumerStats { refused, pid: _, undelivered: _, lag_ns: _, beside_exit: _ } = past;
            add(&mut mine.refused, refused);
        }
        self.strategies.iter_mut().zip(strategies).for_each(|(right, past)| right.add(past));
    }

    /// Adds the gauges of another tree. Counters stay as they are.
    fn add_gauges(&mut self, other: &TreeStats) {
        let TreeStats {
            tracked,
            lost_alive,
            attached,
            notes,
            damage,
            name: _,
            births: _,
            deaths: _,
            collisions: _,
            trackerr_reports: _,
            duplicate_child_notes: _,
            order_violations: _,
            births_reported: _,
            deaths_reported: _,
            child_latency: _,
            exit_latency: _,
            consumer: _,
            strategies: _,
        } = other;
        self.tracked += tracked;
        self.lost_alive += lost_alive;
        self.attached |= attached;
        self.notes |= notes;
        add(&mut self.damage, damage);
    }

    /// How it is watched: `mirror` or `consumer`.
    pub fn mode(&self) -> &'static str {
        if self.consumer.is_some() { "consumer" } else { "mirror" }
    }

    /// Facts of this kind without a verdict yet.
    pub(crate) fn pending_of(&self, fact: Fact) -> u64 {
        let reported = match fact {
            Fact::Birth => self.births_reported,
            Fact::Death => self.deaths_reported,
        };
        reported.saturating_sub(self.of(fact).iter().sum())
    }

    /// Facts without a verdict yet: 0 once the input has ended.
    pub fn pending(&self) -> u64 {
        Fact::ALL.iter().map(|fact| self.pending_of(*fact)).sum()
    }
}

/// Everything that was counted so far.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stats {
    /// By tree, indexed by the tree's number.
    pub trees: Vec<TreeStats>,
    /// What the kevents have shown of the kernel.
    pub regime: Regime,
    /// Records by kind.
    pub records: [u64; Kind::COUNT],
    /// Lines of stdout that could not be decoded, by reason.
    pub bad_lines: [u64; Reason::COUNT],
    /// Lines of stderr that fit nothing in dtrace's message grammar.
    pub unknown_messages: u64,
    /// What dtrace(1) reported that it dropped.
    pub drops: [u64; DropKind::COUNT],
    /// How often dtrace was started again.
    pub dtrace_restarts: u64,
    /// Kevents by note; one with two bits counts under both.
    pub kevents: [u64; NoteKind::COUNT],
    /// Kevents by batch.
    pub batch_sizes: Histogram,
    /// From when a fact happened to its verdict, on DTrace's clock, in nanoseconds.
    pub verdict_delay: Histogram,
    /// Nanoseconds of DTrace's clock in which kqueue's evidence may be missing, by reason.
    pub kqueue_blind_ns: [u64; BlindReason::COUNT],
    /// Nanoseconds in which DTrace's records may be missing, by reason; overlaps count once, for the first reason.
    pub dtrace_blind_ns: [u64; BlindReason::COUNT],
    /// Gauge: DTrace may be missing something right now.
    pub dtrace_blind_now: bool,
    /// What was dropped from a table because it was full.
    pub evictions: [u64; BoundedTable::COUNT],
    /// kqueue_register failures by errno, from the cause probes.
    pub trackerr_causes: std::collections::BTreeMap<i32, u64>,
    /// In-flux skips, from the cause probes.
    pub influx_skips: u64,
    /// Gauge: forks that sysctl counted while DTrace traced, and that it did not show; also those of earlier runs of dtrace(1).
    pub reconcile_delta: i64,
    /// Gauge: how far DTrace's records have come, in its nanoseconds.
    pub clock: u64,
    /// Gauge: DTrace's first record, on the same clock.
    pub began: u64,
    /// Gauge: the newest heartbeat, and the same in nanoseconds since 1970.
    pub wall: Option<(KernelTime, u64)>,
    /// Gauges: how full each table is, indexed by [`BoundedTable::index`].
    pub tables: [Fill; BoundedTable::COUNT],
}

impl Stats {
    /// The sum over all trees: counters and gauges.
    pub fn totals(&self) -> TreeStats {
        let mut sum = TreeStats { name: "all trees".to_owned(), ..TreeStats::default() };
        for tree in &self.trees {
            sum.add_past(tree);
            sum.add_gauges(tree);
        }
        sum
    }

    /// A time on DTrace's clock in nanoseconds since 1970, as exact as the wall clock was.
    pub(crate) fn wall_of(&self, at: KernelTime) -> Option<u64> {
        let (tick, wall) = self.wall.filter(|(_, wall)| *wall != 0)?;
        wall.saturating_add(at.since(tick)).checked_sub(tick.since(at))
    }

    /// Incarnations in the table.
    pub fn incarnations(&self) -> u64 {
        self.tables[BoundedTable::Incarnations.index()].entries
    }

    /// Seconds from DTrace's first record to its last.
    pub fn seconds(&self) -> f64 {
        self.clock.saturating_sub(self.began) as f64 / 1e9
    }

    /// Seconds in which either witness may have missed something.
    pub fn blind_seconds(&self) -> f64 {
        let ns = self.kqueue_blind_ns.iter().chain(&self.dtrace_blind_ns);
        ns.map(|ns| *ns as f64).sum::<f64>() / 1e9
    }

    /// Counts an event by its notes, or a receipt, which is none.
    pub(crate) fn count_kevent(&mut self, event: &Kevent) {
        if event.is_receipt() {
            self.kevents[NoteKind::Receipt.index()] += 1;
            return;
        }
        for (bit, kind) in [
            (note::CHILD, NoteKind::Child),
            (note::EXIT, NoteKind::Exit),
            (note::FORK, NoteKind::Fork),
            (note::EXEC, NoteKind::Exec),
            (note::TRACKERR, NoteKind::Trackerr),
        ] {
            self.kevents[kind.index()] += u64::from(event.fflags & bit != 0);
        }
    }

    /// Adds the counters of a run that has ended. Gauges and the regime stay as they are.
    pub(crate) fn add_past(&mut self, past: &Stats) {
        let Stats {
            trees,
            regime,
            records,
            bad_lines,
            unknown_messages,
            drops,
            dtrace_restarts,
            kevents,
            batch_sizes,
            verdict_delay,
            kqueue_blind_ns,
            dtrace_blind_ns,
            evictions,
            trackerr_causes,
            influx_skips,
            dtrace_blind_now: _,
            reconcile_delta: _,
            clock: _,
            began: _,
            wall: _,
            tables: _,
        } = past;
        for (i, tree) in trees.iter().enumerate() {
            match self.trees.get_mut(i) {
                Some(now) => now.add_past(tree),
                None => self.trees.push(tree.without_gauges()),
            }
        }
        if self.regime == Regime::Unknown {
            self.regime = *regime;
        }
        add(&mut self.records, records);
        add(&mut self.bad_lines, bad_lines);
        self.unknown_messages += unknown_messages;
        add(&mut self.drops, drops);
        self.dtrace_restarts += dtrace_restarts;
        add(&mut self.kevents, kevents);
        self.batch_sizes.add_past(batch_sizes);
        self.verdict_delay.add_past(verdict_delay);
        add(&mut self.kqueue_blind_ns, kqueue_blind_ns);
        add(&mut self.dtrace_blind_ns, dtrace_blind_ns);
        add(&mut self.evictions, evictions);
        for (errno, n) in trackerr_causes {
            *self.trackerr_causes.entry(*errno).or_default() += n;
        }
        self.influx_skips += influx_skips;
    }

    /// The law of conservation, for tests: every reported fact has one verdict or is pending.
    ///
    /// # Panics
    /// It is broken.
    pub fn assert_conserved(&self) {
        for tree in &self.trees {
            assert!(
                tree.births.iter().sum::<u64>() <= tree.births_reported,
                "births of {}",
                tree.name
            );
            assert!(
                tree.deaths.iter().sum::<u64>() <= tree.deaths_reported,
                "deaths of {}",
                tree.name
            );
        }
    }
}

fn add(now: &mut [u64], past: &[u64]) {
    now.iter_mut().zip(past).for_each(|(now, past)| *now = now.saturating_add(*past));
}

/// A histogram with power-of-two buckets: bucket `i` counts values below `2^i`, so it needs no configuration and no
/// allocation, and costs one `leading_zeros` per value.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// Counts; bucket 0 holds the zeros.
    pub buckets: [u64; 48],
    /// Sum of the values.
    pub sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [0; 48], sum: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, value: u64) {
        let bucket = (64 - value.leading_zeros()) as usize;
        self.buckets[bucket.min(self.buckets.len() - 1)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds the values of another histogram.
    pub(crate) fn add_past(&mut self, past: &Histogram) {
        let Histogram { buckets, sum } = past;
        add(&mut self.buckets, buckets);
        self.sum = self.sum.saturating_add(*sum);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// An upper bound of the `q` quantile (0 to 1): the end of the bucket that it lies in. 0 without values.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = (q * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return if i == 0 { 0 } else { (1u64 << i) - 1 };
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_the_trees() {
        let mut tree = TreeStats { tracked: 3, notes: note::TRACK, ..TreeStats::default() };
        tree.births[Verdict::Agreed.index()] = 2;
        tree.exit_latency.add(5);
        let other = TreeStats { notes: note::EXIT, attached: true, ..tree.clone() };
        let sum = Stats { trees: vec![tree, other], ..Stats::default() }.totals();
        assert_eq!((sum.births[Verdict::Agreed.index()], sum.tracked), (4, 6));
        assert_eq!((sum.exit_latency.count(), sum.exit_latency.sum), (2, 10));
        assert_eq!((sum.notes, sum.attached), (note::TRACK | note::EXIT, true));
    }
}
