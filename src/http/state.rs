//! What the service shows: published by the ingest, read by every request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::about::About;
use super::history::{History, Sample};
use super::incidents::Incidents;
use super::pages::status::{self, StatusPage};
use super::snapshot::Snapshot;
use crate::check::stats::Stats;
use crate::metrics::page::{MetricsError, Pages, Rendered};
use crate::metrics::{CpuUsage, Facts, HostFacts, Source};

/// A handle on what the service shows. Clones share it.
#[derive(Clone)]
pub struct State(Arc<StateInner>);

struct StateInner {
    about: About,
    /// Locked only to copy a pointer, so neither side waits for the other.
    snapshot: RwLock<Arc<Snapshot>>,
    /// The figures by part, for the ingest alone.
    parts: Mutex<Vec<Arc<Stats>>>,
    pages: Pages,
    incidents: Incidents,
    history: History,
    /// One for each part, or a single one for all parts.
    hosts: Vec<Host>,
    reload: Mutex<Reload>,
    reloader: OnceLock<Box<Reloader>>,
    external_url: OnceLock<String>,
    cpu: CpuUsage,
}

/// A host that is watched.
struct Host {
    /// Empty for the one that the exporter runs on.
    name: String,
    /// What it is to deliver.
    awaited: Vec<Source>,
    delivers: [Delivery; Source::COUNT],
    kernel: Mutex<HostKernel>,
}

/// Whether a source delivers.
#[derive(Default)]
struct Delivery {
    now: AtomicBool,
    /// Now, or before.
    ever: AtomicBool,
}

/// The kernel of a host, once it is known.
#[derive(Default)]
struct HostKernel {
    osrelease: String,
    /// Its `__FreeBSD_version`.
    osreldate: u32,
}

type Reloader = dyn Fn() -> Result<(), String> + Send + Sync;

/// The outcome of the last reloads, as `config_last_reload_*` show it.
struct Reload {
    /// Whether the last attempt for the configuration file succeeded.
    config: bool,
    /// The same for the web configuration, which is also loaded by itself when its files change.
    web: bool,
    /// When one of them last succeeded, in seconds since 1970.
    at: f64,
}

/// How long a page waits for the processor time of the keeper and of dtrace(1).
const KEEPER_PATIENCE: Duration = Duration::from_millis(200);

impl State {
    /// A service that has nothing to show yet. Its configuration has been loaded just now.
    pub fn new(about: About) -> State {
        let this = Host::this(&about);
        State::of_hosts(about, vec![this])
    }

    /// The same for this host, if it `watches_this`, and for others by their names: each is a part, in this order.
    pub(crate) fn with_remotes(about: About, watches_this: bool, names: Vec<String>) -> State {
        let this = watches_this.then(|| Host::this(&about));
        let hosts = this.into_iter().chain(names.into_iter().map(Host::remote)).collect();
        State::of_hosts(about, hosts)
    }

    fn of_hosts(about: About, hosts: Vec<Host>) -> State {
        State(Arc::new(StateInner {
            about,
            hosts,
            snapshot: RwLock::default(),
            parts: Mutex::default(),
            pages: Pages::default(),
            incidents: Incidents::default(),
            history: History::default(),
            reload: Mutex::new(Reload { config: true, web: true, at: now() }),
            reloader: OnceLock::new(),
            external_url: OnceLock::new(),
            cpu: CpuUsage::default(),
        }))
    }

