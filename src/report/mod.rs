//! Pages and objects made of counters and findings: text, Markdown and HTML for people, JSON for programs. Pure.

pub(crate) mod advice;
pub mod answer;
pub(crate) mod by_name;
pub mod card;
pub mod cost;
pub mod escape;
pub mod evidence;
pub(crate) mod exit_race;
pub mod explain;
pub mod format;
mod html;
pub mod incidents;
pub mod interval;
pub mod kernel;
pub mod page;
pub mod paths;
pub(crate) mod rfc3339;
mod section;
pub mod stress;
pub mod summary;
pub mod table;
pub(crate) mod verdict_filter;
