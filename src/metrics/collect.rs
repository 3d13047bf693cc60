//! Metric families, made from one snapshot of the counters.

use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::facts::{Facts, HostFacts, Source};
use super::process::ProcessUsage;
use super::table::{self, Def, HOST, Type};
use crate::check::damage::Damage;
use crate::check::stats::{
    BlindReason, BoundedTable, ConsumerStats, Histogram, NoteKind, Order, Refusal, Stats, TreeStats,
};
use crate::check::strategies::Strategy;
use crate::model::{Named, Verdict, Winner};
use crate::wire::decode::Reason;
use crate::wire::drops::DropKind;
use crate::wire::record::Kind;

/// Which buckets of a [`Histogram`] are shown, and how many of its integers are one unit of the metric.
struct Scale {
    exponents: std::ops::RangeInclusive<usize>,
    per_unit: f64,
}

/// Nanoseconds as seconds, from 2^17 ns, which is 131 us, to 2^33 ns, which is 8.6 s.
const SECONDS: Scale = Scale { exponents: 17..=33, per_unit: 1e9 };
/// Up to the `nevents` of a call: 1024, or 2047 in old recordings.
const SIZES: Scale = Scale { exponents: 0..=11, per_unit: 1.0 };
/// The errnos that kqueue_register can give inside knote_fork (13.2 `kern_event.c:1510,2716`, `filt_procattach`).
const ERRNOS: [(i32, &str); 4] = [(3, "ESRCH"), (9, "EBADF"), (12, "ENOMEM"), (22, "EINVAL")];

/// The families of a page, by their names and without those that are empty; within a family, by the values of the labels.
pub(super) fn families(facts: &Facts, process: &ProcessUsage) -> Vec<MetricFamily> {
    let mut out = Families { hosts: &facts.hosts, families: Vec::new() };
    verdicts(&mut out);
    trees(&mut out);
    consumers(&mut out);
    causes(&mut out);
    witnesses(&mut out);
    service(&mut out, facts);
    own_process(&mut out, process);
    let mut families = out.families;
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    families
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
    out.one_a_tree(table::TRACKERR_REPORTS, |t| t.trackerr_reports);
    out.one_a_tree(table::DUPLICATE_CHILD_NOTES, |t| t.duplicate_child_notes);
    out.one_a_tree(table::TRACKED_PROCESSES, |t| t.tracked);
    out.one_a_tree(table::LOST_PROCESSES, |t| t.lost_alive);
    out.one_a_tree(table::GHOST_PROCESSES, |t| t.ghosts());
    out.histograms(table::DELIVERY_LATENCY, SECONDS, |host| {
        host.stats.trees.iter().flat_map(|t| {
            let latency = |note: NoteKind, h| ([t.name.as_str(), note.as_str()], h);
            [latency(NoteKind::Child, &t.child_latency), latency(NoteKind::Exit, &t.exit_latency)]
        })
    });
}

fn consumers(out: &mut Families<'_>) {
    out.by_labels(table::TREE_INFO, |host| {
        host.stats.trees.iter().map(|t| ([t.name.as_str(), t.mode()], 1.0))
    });
    out.one_a_consumer(table::CONSUMER_UP, |consumer| f64::from(consumer.pid.is_some()));
    out.one_a_consumer(table::CONSUMER_LAG, |consumer| consumer.lag_ns as f64 / 1e9);
    out.one_a_consumer(table::CONSUMER_PENDING_FACTS, |consumer| consumer.undelivered as f64);
    out.by_labels(table::CONSUMER_REFUSED, |host| {
        of_consumers(host).flat_map(|(name, consumer)| {
            Refusal::ALL.iter().map(move |refusal| {
                ([name, refusal.as_str()], consumer.refused[refusal.index()] as f64)
            })
        })
    });
}

/// The trees that are consumers, by their names.
fn of_consumers(host: &HostFacts) -> impl Iterator<Item = (&str, &ConsumerStats)> {
    host.stats.trees.iter().filter_map(|t| Some((t.name.as_str(), t.consumer.as_ref()?)))
}

