//! Reports: the answer that `stress` prints, and the figures that the documents take from recordings.

mod findings;
mod stress_report;
