//! Everything that Prometheus hears. Only this module knows metric names; [`table`] is the one list of them.

mod collect;
pub mod facts;
mod openmetrics;
pub mod page;
mod process;
pub mod table;

pub use facts::{Facts, Origin, Source};
pub use page::{Pages, Rendered};
