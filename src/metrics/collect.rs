//! Metric families, made from one snapshot of the counters.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::facts::Facts;
use super::process::Process;
use super::table::{self, Def, Type};
use crate::check::damage::Damage;
use crate::check::stats::{
    BlindReason, BoundedTable, ConsumerStats, Fill, Histogram, NoteKind, Order, Refusal, Stats,
    TreeStats,
};
use crate::check::strategies::Strategy;
use crate::model::{Verdict, Winner};
use crate::wire::decode::Reason;
use crate::wire::drops::DropKind;
use crate::wire::record::Kind;

/// Exponents of the latency buckets: 2^17 ns is 131 us, 2^33 ns is 8.6 s.
const SECONDS: std::ops::RangeInclusive<usize> = 17..=33;
/// Exponents of the batch size buckets: up to the largest capacity of a call, 2047.
const SIZES: std::ops::RangeInclusive<usize> = 0..=11;
/// The errnos that kqueue_register can give inside knote_fork (13.2 `kern_event.c:1510,2716`, `filt_procattach`).
const ERRNOS: [(i32, &str); 4] = [(3, "ESRCH"), (9, "EBADF"), (12, "ENOMEM"), (22, "EINVAL")];

/// What one page is made of: read once, so that the page is consistent.
pub(crate) struct Moment {
    pub(crate) stats: Arc<Stats>,
    pub(crate) facts: Facts,
    pub(crate) process: Process,
}

/// Hands a [`Moment`] to a registry.
pub(crate) struct MomentCollector {
    descs: Vec<Desc>,
    moment: Moment,
}

impl MomentCollector {
    pub(crate) fn new(moment: Moment) -> Result<MomentCollector, prometheus::Error> {
        let descs = table::TABLE.iter().map(|def| {
            let labels = def.labels.iter().map(|l| l.to_string()).collect();
            Desc::new(def.name.into(), def.help.into(), labels, Default::default())
        });
        Ok(MomentCollector { descs: descs.collect::<Result<_, _>>()?, moment })
    }
}

impl Collector for MomentCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Moment { stats, facts, process } = &self.moment;
        let mut families = Families(Vec::new());
        verdicts(&mut families, &stats.trees);
        trees(&mut families, &stats.trees);
        consumers(&mut families, &stats.trees);
        causes(&mut families, stats);
        witnesses(&mut families, stats);
        service(&mut families, stats, facts);
        own_process(&mut families, process);
        families.0
    }
}

fn verdicts(out: &mut Families, trees: &[TreeStats]) {
    out.by_tree(table::BIRTHS, trees, Verdict::ALL, |t, v| t.births[v.index()]);
    out.by_tree(table::DEATHS, trees, Verdict::ALL, |t, v| t.deaths[v.index()]);
    out.by_tree(table::COLLISIONS, trees, Winner::ALL, |t, w| t.collisions[w.index()]);
    out.by_tree(table::ORDER_VIOLATIONS, trees, Order::ALL, |t, o| t.order_violations[o.index()]);
}

fn trees(out: &mut Families, trees: &[TreeStats]) {
    out.by_tree(table::TREE_DAMAGE, trees, Damage::ALL, |t, d| t.damage[d.index()]);
    out.by_tree(table::STRATEGY_RECOVERED, trees, Strategy::BETTER, |t, s| t.recovered(s));
    let mut each = |def, value: fn(&TreeStats) -> u64| {
        out.add(def, trees.iter().map(|t| number(def, &[&t.name], value(t) as f64)));
    };
    each(table::TRACKERR_REPORTS, |t| t.trackerr_reports);
    each(table::DUPLICATE_CHILD_NOTES, |t| t.duplicate_child_notes);
    each(table::TRACKED_PROCESSES, |t| t.tracked);
    each(table::LOST_PROCESSES, |t| t.lost_alive);
    each(table::GHOST_PROCESSES, |t| t.ghosts);
    let latency = |t: &TreeStats, note: NoteKind, h: &Histogram| {
        let labels = [t.name.as_str(), note.as_str()];
        histogram(table::DELIVERY_LATENCY, &labels, h, SECONDS, 1e9)
    };
    let latencies = trees.iter().flat_map(|t| {
        [latency(t, NoteKind::Child, &t.child_latency), latency(t, NoteKind::Exit, &t.exit_latency)]
    });
    out.add(table::DELIVERY_LATENCY, latencies);
}