fn causes(out: &mut Families<'_>) {
    out.by_labels(table::TRACKERR_CAUSES, |host| {
        let causes = &host.stats.trackerr_causes;
        let of = |errno: i32| causes.get(&errno).copied().unwrap_or(0);
        let known: u64 = ERRNOS.iter().map(|&(errno, _)| of(errno)).sum();
        let other = causes.values().sum::<u64>() - known;
        let named = ERRNOS.map(|(errno, name)| ([name], of(errno) as f64));
        named.into_iter().chain([(["other"], other as f64)])
    });
    out.one_a_host(table::INFLUX_SKIPS, |stats| stats.influx_skips as f64);
}

fn witnesses(out: &mut Families<'_>) {
    out.by_label(table::KEVENTS, NoteKind::ALL, |stats, n| stats.kevents[n.index()]);
    out.by_label(table::DTRACE_RECORDS, Kind::ALL, |stats, k| stats.records[k.index()]);
    out.by_label(table::DTRACE_DROPS, DropKind::ALL, |stats, k| stats.drops[k.index()]);
    out.one_a_host(table::DTRACE_RESTARTS, |stats| stats.dtrace_restarts as f64);
    out.by_labels(table::DECODE_ERRORS, |host| {
        let bad_lines = |r: &Reason| host.stats.bad_lines[r.index()] as f64;
        let lines = Reason::ALL.iter().map(move |r| (["stdout", r.as_str()], bad_lines(r)));
        lines.chain([(["stderr", "unknown_message"], host.stats.unknown_messages as f64)])
    });
    out.by_labels(table::BLIND_SECONDS, |host| {
        let stats = &host.stats;
        let blind = [("kqueue", &stats.kqueue_blind_ns), ("dtrace", &stats.dtrace_blind_ns)];
        blind.into_iter().flat_map(|(witness, ns)| {
            let seconds = |r: &BlindReason| ns[r.index()] as f64 / 1e9;
            BlindReason::ALL.iter().map(move |r| ([witness, r.as_str()], seconds(r)))
        })
    });
    out.by_labels(table::EVICTIONS, |host| {
        let evicted = |t: &BoundedTable| host.stats.evictions[t.index()] as f64;
        BoundedTable::ALL.iter().map(move |t| ([t.as_str(), "capacity"], evicted(t)))
    });
    out.by_label(table::TABLE_ENTRIES, BoundedTable::ALL, |s, t| s.tables[t.index()].entries);
    out.by_label(table::TABLE_CAPACITY, BoundedTable::ALL, |s, t| s.tables[t.index()].capacity);
    out.by_labels(table::FORK_RECONCILE_DELTA, |host| {
        // Without a kqueue of our own no mark tells when the counters were read, and another host's are not read at all.
        let is_off = host.sources.iter().all(|(source, _)| *source == Source::Dtrace);
        let is_shown = !is_off || host.sources.is_empty();
        is_shown.then_some(([], host.stats.reconcile_delta as f64))
    });
    let pending = |stats: &Stats| stats.trees.iter().map(TreeStats::pending).sum::<u64>() as f64;
    out.one_a_host(table::PENDING_FACTS, pending);
    out.histograms(table::KEVENT_BATCH_SIZE, SIZES, |host| [([], &host.stats.batch_sizes)]);
    out.histograms(table::VERDICT_DELAY, SECONDS, |host| [([], &host.stats.verdict_delay)]);
}

fn service(out: &mut Families<'_>, facts: &Facts) {
    out.by_labels(table::SOURCE_UP, |host| {
        host.sources.iter().map(|(source, up)| ([source.as_str()], f64::from(*up)))
    });
    let kernels = facts.hosts.iter().map(|host| {
        let osreldate = host.osreldate.to_string();
        let (regime, origin) = (host.stats.regime.as_str(), facts.origin.as_str());
        let kernel = [&host.osrelease, osreldate.as_str(), regime, origin, &host.name];
        number(table::KERNEL_INFO, &kernel, 1.0)
    });
    out.add(table::KERNEL_INFO, kernels);
    let revision = option_env!("KQPROC_REVISION").unwrap_or("unknown");
    let build = [env!("CARGO_PKG_VERSION"), revision, std::env::consts::OS, std::env::consts::ARCH];
    out.add(table::BUILD_INFO, [number(table::BUILD_INFO, &build, 1.0)]);

    let cpu = facts.cpu.iter();
    let cpu = cpu.map(|(process, seconds)| number(table::SELF_CPU, &[process.as_str()], *seconds));
    out.add(table::SELF_CPU, cpu);

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

/// The families of a page, as far as they are made.
struct Families<'a> {
    hosts: &'a [HostFacts],
    families: Vec<MetricFamily>,
}

