//! What a run found, for a person (text) and for a program (JSON). Pure: counters in, words out.

pub mod answer;
pub mod paint;
pub mod summary;
