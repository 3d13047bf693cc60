//! What the service shows: published by the ingest, read by every request.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::about::About;
use super::history::{History, Sample};
use super::incidents::Incidents;
use super::pages::status::{self, Status};
use super::snapshot::Snapshot;
use crate::check::stats::Stats;
use crate::metrics::page::{Error, Pages, Rendered};
use crate::metrics::{CpuUsage, Facts, Source};

/// A handle on what the service shows. Clones share it.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    about: About,
    /// Locked only to copy a pointer, so neither side waits for the other.
    snapshot: RwLock<Arc<Snapshot>>,
    /// The figures by part, for the ingest alone.
    parts: Mutex<Vec<Arc<Stats>>>,
    pages: Pages,
    incidents: Incidents,
    history: History,
    sources: [AtomicU8; Source::COUNT],
    reload: Mutex<Reload>,
    reloader: OnceLock<Box<Reloader>>,
    external_url: OnceLock<String>,
    cpu: CpuUsage,
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

/// Bits of a source's state.
const UP: u8 = 1;
const HAS_BEEN_UP: u8 = 2;

impl State {
    /// A service that has nothing to show yet. Its configuration has been loaded just now.
    pub fn new(about: About) -> State {
        State(Arc::new(Inner {
            about,
            snapshot: RwLock::default(),
            parts: Mutex::default(),
            pages: Pages::default(),
            incidents: Incidents::default(),
            history: History::default(),
            sources: Default::default(),
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

    /// Shows `stats` from now on.
    pub fn publish(&self, stats: Stats) {
        self.publish_part(0, stats);
    }

    /// The same if several kernels are shown: this one is number `part`, from 0.
    pub(crate) fn publish_part(&self, part: usize, stats: Stats) {
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

    /// The same for what [`State::publish_part`] shows as number `part`.
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
        let status = Status {
            about: self.about(),
            telemetry_path,
            snapshot: &snapshot,
            stats: &snapshot.total,
            hour: self.0.history.hour(Sample::of(&snapshot.total, Instant::now())),
            sources: self.sources(),
            cpu: self.cpu(),
            incidents: self.0.incidents.latest(status::LISTED, |_| true),
            skipped: self.0.incidents.skipped(),
        };
        status.html()
    }

    fn sources(&self) -> Vec<(Source, bool)> {
        self.about().sources.iter().map(|&source| (source, self.is_up(source))).collect()
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

    /// Sets whether a source is attached and delivers.
    pub fn set_source(&self, source: Source, up: bool) {
        let state = &self.0.sources[source.index()];
        if up {
            state.fetch_or(UP | HAS_BEEN_UP, Ordering::Relaxed);
        } else {
            state.fetch_and(!UP, Ordering::Relaxed);
        }
    }

    /// Whether the source is attached and delivers now.
    pub(crate) fn is_up(&self, source: Source) -> bool {
        self.0.sources[source.index()].load(Ordering::Relaxed) & UP != 0
    }

    /// The configured sources that have never delivered anything: none once the service is ready. A source that goes away
    /// later is shown by `source_up` and does not make the service unready.
    pub(crate) fn awaited(&self) -> Vec<Source> {
        let delivered =
            |s: &Source| self.0.sources[s.index()].load(Ordering::Relaxed) & HAS_BEEN_UP;
        self.0.about.sources.iter().filter(|s| delivered(s) == 0).copied().collect()
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
    pub(crate) fn page(&self) -> Result<Arc<Rendered>, Error> {
        self.0.pages.get(&self.stats(), || self.facts())
    }

    fn facts(&self) -> Facts {
        let about = self.about();
        let reload = self.0.reload.lock().unwrap_or_else(PoisonError::into_inner);
        Facts {
            origin: about.origin,
            osrelease: about.osrelease.clone(),
            osreldate: about.osreldate,
            sources: self.sources(),
            cpu: self.cpu().seconds(),
            external_url: self.0.external_url.get().cloned().unwrap_or_default(),
            reload_ok: reload.config && reload.web,
            reloaded_at: reload.at,
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
