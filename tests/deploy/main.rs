//! What operators load, read and install, held against the tools that they use and against the code.

mod alerts;
#[path = "../common/mod.rs"]
mod common;
mod dashboards;
mod drift;
mod e2e;
mod freebsd;
mod manual;
mod panels;
mod project;
mod promql;
mod stack;
mod supply;
