//! The one table of metric names. Tests hold the documents, dashboards and alerts against it.

/// The label that says which host a series is about; the exporter's own has none.
pub const HOST: &str = "host";

/// What a metric is to Prometheus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// It only grows, and begins again at 0 when the exporter does.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

impl Type {
    /// As in the `# TYPE` line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        }
    }
}

/// A metric: its name, type, labels and help text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Def {
    /// The name of the family.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The `# HELP` line.
    pub help: &'static str,
}

/// Defines a constant for each metric and [`TABLE`] of them all.
macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(#[doc = $help] pub const $id: Def =
            Def { name: $name, kind: Type::$kind, labels: &[$($label),*], help: $help };)+

        /// Every metric that the exporter has, in the order of the documents.
        pub const TABLE: &[Def] = &[$($id),+];
    };
}

metrics! {
    BIRTHS: Counter "kqproc_births_total" ["tree", "verdict", "host"]
        "Births of processes that kqueue or DTrace reported, by verdict.";
    DEATHS: Counter "kqproc_deaths_total" ["tree", "verdict", "host"]
        "Deaths of processes that kqueue or DTrace reported, by verdict.";
    COLLISIONS: Counter "kqproc_collisions_total" ["tree", "winner", "host"]
        "Kevents with both NOTE_CHILD and NOTE_EXIT, by the value that their data field holds (PR 180385).";
    TRACKERR_REPORTS: Counter "kqproc_trackerr_reports_total" ["tree", "host"]
        "Kevents with NOTE_TRACKERR; each hides one untracked child or more.";
    DUPLICATE_CHILD_NOTES: Counter "kqproc_duplicate_child_notes_total" ["tree", "host"]
        "NOTE_CHILD for a process that had been announced already.";
    ORDER_VIOLATIONS: Counter "kqproc_order_violations_total" ["tree", "kind", "host"]
        "Events in an order that the kernel should not give.";
    TRACKERR_CAUSES: Counter "kqproc_trackerr_causes_total" ["errno", "host"]
        "Failures of kqueue_register inside knote_fork, by errno; needs the cause probes.";
    INFLUX_SKIPS: Counter "kqproc_influx_skips_total" ["host"]
        "Knotes in flux that knote_fork passed over, so that a child went untracked; needs the cause probes.";
    TRACKED_PROCESSES: Gauge "kqproc_tracked_processes" ["tree", "host"]
        "Processes of the tree that kqueue has announced and whose NOTE_EXIT has not come.";
    LOST_PROCESSES: Gauge "kqproc_lost_processes" ["tree", "host"]
        "Live processes of the tree that kqueue has not announced.";
    GHOST_PROCESSES: Gauge "kqproc_ghost_processes" ["tree", "host"]
        "Dead processes of the tree whose NOTE_EXIT did not come, until it does, their pid is used again or their consumer ends.";
    TREE_DAMAGE: Gauge "kqproc_tree_damage" ["tree", "kind", "host"]
        "Processes about which a tracker that relies on every kevent is wrong, by kind, until a late note corrects it, their pid is used again or their consumer ends.";
    STRATEGY_RECOVERED: Counter "kqproc_strategy_recovered_total" ["tree", "strategy", "host"]
        "Facts that a tracker would have got right with this strategy and gets wrong with one kqueue alone.";
    TREE_INFO: Gauge "kqproc_tree_info" ["tree", "mode", "host"]
        "How a tree is watched: as a mirror by the exporter's own kqueue, or as a consumer by DTrace alone; always 1.";
    CONSUMER_UP: Gauge "kqproc_consumer_up" ["tree", "host"]
        "Whether the consumer has a process: 1 or 0.";
    CONSUMER_LAG: Gauge "kqproc_consumer_lag_seconds" ["tree", "host"]
        "For how long the oldest birth or death has waited that the consumer has asked for and not been given, on DTrace's clock; 0 if none waits.";
    CONSUMER_PENDING_FACTS: Gauge "kqproc_consumer_pending_facts" ["tree", "host"]
        "Births and deaths that the consumer has asked for and that it has not been given.";
    CONSUMER_REFUSED: Counter "kqproc_consumer_registrations_refused_total" ["tree", "errno", "host"]
        "Changes of EVFILT_PROC knotes that kevent(2) refused to the consumer, by errno.";
    DELIVERY_LATENCY: Histogram "kqproc_delivery_latency_seconds" ["tree", "note", "host"]
        "Time from DTrace's probe to the return of the kevent(2) call that delivered the note.";
    VERDICT_DELAY: Histogram "kqproc_verdict_delay_seconds" ["host"]
        "Time from a fact to its verdict, on DTrace's clock.";
    KEVENTS: Counter "kqproc_kevents_total" ["note", "host"]
        "Kevents read, by note; one with two notes counts under both.";
    KEVENT_BATCH_SIZE: Histogram "kqproc_kevent_batch_size" ["host"]
        "Kevents that one kevent(2) call returned.";
    DTRACE_RECORDS: Counter "kqproc_dtrace_records_total" ["kind", "host"]
        "Records of the D program, by kind.";
    DTRACE_DROPS: Counter "kqproc_dtrace_drops_total" ["kind", "host"]
        "Drops that dtrace reported, by kind.";
    DTRACE_RESTARTS: Counter "kqproc_dtrace_restarts_total" ["host"]
        "How often dtrace was started again.";
    DECODE_ERRORS: Counter "kqproc_decode_errors_total" ["source", "reason", "host"]
        "Lines of dtrace's output that could not be understood.";
    BLIND_SECONDS: Counter "kqproc_blind_seconds_total" ["witness", "reason", "host"]
        "Time in which a witness may have missed something; facts of that time are undecided.";
    SOURCE_UP: Gauge "kqproc_source_up" ["source", "host"]
        "Whether a source is attached and delivers: 1 or 0.";
    FORK_RECONCILE_DELTA: Gauge "kqproc_fork_reconcile_delta" ["host"]
        "Forks that sysctl vm.stats.vm counted and DTrace did not show.";
    PENDING_FACTS: Gauge "kqproc_pending_facts" ["host"]
        "Births and deaths of all trees that have no verdict yet.";
    TABLE_ENTRIES: Gauge "kqproc_table_entries" ["table", "host"]
        "Entries of a bounded table.";
    TABLE_CAPACITY: Gauge "kqproc_table_capacity" ["table", "host"]
        "Entries that a bounded table can hold; beyond, it drops the oldest for each new one.";
    EVICTIONS: Counter "kqproc_evictions_total" ["table", "reason", "host"]
        "Entries that a full table dropped.";
    KERNEL_INFO: Gauge "kqproc_kernel_info" ["osrelease", "osreldate", "regime", "origin", "host"]
        "The kernel under test, how it delivers NOTE_CHILD and NOTE_EXIT, and whether this is live; always 1.";
    BUILD_INFO: Gauge "kqproc_build_info" ["version", "revision", "os", "arch"]
        "The exporter's build; always 1.";
    SELF_CPU: Counter "kqproc_self_cpu_seconds_total" ["process"]
        "User and system CPU time of what watching takes: the exporter, its keeper, and every dtrace that was run.";
    EXTERNAL_URL_INFO: Gauge "kqproc_external_url_info" ["url"]
        "Where browsers find this exporter, as --web.external-url says; empty without it; always 1.";
    CONFIG_LAST_RELOAD_SUCCESSFUL: Gauge "kqproc_config_last_reload_successful" []
        "Whether the last attempt to load the configuration succeeded: 1 or 0.";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP: Gauge "kqproc_config_last_reload_success_timestamp_seconds" []
        "When the configuration was last loaded with success, in seconds since 1970.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "User and system CPU time that the exporter used.";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" []
        "Open file descriptors of the exporter.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "How many file descriptors the exporter may open.";
    PROCESS_RESIDENT_MEMORY: Gauge "process_resident_memory_bytes" []
        "Resident memory of the exporter.";
    PROCESS_VIRTUAL_MEMORY: Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the exporter.";
    PROCESS_START_TIME: Gauge "process_start_time_seconds" []
        "When the exporter was started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_conventions() {
        for (i, def) in TABLE.iter().enumerate() {
            let name = def.name;
            assert!(name.starts_with("kqproc_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), def.kind == Type::Counter, "{name}");
            assert!(def.help.ends_with('.'), "{name}: help is a sentence");
            assert!(!def.labels.contains(&"pid"), "{name}: no pid in any label");
            assert!(TABLE[..i].iter().all(|other| other.name != name), "{name} is there twice");
        }
    }
}