impl<'a> Families<'a> {
    fn add(&mut self, def: Def, metrics: impl IntoIterator<Item = Metric>) {
        fn values(metric: &Metric) -> impl Iterator<Item = &str> {
            metric.get_label().iter().map(LabelPair::value)
        }
        let mut metrics: Vec<Metric> = metrics.into_iter().collect();
        // This host's series, which have no label `host`, come first.
        let labels = |metric: &Metric| metric.get_label().len();
        metrics.sort_by(|a, b| labels(a).cmp(&labels(b)).then(values(a).cmp(values(b))));
        let mut family = MetricFamily::default();
        family.set_name(def.name.into());
        family.set_help(def.help.into());
        family.set_field_type(match def.kind {
            Type::Counter => MetricType::COUNTER,
            Type::Gauge => MetricType::GAUGE,
            Type::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        self.families.push(family);
    }

    fn one(&mut self, def: Def, value: f64) {
        self.add(def, [number(def, &[], value)]);
    }

    /// A metric with `N` labels besides the host's, of what each host has.
    fn of_hosts<const N: usize, T, V: IntoIterator<Item = ([&'a str; N], T)>>(
        &mut self,
        def: Def,
        values: impl Fn(&'a HostFacts) -> V,
        metric: impl Fn(Def, &[&str], T) -> Metric,
    ) {
        let mut metrics = Vec::new();
        for host in self.hosts {
            for (labels, value) in values(host) {
                let labels: Vec<&str> = labels.into_iter().chain([host.name.as_str()]).collect();
                metrics.push(metric(def, &labels, value));
            }
        }
        self.add(def, metrics);
    }

    fn by_labels<const N: usize, V: IntoIterator<Item = ([&'a str; N], f64)>>(
        &mut self,
        def: Def,
        values: impl Fn(&'a HostFacts) -> V,
    ) {
        self.of_hosts(def, values, number);
    }

    fn histograms<const N: usize, V: IntoIterator<Item = ([&'a str; N], &'a Histogram)>>(
        &mut self,
        def: Def,
        scale: Scale,
        values: impl Fn(&'a HostFacts) -> V,
    ) {
        self.of_hosts(def, values, |def, labels, counts| histogram(def, labels, counts, &scale));
    }

    fn one_a_host(&mut self, def: Def, value: impl Fn(&Stats) -> f64) {
        self.by_labels(def, |host| [([], value(&host.stats))]);
    }

    fn one_a_tree(&mut self, def: Def, value: impl Fn(&TreeStats) -> u64) {
        self.by_labels(def, |host| {
            host.stats.trees.iter().map(|t| ([t.name.as_str()], value(t) as f64))
        });
    }

    fn one_a_consumer(&mut self, def: Def, value: impl Fn(&ConsumerStats) -> f64) {
        self.by_labels(def, |host| {
            of_consumers(host).map(|(name, consumer)| ([name], value(consumer)))
        });
    }

    fn by_label<L: Named>(&mut self, def: Def, labels: &[L], value: impl Fn(&Stats, L) -> u64) {
        self.by_labels(def, |host| {
            labels.iter().map(|&l| ([l.name()], value(&host.stats, l) as f64))
        });
    }

    fn by_tree<L: Named>(&mut self, def: Def, labels: &[L], value: impl Fn(&TreeStats, L) -> u64) {
        self.by_labels(def, |host| {
            host.stats.trees.iter().flat_map(|t| {
                labels.iter().map(|&l| ([t.name.as_str(), l.name()], value(t, l) as f64))
            })
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
fn histogram(def: Def, labels: &[&str], counts: &Histogram, scale: &Scale) -> Metric {
    let Scale { exponents, per_unit } = scale;
    let mut seen: u64 = counts.buckets[..*exponents.start()].iter().sum();
    let mut buckets = Vec::new();
    for i in exponents.clone() {
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
