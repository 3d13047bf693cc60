//! Where the two witnesses meet: raw inputs go in, decoded words go to the cross-checker.

use crate::check::Config;
use crate::check::finding::Observer;
use crate::check::stats::Stats;
use crate::input::Input;

/// Decodes both of dtrace's streams and feeds the cross-checker. Pure: it reads no clock and does no IO.
pub struct Pipeline<O> {
    observer: O,
    stats: Stats,
}

impl<O: Observer> Pipeline<O> {
    /// A pipeline that has heard nothing yet; `observer` hears every finding.
    pub fn new(_config: Config, observer: O) -> Pipeline<O> {
        Pipeline { observer, stats: Stats::default() }
    }

    /// Takes the next input.
    pub fn push(&mut self, _input: Input<'_>) {}

    /// What has been counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Whoever hears the findings.
    pub fn observer(&self) -> &O {
        &self.observer
    }

    /// Whoever hears the findings.
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }
}
