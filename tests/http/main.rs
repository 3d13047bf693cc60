//! The HTTP server over real sockets: metrics, status page, incidents, limits, TLS and passwords.

mod ask;
#[path = "../common/mod.rs"]
mod common;
mod conventions;
mod demo;
mod guard;
mod limits;
mod metrics;
mod prefix;
mod serve;
mod status;
mod support;
mod web_config;
