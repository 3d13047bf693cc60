//! The words of dtrace(1): its records (stdout) against `d-scripts/wire.d`, and its messages (stderr).

pub mod decode;
pub mod drops;
pub mod lines;
pub mod record;
pub mod schema;
