//! Regression tests: one for each fault that was once found in the verdicts, named after it.

#[path = "../common/mod.rs"]
mod common;
mod faults;
