//! What a run found, for a person (text) and for a program (JSON). Pure: counters in, words out.

mod advice;
pub mod answer;
pub mod escape;
pub mod evidence;
pub mod explain;
pub mod interval;
pub mod kernel;
pub mod page;
pub mod paint;
pub mod paths;
pub mod stress;
pub mod summary;
pub mod wall;
pub mod wanted;
