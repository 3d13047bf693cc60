//! `explain` and `report` as users run them.

#[path = "../common/mod.rs"]
mod common;
mod insight;
