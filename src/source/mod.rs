//! Sources of the pipeline's inputs: a live kernel, recordings. Platform code is here and in `load` only.

pub mod barrier;
mod beginning;
pub(crate) mod clock;
pub mod directory;
pub mod dtrace;
mod inbox;
pub mod keeper;
#[cfg(target_os = "freebsd")]
pub(crate) mod kinfo;
pub mod kqueue;
pub mod live;
mod message;
mod pool;
pub mod replay;
pub(crate) mod signals;
pub mod stop;
pub mod sysctl;
pub mod target;