fn consumers(out: &mut Families, trees: &[TreeStats]) {
    let def = table::TREE_INFO;
    out.add(def, trees.iter().map(|t| number(def, &[&t.name, t.mode()], 1.0)));
    let consumers = || trees.iter().filter_map(|t| Some((t.name.as_str(), t.consumer.as_ref()?)));
    let mut each = |def, value: fn(&ConsumerStats) -> f64| {
        out.add(def, consumers().map(|(name, consumer)| number(def, &[name], value(consumer))));
    };
    each(table::CONSUMER_UP, |consumer| f64::from(consumer.pid.is_some()));
    each(table::CONSUMER_LAG, |consumer| consumer.lag_ns as f64 / 1e9);
    each(table::CONSUMER_PENDING_FACTS, |consumer| consumer.undelivered as f64);
    let def = table::CONSUMER_REFUSED;
    let refused = consumers().flat_map(|(name, consumer)| {
        let refused = consumer.refused;
        Refusal::ALL.iter().map(move |refusal| {
            number(def, &[name, refusal.as_str()], refused[refusal.index()] as f64)
        })
    });
    out.add(def, refused);
}

fn causes(out: &mut Families, stats: &Stats) {
    let def = table::TRACKERR_CAUSES;
    let of = |errno: i32| stats.trackerr_causes.get(&errno).copied().unwrap_or(0);
    let named = ERRNOS.iter().map(|&(errno, name)| (name, of(errno)));
    let known: u64 = ERRNOS.iter().map(|&(errno, _)| of(errno)).sum();
    let all: u64 = stats.trackerr_causes.values().sum();
    let counts = named.chain([("other", all - known)]);
    out.add(def, counts.map(|(name, n)| number(def, &[name], n as f64)));
    out.one(table::INFLUX_SKIPS, stats.influx_skips as f64);
}

fn witnesses(out: &mut Families, stats: &Stats) {
    out.by_label(table::KEVENTS, NoteKind::ALL, |n| stats.kevents[n.index()]);
    out.by_label(table::DTRACE_RECORDS, Kind::ALL, |k| stats.records[k.index()]);
    out.by_label(table::DTRACE_DROPS, DropKind::ALL, |k| stats.drops[k.index()]);
    out.one(table::DTRACE_RESTARTS, stats.dtrace_restarts as f64);

    let def = table::DECODE_ERRORS;
    let lines = Reason::ALL.iter().map(|r| ("stdout", r.as_str(), stats.bad_lines[r.index()]));
    let messages = [("stderr", "unknown_message", stats.unknown_messages)];
    out.add(def, lines.chain(messages).map(|(s, r, n)| number(def, &[s, r], n as f64)));

    let def = table::BLIND_SECONDS;
    let blind = [("kqueue", &stats.kqueue_blind_ns), ("dtrace", &stats.dtrace_blind_ns)];
    let blind = blind.iter().flat_map(|(witness, ns)| {
        BlindReason::ALL
            .iter()
            .map(move |r| number(def, &[witness, r.as_str()], ns[r.index()] as f64 / 1e9))
    });
    out.add(def, blind);

    let def = table::EVICTIONS;
    let evictions = BoundedTable::ALL
        .iter()
        .map(|t| number(def, &[t.as_str(), "capacity"], stats.evictions[t.index()] as f64));
    out.add(def, evictions);

    let gauges = |def: Def, of: fn(Fill) -> u64| {
        BoundedTable::ALL
            .iter()
            .map(move |t| number(def, &[t.as_str()], of(stats.tables[t.index()]) as f64))
    };
    out.add(table::TABLE_ENTRIES, gauges(table::TABLE_ENTRIES, |fill| fill.entries));
    out.add(table::TABLE_CAPACITY, gauges(table::TABLE_CAPACITY, |fill| fill.capacity));

    out.one(table::FORK_RECONCILE_DELTA, stats.reconcile_delta as f64);
    out.one(table::PENDING_FACTS, stats.trees.iter().map(|t| t.pending()).sum::<u64>() as f64);
    let size = histogram(table::KEVENT_BATCH_SIZE, &[], &stats.batch_sizes, SIZES, 1.0);
    out.add(table::KEVENT_BATCH_SIZE, [size]);
    let delay = histogram(table::VERDICT_DELAY, &[], &stats.verdict_delay, SECONDS, 1e9);
    out.add(table::VERDICT_DELAY, [delay]);
}

