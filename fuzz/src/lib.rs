//! What must hold for any bytes at all: no panic, no loop without end, no table without bound, every fact accounted for.
//! Each function takes one input. libFuzzer calls them (`fuzz_targets/`), and so does tests/recordings/fuzz.rs on a stable compiler.

mod checker;
mod files;
mod http;
mod play;

pub use checker::checker;
pub use files::{config, directory, recording, web_config};
pub use http::http;
pub use play::{stderr, stdout};
