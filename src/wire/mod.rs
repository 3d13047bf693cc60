//! The decoder of dtrace(1)'s output: its records (stdout), as `d-scripts/wire.d` defines them, and its messages (stderr).

pub mod decode;
pub mod drops;
mod fast;
pub mod lines;
pub mod record;
pub mod records;
pub mod schema;
