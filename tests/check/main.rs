//! The cross-check: the verdict on every birth and death, in recordings, in simulated runs and in inputs made by hand.

mod bounds;
mod by_hand;
mod clock_step;
mod clues;
#[path = "../common/mod.rs"]
mod common;
mod consumer;
mod cross_check;
mod hindsight;
mod latency;
mod simulated;
