//! The cases on which the quality of detection is measured: every combination of regime, shape, stall, buffer and
//! failure rate, with the rest chosen by the seed.

use std::fmt;

use super::options::Options;
use super::rng::Rng;
use crate::model::{Regime, Shape, named_enum};

/// One run: the whole of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// The knobs.
    pub options: Options,
}

named_enum! {
    /// How well the witnesses can see in a run.
    pub(super) enum Visibility {
        /// DTrace's buffers hold all records, it runs throughout, and its clock is right.
        Clear = "saw everything",
        /// It drops records or is restarted.
        Blind = "was blind at times",
        /// A clock jumps, the CPUs' clocks are apart, or records are printed twice or out of order.
        Unsure = "had a wrong clock",
    }
}

impl Case {
    /// How well the witnesses can see.
    pub(super) fn visibility(&self) -> Visibility {
        let Options { buffer, abort_ms, skew_us, twice, in_turn, .. } = self.options;
        let steps = (self.options.clock_step_ms, self.options.reader_step_ms) != (0, 0);
        if steps || skew_us >= 100 || twice > 0.0 || in_turn {
            Visibility::Unsure
        } else if buffer < 1 << 20 || abort_ms > 0 {
            Visibility::Blind
        } else {
            Visibility::Clear
        }
    }
}

impl fmt::Display for Case {
    /// As flags of `simulate` that repeat it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {} {}", self.seed, self.options)
    }
}

/// The regimes of the grid.
pub(crate) const REGIMES: [Regime; 3] = [Regime::Split, Regime::MergedStatus, Regime::MergedPpid];
/// Reader stalls in milliseconds.
const STALLS: [u64; 3] = [0, 40, 400];
/// DTrace's buffers in bytes: enough for everything, too small now and then, far too small.
const BUFFERS: [u32; 3] = [4 << 20, 8 << 10, 2 << 10];
/// The CPUs' clocks are at most 20 ms apart.
const MOST_SKEW_US: u64 = 10_000;
/// By how many milliseconds a clock jumps.
const STEPS_MS: [i64; 8] = [-9_000, -1_000, -130, -20, 20, 130, 1_000, 9_000];
/// How often the allocation of a knote fails.
const FAILURES: [f64; 3] = [0.0, 0.002, 0.05];

/// How many cases one round of the grid has.
pub(crate) const CELLS: u64 =
    (REGIMES.len() * Shape::COUNT * STALLS.len() * BUFFERS.len() * FAILURES.len()) as u64;

/// What may be wrong with the clocks and with the order of dtrace's output: nothing, in half of all cases.
fn clocks(rng: &mut Rng) -> Options {
    let mut options = Options { step_at_ms: 250 + rng.below(400), ..Options::default() };
    let step = STEPS_MS[rng.below(STEPS_MS.len() as u64) as usize];
    match rng.below(12) {
        6 => options.skew_us = 100 << rng.below(7),
        7 => options.skew_us = MOST_SKEW_US,
        8 => options.clock_step_ms = step,
        9 => options.reader_step_ms = step,
        10 => options.twice = [0.01, 1.0][rng.below(2) as usize],
        11 => options.in_turn = true,
        _ => {}
    }
    options
}

/// Case number `n`: the cell of the grid is `n` modulo `CELLS`, and everything that is not an axis of the grid varies
/// with `n` too.
pub fn case(n: u64) -> Case {
    let mut cell = n % CELLS;
    let mut axis = |len: usize| {
        let at = (cell % len as u64) as usize;
        cell /= len as u64;
        at
    };
    let regime = REGIMES[axis(REGIMES.len())];
    let shape = Shape::ALL[axis(Shape::COUNT)];
    let (stall, buffer, failure) = (axis(STALLS.len()), axis(BUFFERS.len()), axis(FAILURES.len()));
    let mut rng = Rng::new(n);
    let clocks = clocks(&mut Rng::new(!n));
    let blind = buffer > 0;
    // With these shapes a pid does not come back within 100 ms; with the others it would, as on no real kernel.
    let slow = !matches!(shape, Shape::Chain | Shape::Threads | Shape::Parallel);
    let mut pick = |rare: bool, common: u64, other: u64| {
        if rare && rng.below(4) == 0 { other } else { common }
    };
    let mut options = Options {
        regime,
        shape,
        stall_ms: STALLS[stall],
        buffer: BUFFERS[buffer],
        alloc_fail: FAILURES[failure],
        count: if shape == Shape::Chain { 30 } else { 120 },
        gap_us: pick(true, 500, 5_000),
        cpus: pick(true, 2, 4) as u32,
        stall_every: pick(true, 2, 5),
        flux_us: pick(true, 2, 40),
        scan_ns: pick(true, 600, 20_000),
        reader_us: pick(true, 50, 1_000),
        skew_us: pick(clocks.skew_us == 0, clocks.skew_us, 5),
        preempt: if pick(true, 0, 1) == 1 { 0.2 } else { 0.02 },
        race: if pick(true, 0, 1) == 1 { 0.05 } else { 0.0 },
        corrupt: if pick(true, 0, 1) == 1 { 0.01 } else { 0.0 },
        note_fork: pick(true, 0, 1) == 1,
        note_exec: pick(true, 0, 1) == 1,
        lost_exit: pick(true, 0, 1) as f64,
        pid_max: pick(slow, 99_999, 300) as u32,
        exit_note_first: pick(regime != Regime::Split, 0, 1) == 1,
        abort_ms: pick(blind, 0, 600),
        print_us: pick(blind, 1, 5_000),
        ..clocks
    };
    if options.pid_max < 99_999 {
        // Each pid comes back after a second.
        (options.count, options.gap_us) = (300, 5_000);
    }
    Case { seed: n, options }
}

/// The same case with consumers beside the mirror, or without one.
pub(crate) fn case_of_consumers(n: u64) -> Case {
    let mut case = case(n);
    let options = &mut case.options;
    options.consumers = 1 + (n / CELLS % 4) as u32;
    options.mirror = n.is_multiple_of(2);
    options.count = options.count.min(60);
    case
}
