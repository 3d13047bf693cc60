//! Metric families, made from one snapshot of the counters.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::facts::{Facts, HostFacts, Source};
use super::process::ProcessUsage;
use super::table::{self, Def, HOST, Type};
use crate::check::damage::Damage;
use crate::check::stats::{
    BlindReason, BoundedTable, ConsumerStats, Fill, Histogram, NoteKind, Order, Refusal, Stats,
    TreeStats,
};
use crate::check::strategies::Strategy;
use crate::model::{Named, Verdict, Winner};
use crate::wire::decode::Reason;
use crate::wire::drops::DropKind;
use crate::wire::record::Kind;

/// Exponents of the latency buckets: 2^17 ns is 131 us, 2^33 ns is 8.6 s.
const SECONDS: std::ops::RangeInclusive<usize> = 17..=33;
/// Exponents of the batch size buckets: up to the `nevents` of a call: 1024, or 2047 in old recordings.
const SIZES: std::ops::RangeInclusive<usize> = 0..=11;
/// The errnos that kqueue_register can give inside knote_fork (13.2 `kern_event.c:1510,2716`, `filt_procattach`).
const ERRNOS: [(i32, &str); 4] = [(3, "ESRCH"), (9, "EBADF"), (12, "ENOMEM"), (22, "EINVAL")];

/// What one page is made of: read once, so that the page is consistent.
pub(crate) struct Moment {
    pub(crate) facts: Facts,
    pub(crate) process: ProcessUsage,
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
        let Moment { facts, process } = &self.moment;
        let mut families = Families { hosts: &facts.hosts, families: Vec::new() };
        verdicts(&mut families);
        trees(&mut families);
        consumers(&mut families);
        causes(&mut families);
        witnesses(&mut families);
        service(&mut families, facts);
        own_process(&mut families, process);
        families.families
    }
}

fn verdicts(out: &mut Families<'_>) {
    out.by_tree(table::BIRTHS, Verdict::ALL, |t, v| t.births[v.index()]);
    out.by_tree(table::DEATHS, Verdict::ALL, |t, v| t.deaths[v.index()]);
    out.by_tree(table::COLLISIONS, Winner::ALL, |t, w| t.collisions[w.index()]);
    out.by_tree(table::ORDER_VIOLATIONS, Order::ALL, |t, o| t.order_violations[o.index()]);
}

fn trees(out: &mut Families<'_>) {
    out.by_tree(table::TREE_DAMAGE, Damage::ALL, |t, d| t.damage[d.index()]);
    out.by_tree(table::STRATEGY_RECOVERED, Strategy::BETTER, |t, s| t.recovered(s));
    let mut each = |def: Def, value: fn(&TreeStats) -> u64| {
        out.by_host(def, |host| {
            let trees = host.stats.trees.iter();
            trees.map(|t| number(def, &[&t.name, &host.name], value(t) as f64)).collect()
        });
    };
    each(table::TRACKERR_REPORTS, |t| t.trackerr_reports);
    each(table::DUPLICATE_CHILD_NOTES, |t| t.duplicate_child_notes);
    each(table::TRACKED_PROCESSES, |t| t.tracked);
    each(table::LOST_PROCESSES, |t| t.lost_alive);
    each(table::GHOST_PROCESSES, |t| t.ghosts);
    out.by_host(table::DELIVERY_LATENCY, |host| {
        let latency = |t: &TreeStats, note: NoteKind, h: &Histogram| {
            let labels = [t.name.as_str(), note.as_str(), &host.name];
            histogram(table::DELIVERY_LATENCY, &labels, h, SECONDS, 1e9)
        };
        let trees = host.stats.trees.iter().flat_map(|t| {
            [
                latency(t, NoteKind::Child, &t.child_latency),
                latency(t, NoteKind::Exit, &t.exit_latency),
            ]
        });
        trees.collect()
    });
}

