//! Limits on what clients may cost: time, memory and connections.

use std::time::Duration;

/// Limits on connections and requests.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// How long a client may take from its connection or first byte to the end of a request's header, and for taking
    /// the next piece of a response.
    pub header: Duration,
    /// How long a connection may be silent between requests.
    pub idle: Duration,
    /// Bytes of a request's header.
    pub header_bytes: usize,
    /// Connections at the same time; with one more, the least useful one gives way.
    pub connections: usize,
    /// How long requests may go on after SIGTERM.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            header_bytes: 16 << 10,
            connections: 512,
            drain: Duration::from_secs(5),
        }
    }
}
