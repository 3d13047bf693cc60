//! Does kqueue lose your processes? Two witnesses watch every fork and exit: kqueue's EVFILT_PROC, the accused, and
//! DTrace's proc provider, the truth. This library compares them event by event.

pub mod check;
pub mod cli;
pub mod http;
pub mod input;
#[cfg(unix)]
pub mod load;
pub mod metrics;
pub mod model;
pub mod pipeline;
#[cfg(unix)]
pub mod preflight;
pub mod recording;
pub mod report;
pub mod sim;
pub mod source;
pub mod wire;
