//! A simulated kernel that knows the truth: processes, knotes, a reader and DTrace, in virtual time.
//!
//! It feeds the same inputs as a live kernel, so everything after the source is exercised, and it logs what really
//! happened, so verdicts can be held against it. A run is a function of its seed and [`Options`] alone, byte for byte.

mod arena;
mod consumers;
mod dtrace;
mod forks;
pub mod grid;
mod kernel;
mod kqueue;
mod options;
mod pipes;
mod procs;
pub mod quality;
mod reader;
pub mod rng;
pub mod score;
mod shape;
mod threads;
mod truth;

use crate::input::Sink;

pub use crate::model::Shape;
pub use options::Options;
pub(crate) use truth::Fault;
pub use truth::Truth;

/// How long a run goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Length {
    /// Until the load has been run once.
    Once,
    /// Until the sink breaks.
    Endless,
}

/// Runs the load of `options` once and tells the truth about it.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use kqproc_exporter::input::Input;
/// use kqproc_exporter::sim::{self, Options};
///
/// let options = Options { count: 10, ..Options::default() };
/// let inputs = |seed| {
///     let mut text = String::new();
///     sim::run(seed, &options, &mut |input: Input<'_>| {
///         text += &format!("{input:?}\n");
///         ControlFlow::Continue(())
///     });
///     text
/// };
/// assert_eq!(inputs(1), inputs(1), "a run is its seed and its options");
/// assert_ne!(inputs(1), inputs(2));
/// ```
pub fn run(seed: u64, options: &Options, sink: &mut dyn Sink) -> Truth {
    kernel::Kernel::new(seed, options, Length::Once, sink).run()
}

/// Runs the load again and again, in virtual time, until the sink breaks. Memory stays bounded: of the truth only the
/// last lives are kept.
pub fn run_endless(seed: u64, options: &Options, sink: &mut dyn Sink) -> Truth {
    kernel::Kernel::new(seed, options, Length::Endless, sink).run()
}

#[cfg(test)]
mod tests;