fn service(out: &mut Families, stats: &Stats, facts: &Facts) {
    let def = table::SOURCE_UP;
    let up = facts.sources.iter().map(|(s, up)| number(def, &[s.as_str()], f64::from(*up)));
    out.add(def, up);

    let osreldate = facts.osreldate.to_string();
    let kernel =
        [&facts.osrelease, osreldate.as_str(), stats.regime.as_str(), facts.origin.as_str()];
    out.add(table::KERNEL_INFO, [number(table::KERNEL_INFO, &kernel, 1.0)]);
    let revision = option_env!("KQPROC_REVISION").unwrap_or("unknown");
    let build = [env!("CARGO_PKG_VERSION"), revision, std::env::consts::OS, std::env::consts::ARCH];
    out.add(table::BUILD_INFO, [number(table::BUILD_INFO, &build, 1.0)]);

    let def = table::SELF_CPU;
    let cpu = facts.cpu.iter().map(|(process, seconds)| number(def, &[process.as_str()], *seconds));
    out.add(def, cpu);

    let url = [facts.external_url.as_str()];
    out.add(table::EXTERNAL_URL_INFO, [number(table::EXTERNAL_URL_INFO, &url, 1.0)]);

    out.one(table::CONFIG_LAST_RELOAD_SUCCESSFUL, f64::from(facts.reload_ok));
    out.one(table::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP, facts.reloaded_at);
}

/// A value that the system does not give is left out, as other exporters do.
fn own_process(out: &mut Families, process: &Process) {
    for (def, value) in [
        (table::PROCESS_CPU, process.cpu_seconds),
        (table::PROCESS_OPEN_FDS, process.open_fds),
        (table::PROCESS_MAX_FDS, process.max_fds),
        (table::PROCESS_RESIDENT_MEMORY, process.resident_bytes),
        (table::PROCESS_VIRTUAL_MEMORY, process.virtual_bytes),
        (table::PROCESS_START_TIME, process.start_seconds),
    ] {
        if let Some(value) = value {
            out.one(def, value);
        }
    }
}

struct Families(Vec<MetricFamily>);

impl Families {
    fn add(&mut self, def: Def, metrics: impl IntoIterator<Item = Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(def.name.into());
        family.set_help(def.help.into());
        family.set_field_type(match def.kind {
            Type::Counter => MetricType::COUNTER,
            Type::Gauge => MetricType::GAUGE,
            Type::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics.into_iter().collect());
        self.0.push(family);
    }

    fn one(&mut self, def: Def, value: f64) {
        self.add(def, [number(def, &[], value)]);
    }

    fn by_label<L: Copy + Label>(&mut self, def: Def, values: &[L], value: impl Fn(L) -> u64) {
        self.add(def, values.iter().map(|&v| number(def, &[v.label()], value(v) as f64)));
    }

    fn by_tree<L: Copy + Label>(
        &mut self,
        def: Def,
        trees: &[TreeStats],
        values: &[L],
        value: impl Fn(&TreeStats, L) -> u64,
    ) {
        let mut metrics = Vec::with_capacity(trees.len() * values.len());
        for tree in trees {
            for &label in values {
                metrics.push(number(def, &[&tree.name, label.label()], value(tree, label) as f64));
            }
        }
        self.add(def, metrics);
    }
}

/// The closed sets of label values.
trait Label {
    fn label(self) -> &'static str;
}

macro_rules! label {
    ($($set:ty),+) => { $(impl Label for $set {
        fn label(self) -> &'static str {
            self.as_str()
        }
    })+ };
}
label!(Verdict, Winner, Damage, Strategy, Order, NoteKind, Kind, DropKind);

fn labelled(def: Def, values: &[&str]) -> Metric {
    debug_assert_eq!(def.labels.len(), values.len(), "labels of {}", def.name);
    let pairs = def.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_string());
        pair.set_value(value.to_string());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn number(def: Def, labels: &[&str], value: f64) -> Metric {
    let mut metric = labelled(def, labels);
    if def.kind == Type::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// Bucket `i` of [`Histogram`] counts integers below `2^i`: `le` is the largest of them, in the metric's unit.
fn histogram(
    def: Def,
    labels: &[&str],
    counts: &Histogram,
    exponents: std::ops::RangeInclusive<usize>,
    per_unit: f64,
) -> Metric {
    let mut seen: u64 = counts.buckets[..*exponents.start()].iter().sum();
    let mut buckets = Vec::new();
    for i in exponents {
        seen += counts.buckets[i];
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(((1u64 << i) - 1) as f64 / per_unit);
        bucket.set_cumulative_count(seen);
        buckets.push(bucket);
    }
    let mut histogram = prometheus::proto::Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(counts.count());
    histogram.set_sample_sum(counts.sum as f64 / per_unit);
    let mut metric = labelled(def, labels);
    metric.set_histogram(histogram);
    metric
}
