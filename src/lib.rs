//! Does kqueue lose your processes? Two witnesses watch every fork and exit: kqueue's EVFILT_PROC, the accused, and
//! DTrace's proc provider, the truth. This library compares them event by event.

// No input ends the process. (Tests may: they say what they expect.)
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]
// The same inputs give the same verdicts: no clock, no file, no process, no thread, no order by chance. clippy.toml lists
// what that means; only the modules at the end, which touch the world, may.
#![cfg_attr(
    not(test),
    deny(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::iter_over_hash_type,
        clippy::print_stdout
    )
)]

pub mod check;
pub mod report;
pub mod sim;

// What others wrote is decoded here: no byte of it is an index.
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod input;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod model;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod pipeline;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod recording;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod wire;

#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod cli;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod http;
#[cfg(unix)]
#[allow(clippy::disallowed_methods, clippy::disallowed_types, unsafe_code)]
pub mod load;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod metrics;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, unsafe_code)]
pub mod source;
