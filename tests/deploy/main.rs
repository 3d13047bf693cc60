//! What operators load, read and install: alerts, dashboards, the man page, the FreeBSD port, dependencies. Each is checked with
//! the tools that use it and against the code.

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
