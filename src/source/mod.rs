//! Sources of the pipeline's inputs: a live kernel, recordings. Platform code is here and in `load` only.

#[cfg(unix)]
pub mod barrier;
#[cfg(unix)]
pub(crate) mod clock;
pub mod directory;
#[cfg(unix)]
pub mod dtrace;
#[cfg(unix)]
mod inbox;
#[cfg(unix)]
pub mod keeper;
#[cfg(target_os = "freebsd")]
pub(crate) mod kinfo;
#[cfg(unix)]
pub mod kqueue;
#[cfg(unix)]
pub mod live;
#[cfg(unix)]
mod message;
#[cfg(unix)]
mod pool;
pub mod replay;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
pub mod stop;
#[cfg(unix)]
pub mod sysctl;
#[cfg(unix)]
pub mod target;
