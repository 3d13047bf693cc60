//! Reports: the answer that `stress` prints, and the figures that the documents take from recordings.

#[path = "../common/mod.rs"]
mod common;
mod findings;
mod stress_report;
