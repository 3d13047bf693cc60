//! What is printed about a run: the answer of `stress`, and the figures that the documents take from recordings.

mod findings;
mod stress_report;
