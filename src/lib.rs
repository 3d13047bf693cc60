//! Does kqueue lose your processes? This library compares kqueue's EVFILT_PROC events with DTrace's proc provider, event by
//! event. Each of the two is called a witness. Every birth and every death of a tracked process gets one verdict.
//!
//! The events come from a live kernel, a recording or a simulated kernel; the verdicts are made in one way:
//!
//! ```
//! use kqproc_exporter::check::Config;
//! use kqproc_exporter::model::Verdict;
//! use kqproc_exporter::pipeline::Pipeline;
//! use kqproc_exporter::recording::{BUNDLED, Reader};
//!
//! let mut pipeline = Pipeline::new(Config::default(), ());
//! let mut recording = Reader::new(BUNDLED)?;
//! while let Some(input) = recording.next()? {
//!     pipeline.push(input);
//! }
//! let tree = &pipeline.stats().trees[0];
//! assert_eq!(tree.births[Verdict::Overwritten.index()], 184);
//! assert_eq!(tree.births[Verdict::LostSilent.index()], 1);
//! # Ok::<(), kqproc_exporter::recording::RecordingError>(())
//! ```

// What no other crate of the repository uses is pub(crate).
#![deny(unreachable_pub)]
// What can fail says how.
#![deny(clippy::missing_errors_doc, clippy::missing_panics_doc)]
// No input ends the process. (Tests may: they say what they expect.)
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
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
    deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::iter_over_hash_type)
)]

pub mod check;
mod duration;
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
#[allow(clippy::disallowed_methods, clippy::disallowed_types, unsafe_code)]
pub mod load;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod metrics;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod plain_file;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, unsafe_code)]
pub mod source;