fn consumers(out: &mut Families<'_>) {
    out.by_host(table::TREE_INFO, |host| {
        let info = |t: &TreeStats| number(table::TREE_INFO, &[&t.name, t.mode(), &host.name], 1.0);
        host.stats.trees.iter().map(info).collect()
    });
    let mut each = |def: Def, value: fn(&ConsumerStats) -> f64| {
        out.by_host(def, |host| {
            let one = |t: &TreeStats| {
                let value = value(t.consumer.as_ref()?);
                Some(number(def, &[&t.name, &host.name], value))
            };
            host.stats.trees.iter().filter_map(one).collect()
        });
    };
    each(table::CONSUMER_UP, |consumer| f64::from(consumer.pid.is_some()));
    each(table::CONSUMER_LAG, |consumer| consumer.lag_ns as f64 / 1e9);
    each(table::CONSUMER_PENDING_FACTS, |consumer| consumer.undelivered as f64);
    let def = table::CONSUMER_REFUSED;
    out.by_host(def, |host| {
        let consumers =
            host.stats.trees.iter().filter_map(|t| Some((&t.name, t.consumer.as_ref()?)));
        let refused = consumers.flat_map(|(name, consumer)| {
            Refusal::ALL.iter().map(move |refusal| {
                let labels = [name.as_str(), refusal.as_str(), &host.name];
                number(def, &labels, consumer.refused[refusal.index()] as f64)
            })
        });
        refused.collect()
    });
}

fn causes(out: &mut Families<'_>) {
    out.by_labels(table::TRACKERR_CAUSES, |stats| {
        let of = |errno: i32| stats.trackerr_causes.get(&errno).copied().unwrap_or(0);
        let named = ERRNOS.iter().map(|&(errno, name)| ([name], of(errno) as f64));
        let known: u64 = ERRNOS.iter().map(|&(errno, _)| of(errno)).sum();
        let all: u64 = stats.trackerr_causes.values().sum();
        named.chain([(["other"], (all - known) as f64)]).collect()
    });
    out.one_a_host(table::INFLUX_SKIPS, |stats| stats.influx_skips as f64);
}

fn witnesses(out: &mut Families<'_>) {
    out.by_label(table::KEVENTS, NoteKind::ALL, |stats, n| stats.kevents[n.index()]);
    out.by_label(table::DTRACE_RECORDS, Kind::ALL, |stats, k| stats.records[k.index()]);
    out.by_label(table::DTRACE_DROPS, DropKind::ALL, |stats, k| stats.drops[k.index()]);
    out.one_a_host(table::DTRACE_RESTARTS, |stats| stats.dtrace_restarts as f64);
    out.by_labels(table::DECODE_ERRORS, |stats| {
        let lines =
            Reason::ALL.iter().map(|r| (["stdout", r.as_str()], stats.bad_lines[r.index()] as f64));
        let messages = (["stderr", "unknown_message"], stats.unknown_messages as f64);
        lines.chain([messages]).collect()
    });
    out.by_labels(table::BLIND_SECONDS, |stats| {
        let blind = [("kqueue", &stats.kqueue_blind_ns), ("dtrace", &stats.dtrace_blind_ns)];
        let seconds = |ns: &[u64], r: &BlindReason| ns[r.index()] as f64 / 1e9;
        let of = |(witness, ns): (_, &[u64; BlindReason::COUNT])| {
            let each = BlindReason::ALL.iter().map(|r| ([witness, r.as_str()], seconds(ns, r)));
            each.collect::<Vec<_>>()
        };
        blind.into_iter().flat_map(of).collect()
    });
    out.by_labels(table::EVICTIONS, |stats| {
        let evicted = |t: &BoundedTable| stats.evictions[t.index()] as f64;
        BoundedTable::ALL.iter().map(|t| ([t.as_str(), "capacity"], evicted(t))).collect()
    });
    let mut gauges = |def: Def, of: fn(Fill) -> u64| {
        out.by_label(def, BoundedTable::ALL, |stats, t| of(stats.tables[t.index()]));
    };
    gauges(table::TABLE_ENTRIES, |fill| fill.entries);
    gauges(table::TABLE_CAPACITY, |fill| fill.capacity);
    out.by_host(table::FORK_RECONCILE_DELTA, |host| {
        // Without a kqueue of our own no mark tells when the counters were read, and another host's are not read at all.
        let is_off = host.sources.iter().all(|(source, _)| *source == Source::Dtrace);
        let delta = host.stats.reconcile_delta as f64;
        let series = || number(table::FORK_RECONCILE_DELTA, &[&host.name], delta);
        (!is_off || host.sources.is_empty()).then(series).into_iter().collect()
    });
    let pending = |stats: &Stats| stats.trees.iter().map(TreeStats::pending).sum::<u64>() as f64;
    out.one_a_host(table::PENDING_FACTS, pending);
    out.by_host(table::KEVENT_BATCH_SIZE, |host| {
        let sizes = &host.stats.batch_sizes;
        vec![histogram(table::KEVENT_BATCH_SIZE, &[&host.name], sizes, SIZES, 1.0)]
    });
    out.by_host(table::VERDICT_DELAY, |host| {
        let delay = &host.stats.verdict_delay;
        vec![histogram(table::VERDICT_DELAY, &[&host.name], delay, SECONDS, 1e9)]
    });
}

