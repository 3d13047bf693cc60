//! `--web.config.file`: TLS, basic authentication, headers and rate limit, in exporter-toolkit's format, read again
//! whenever one of its files changes.

mod auth;
mod file;
mod guard;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use hyper::HeaderMap;

use super::token_bucket::TokenBucket;
use crate::plain_file;

use guard::Guard;

pub(super) use auth::{Auth, AuthOutcome};
pub(super) use tls::Tls;

/// How often the files are looked at. A change is taken up once it was seen twice the same, so that a file that is
/// being written is left alone.
const LOOK: Duration = Duration::from_millis(500);

/// Why a web configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// The file cannot be read, or is none that should be.
    #[error("cannot read {}: {error}; give one that can be read with --web.config.file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file cannot be understood.
    #[error("{}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line if it has one.
        what: String,
    },
}

/// The rules that a web configuration sets for requests.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) tls: Option<Tls>,
    pub(super) auth: Option<Arc<Auth>>,
    pub(super) headers: HeaderMap,
    pub(super) rate: Option<Arc<TokenBucket>>,
    guard: Guard,
    /// The files that it was read from, and their stamps just before.
    files: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

/// The web configuration in force.
#[derive(Default)]
pub(super) struct WebConfig {
    path: Option<PathBuf>,
    rules: RwLock<Arc<Rules>>,
    look: Mutex<Look>,
}

/// The stamps of the files.
#[derive(Default)]
struct Look {
    /// When they were last taken up, or refused.
    taken: Vec<Stamp>,
    /// At the last look.
    seen: Vec<Stamp>,
}

/// Modification time, size and inode of a file; `None` if there is none.
type Stamp = Option<(SystemTime, u64, u64)>;

impl WebConfig {
    /// Reads the file, if there is one.
    pub(super) fn load(path: Option<&Path>) -> Result<WebConfig, WebConfigError> {
        let Some(path) = path else { return Ok(WebConfig::default()) };
        let rules = Rules::read(path)?;
        let taken = rules.stamps.clone();
        Ok(WebConfig {
            path: Some(path.into()),
            rules: RwLock::new(Arc::new(rules)),
            look: Mutex::new(Look { seen: taken.clone(), taken }),
        })
    }

    /// What is in force now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, changed or not. Blocks.
    ///
    /// # Errors
    /// They cannot be used, or guard the door less than the rules in force: those stay.
    pub(super) fn reload(&self) -> Result<(), WebConfigError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.rules();
        look.taken = stamps_of(&old.files);
        let mut new = Rules::read(path)?;
        let lost = old.guard.lost_in(&new.guard);
        if !lost.is_empty() {
            let what = format!("{}; restart to serve with less", lost.join(", "));
            return Err(WebConfigError::Bad { path: path.into(), what });
        }
        // A reload does not fill the bucket.
        if let (Some(old), Some(new)) = (&old.rate, &mut new.rate)
            && old.is_like(new)
        {
            *new = Arc::clone(old);
        }
        look.taken = new.stamps.clone();
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// Waits until the files have changed, and the change has settled.
    pub(super) async fn changed(self: &Arc<Self>) {
        if self.path.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let config = Arc::clone(self);
            let look = tokio::task::spawn_blocking(move || config.has_settled_change());
            if look.await.unwrap_or(false) {
                return;
            }
        }
    }

    fn has_settled_change(&self) -> bool {
        let now = stamps_of(&self.rules().files);
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = now == look.seen;
        let changed = now != look.taken;
        look.seen = now;
        settled && changed
    }
}

impl Rules {
    fn read(path: &Path) -> Result<Rules, WebConfigError> {
        let bad = |what: String| WebConfigError::Bad { path: path.into(), what };
        let mut files = vec![path.to_path_buf()];
        let mut stamps = stamps_of(&files);
        let bytes = plain_file::read(path)
            .map_err(|error| WebConfigError::Read { path: path.into(), error })?;
        let text = str::from_utf8(&bytes).map_err(|error| bad(error.to_string()))?;
        // Without the lines in question, which may hold secrets: messages are logged.
        let file: file::WebConfigFile =
            serde_saphyr::from_str(text).map_err(|e| bad(e.without_snippet().to_string()))?;

        let folder = path.parent().unwrap_or(Path::new(""));
        let mut tls = None;
        if let Some(config) = &file.tls_server_config {
            let more = tls::files(config, folder);
            stamps.extend(stamps_of(&more));
            files.extend(more);
            let config = Tls::new(config, folder);
            tls = Some(config.map_err(|what| bad(format!("tls_server_config: {what}")))?);
        }
        let guard = Guard::of(&file);
        let users = file.basic_auth_users.unwrap_or_default();
        let auth = if users.is_empty() { None } else { Some(Auth::new(users).map_err(bad)?) };
        Ok(Rules {
            tls,
            auth: auth.map(Arc::new),
            headers: file.http_server_config.unwrap_or_default().headers,
            rate: file.rate_limit.map(|rate| Arc::new(TokenBucket::new(rate.interval, rate.burst))),
            guard,
            files,
            stamps,
        })
    }
}

fn stamps_of(files: &[PathBuf]) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let stamp = |file: &PathBuf| -> Stamp {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    files.iter().map(stamp).collect()
}
