//! `explain` and `report`: the history of one process, and the page about a recording.

#[path = "../common/mod.rs"]
mod common;
mod insight;
