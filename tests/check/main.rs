//! The cross-check: the verdict on every birth and death, in recordings, in simulated runs and in inputs made by hand.

mod bounds;
mod clock_step;
#[path = "../common/mod.rs"]
mod common;
mod consumer;
mod cross_check;
mod hindsight;
mod latency;
mod simulated;