    /// What is measured.
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// From now on shows `stats` of the kernel with the number `part`, from 0.
    pub fn publish(&self, part: usize, stats: Stats) {
        let mut parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.len() <= part {
            parts.resize_with(part + 1, Arc::default);
        }
        if let Some(place) = parts.get_mut(part) {
            *place = Arc::new(stats);
        }
        let snapshot = Arc::new(Snapshot::of(parts.clone()));
        let old = {
            let mut current = self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, snapshot)
        };
        drop(old);
    }

    /// What was published last.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.snapshot().total)
    }

    /// The same, by part.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets what `kqproc_external_url_info` says. Only the first call counts.
    pub(super) fn set_external_url(&self, url: Option<&str>) {
        self.0.external_url.get_or_init(|| url.unwrap_or_default().to_owned());
    }

    /// The sink for findings: an [`Observer`](crate::check::finding::Observer) for the pipeline.
    pub fn incidents(&self) -> Incidents {
        self.0.incidents.clone()
    }

    /// The same for what [`State::publish`] shows as number `part`.
    pub(crate) fn incidents_of_part(&self, part: usize) -> Incidents {
        self.0.incidents.of_part(part)
    }

    /// Keeps the totals of this time for the status page's hour.
    pub(super) fn sample(&self) {
        self.0.history.add(Sample::of(&self.stats(), Instant::now()));
    }

    /// The status page, of now.
    pub(super) fn status_page(&self, telemetry_path: &str) -> String {
        let snapshot = self.snapshot();
        let status = StatusPage {
            about: self.about(),
            telemetry_path,
            snapshot: &snapshot,
            stats: &snapshot.total,
            hour: self.0.history.hour(Sample::of(&snapshot.total, Instant::now())),
            down: self.down(),
            cpu: self.cpu(),
            incidents: self.0.incidents.latest(status::LISTED, |_| true),
            skipped: self.0.incidents.skipped(),
        };
        status.html()
    }

    /// The configured sources that do not deliver: `dtrace`, or `dtrace of HOST`.
    fn down(&self) -> Vec<String> {
        let of_host = |host| {
            let down = Host::sources(host).into_iter().filter(|(_, is_up)| !is_up);
            down.map(move |(source, _)| match host.name.as_str() {
                "" => source.to_string(),
                name => format!("{source} of {name}"),
            })
        };
        self.0.hosts.iter().flat_map(of_host).collect()
    }

    /// What watching costs.
    pub fn cpu(&self) -> &CpuUsage {
        &self.0.cpu
    }

    /// Reads what watching costs, for the page that is made next. A keeper that does not answer is not waited for.
    pub(super) async fn read_cpu(&self) {
        let state = self.clone();
        let read = tokio::task::spawn_blocking(move || state.cpu().read());
        // What was read before is shown then.
        let _ = tokio::time::timeout(KEEPER_PATIENCE, read).await;
    }

    /// Sets whether a source of a part is attached and delivers.
    pub fn set_source(&self, part: usize, source: Source, up: bool) {
        let Some(host) = self.host(part) else { return };
        let Delivery { now, ever } = &host.delivers[source.index()];
        now.store(up, Ordering::Relaxed);
        ever.fetch_or(up, Ordering::Relaxed);
    }

    /// Sets which kernel a part is about.
    pub(crate) fn set_kernel(&self, part: usize, osrelease: String, osreldate: u32) {
        if let Some(host) = self.host(part) {
            let mut kernel = host.kernel.lock().unwrap_or_else(PoisonError::into_inner);
            *kernel = HostKernel { osrelease, osreldate };
        }
    }

    /// The host of a part.
    fn host(&self, part: usize) -> Option<&Host> {
        match self.0.hosts.as_slice() {
            [only] => Some(only),
            several => several.get(part),
        }
    }

    /// The configured sources that have never delivered anything, from any host: none once the service is ready. A source
    /// that goes away later is shown by `source_up` and does not make the service unready.
    pub(crate) fn awaited(&self) -> Vec<Source> {
        let hosts = &self.0.hosts;
        let is_awaited = |s: &Source| hosts.iter().any(|host| host.awaited.contains(s));
        let has_delivered = |s: &Source| {
            hosts.iter().any(|host| host.delivers[s.index()].ever.load(Ordering::Relaxed))
        };
        Source::ALL.iter().copied().filter(|s| is_awaited(s) && !has_delivered(s)).collect()
    }

    /// What `/-/reload` and SIGHUP do. Only the first one given counts.
    pub fn on_reload(&self, reload: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        let _ = self.0.reloader.set(Box::new(reload));
    }

    /// Loads the configuration file again. Blocks: not for an async worker.
    ///
    /// # Errors
    /// It cannot be taken up: what is in force is kept.
    pub(super) fn reload_config(&self) -> Result<(), String> {
        let done = self.0.reloader.get().map_or(Ok(()), |reload| reload());
        self.reloaded(&done, |last| &mut last.config);
        done
    }

    /// Keeps the outcome of a reload of the web configuration.
    pub(super) fn web_reloaded(&self, done: &Result<(), String>) {
        self.reloaded(done, |last| &mut last.web);
    }

    fn reloaded(&self, done: &Result<(), String>, part: fn(&mut Reload) -> &mut bool) {
        let mut last = self.0.reload.lock().unwrap_or_else(PoisonError::into_inner);
        *part(&mut last) = done.is_ok();
        if done.is_ok() {
            last.at = now();
        }
    }

    /// The encoded page of what was published last.
    pub(crate) fn page(&self) -> Result<Arc<Rendered>, MetricsError> {
        let snapshot = self.snapshot();
        self.0.pages.get(&snapshot.total, || self.facts(&snapshot))
    }

    fn facts(&self, snapshot: &Snapshot) -> Facts {
        let reload = self.0.reload.lock().unwrap_or_else(PoisonError::into_inner);
        let host = |(i, host): (usize, &Host)| {
            let kernel = host.kernel.lock().unwrap_or_else(PoisonError::into_inner);
            HostFacts {
                name: host.name.clone(),
                osrelease: kernel.osrelease.clone(),
                osreldate: kernel.osreldate,
                sources: host.sources(),
                stats: match self.0.hosts.len() {
                    1 => Arc::clone(&snapshot.total),
                    _ => snapshot.parts.get(i).cloned().unwrap_or_default(),
                },
            }
        };
        Facts {
            origin: self.about().origin,
            hosts: self.0.hosts.iter().enumerate().map(host).collect(),
            cpu: self.cpu().seconds(),
            external_url: self.0.external_url.get().cloned().unwrap_or_default(),
            reload_ok: reload.config && reload.web,
            reloaded_at: reload.at,
        }
    }
}

impl Host {
    /// The one that the exporter runs on, or whose recording it plays.
    fn this(about: &About) -> Host {
        let kernel = HostKernel { osrelease: about.osrelease.clone(), osreldate: about.osreldate };
        Host {
            name: String::new(),
            awaited: about.sources.clone(),
            delivers: Default::default(),
            kernel: Mutex::new(kernel),
        }
    }

    /// Another one, where nothing but dtrace(1) runs. Its kernel is not known yet.
    fn remote(name: String) -> Host {
        Host {
            name,
            awaited: vec![Source::Dtrace],
            delivers: Default::default(),
            kernel: Mutex::default(),
        }
    }

    /// What it is to deliver, and whether it does.
    fn sources(&self) -> Vec<(Source, bool)> {
        let is_up = |source: Source| self.delivers[source.index()].now.load(Ordering::Relaxed);
        self.awaited.iter().map(|&source| (source, is_up(source))).collect()
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
