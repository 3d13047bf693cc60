//! Which kernel the service reports on, and where its figures come from.

use crate::metrics::{Origin, Source};

/// What is measured, and where.
#[derive(Clone, PartialEq, Debug)]
pub struct About {
    /// Where the inputs come from.
    pub origin: Origin,
    /// The recording's name, or the seed; empty when live.
    pub detail: String,
    /// The kernel's release, `13.2-RELEASE`.
    pub osrelease: String,
    /// Its `__FreeBSD_version`; 0 if it is not known.
    pub osreldate: u32,
    /// The sources that must have delivered something before the service is ready.
    pub sources: Vec<Source>,
}
