//! The fuzz targets: for any input there is no panic and no endless loop, tables stay bounded, and every fact is counted. Each
//! function takes one input. libFuzzer calls them (`fuzz_targets/`), and tests/recordings/fuzz.rs on a stable compiler.

mod checker;
mod files;
mod http;
mod play;

pub use checker::checker;
pub use files::{config, directory, recording, web_config};
pub use http::http;
pub use play::{stderr, stdout};
