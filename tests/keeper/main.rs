//! The keeper: the process that stays root's and runs dtrace(1) for the exporter.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod family;
mod lifetimes;
mod rights;
