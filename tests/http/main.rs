//! The HTTP face, over real sockets, as its clients know it.

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
