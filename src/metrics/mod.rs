//! The metrics. Only this module knows their names; [`table`] is the one list of them.

mod collect;
pub mod cpu;
pub mod facts;
mod openmetrics;
pub mod page;
mod process;
pub mod table;

pub use cpu::{CpuUsage, OwnProcess};
pub use facts::{Facts, HostFacts, Origin, Source};
pub use page::Pages;
