//! kqproc_exporter.
fn main() {}
