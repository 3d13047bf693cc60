//! The HTTP face, over real sockets, as its clients know it.

mod conventions;
mod limits;
mod metrics;
mod status;
mod support;
mod web_config;
