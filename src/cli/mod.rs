//! The command line: flags in the form that every Prometheus exporter has them.

pub mod web_args;
