//! What metrics show besides the counters: the kernel, the sources, the last reload.

use std::sync::Arc;

use super::cpu::OwnProcess;
use crate::check::stats::Stats;
use crate::model::named_enum;

named_enum! {
    /// The parts of the service that must be attached before its verdicts mean anything.
    pub enum Source {
        /// The reader of EVFILT_PROC events.
        Kqueue = "kqueue",
        /// dtrace(1) with our D program.
        Dtrace = "dtrace",
        /// The kernel's fork counters.
        Sysctl = "sysctl",
    }
}

named_enum! {
    /// Where the inputs come from.
    pub enum Origin {
        /// This host's own kernel.
        Live = "live",
        /// A recording of some other kernel, at some other time.
        Replay = "replay",
        /// No kernel at all: a model of one.
        Simulate = "simulate",
    }
}

/// The facts of one moment, as a page shows them.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// Where the inputs come from.
    pub origin: Origin,
    /// Each host that is watched.
    pub hosts: Vec<HostFacts>,
    /// How much processor time each process that watching takes has used, in seconds.
    pub cpu: Vec<(OwnProcess, f64)>,
    /// Where browsers find the exporter; empty without `--web.external-url`.
    pub external_url: String,
    /// Whether the last attempt to load the configuration succeeded.
    pub reload_ok: bool,
    /// When it last succeeded, in seconds since 1970.
    pub reloaded_at: f64,
}

/// One host that is watched.
#[derive(Clone, PartialEq, Debug)]
pub struct HostFacts {
    /// The value of the `host` label. Empty for the host that the exporter runs on: its series have no such label.
    pub name: String,
    /// The kernel's release, `13.2-RELEASE`.
    pub osrelease: String,
    /// The kernel's `__FreeBSD_version`; 0 where it is not known.
    pub osreldate: u32,
    /// Each configured source, and whether it is attached and delivers.
    pub sources: Vec<(Source, bool)>,
    /// Its counters.
    pub stats: Arc<Stats>,
}
