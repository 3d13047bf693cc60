//! The cross-checker.

pub mod finding;
pub mod stats;

/// How patient the checker is, and how much it may hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Config {
    /// How long after a fact, in nanoseconds of DTrace's clock, its note may still be on its way inside the kernel.
    pub settle_ns: u64,
    /// How far out of order, in nanoseconds, DTrace's records may arrive.
    pub reorder_ns: u64,
    /// How many incarnations, records and events each may be held at once.
    pub capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { settle_ns: 500_000_000, reorder_ns: 200_000_000, capacity: 1 << 18 }
    }
}
