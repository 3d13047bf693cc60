//! The words of dtrace(1): its records (stdout) against `d-scripts/wire.d`, and its messages (stderr).

pub mod decode;
pub mod drops;
mod fast;
pub mod lines;
pub mod record;
pub mod records;
pub mod schema;