fn service(out: &mut Families<'_>, facts: &Facts) {
    out.by_host(table::SOURCE_UP, |host| {
        let up = |(s, up): &(Source, bool)| {
            number(table::SOURCE_UP, &[s.as_str(), &host.name], f64::from(*up))
        };
        host.sources.iter().map(up).collect()
    });
    out.by_host(table::KERNEL_INFO, |host| {
        let osreldate = host.osreldate.to_string();
        let (regime, origin) = (host.stats.regime.as_str(), facts.origin.as_str());
        let kernel = [&host.osrelease, osreldate.as_str(), regime, origin, &host.name];
        vec![number(table::KERNEL_INFO, &kernel, 1.0)]
    });
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
fn own_process(out: &mut Families<'_>, process: &ProcessUsage) {
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

struct Families<'a> {
    hosts: &'a [HostFacts],
    families: Vec<MetricFamily>,
}

impl Families<'_> {
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
        self.families.push(family);
    }

    fn one(&mut self, def: Def, value: f64) {
        self.add(def, [number(def, &[], value)]);
    }

    fn by_host(&mut self, def: Def, metrics: impl Fn(&HostFacts) -> Vec<Metric>) {
        self.add(def, self.hosts.iter().flat_map(metrics));
    }

    fn one_a_host(&mut self, def: Def, value: impl Fn(&Stats) -> f64) {
        self.by_host(def, |host| vec![number(def, &[&host.name], value(&host.stats))]);
    }

    /// A metric with `N` labels besides the host's.
    fn by_labels<'w, const N: usize>(
        &mut self,
        def: Def,
        values: impl Fn(&Stats) -> Vec<([&'w str; N], f64)>,
    ) {
        self.by_host(def, |host| {
            let metric = |(labels, value): ([&str; N], f64)| {
                let labels: Vec<&str> = labels.into_iter().chain([host.name.as_str()]).collect();
                number(def, &labels, value)
            };
            values(&host.stats).into_iter().map(metric).collect()
        });
    }

    fn by_label<L: Named>(&mut self, def: Def, labels: &[L], value: impl Fn(&Stats, L) -> u64) {
        self.by_labels(def, |stats| {
            labels.iter().map(|&l| ([l.name()], value(stats, l) as f64)).collect()
        });
    }

    fn by_tree<L: Named>(&mut self, def: Def, labels: &[L], value: impl Fn(&TreeStats, L) -> u64) {
        self.by_host(def, |host| {
            let trees = &host.stats.trees;
            let mut metrics = Vec::with_capacity(trees.len() * labels.len());
            for tree in trees {
                for &label in labels {
                    let labels = [tree.name.as_str(), label.name(), &host.name];
                    metrics.push(number(def, &labels, value(tree, label) as f64));
                }
            }
            metrics
        });
    }
}

/// The label `host` is left out where it is empty. To Prometheus that is the same, and a host without remotes has the
/// series that it always had.
fn labelled(def: Def, values: &[&str]) -> Metric {
    debug_assert_eq!(def.labels.len(), values.len(), "labels of {}", def.name);
    let labels = def.labels.iter().zip(values);
    let pairs =
        labels.filter(|(name, value)| **name != HOST || !value.is_empty()).map(|(name, value)| {
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
