//! One test for each fault that was found in the cross-check once, named after it.

#[path = "../common/mod.rs"]
mod common;
mod faults;
