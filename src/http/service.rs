//! What requests share: the state, the paths, the web configuration, and limits on scrapes and reloads.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::paths::ServicePaths;
use super::state::State;
use super::web_config::WebConfig;

/// What requests share.
pub(super) struct Service {
    pub(super) state: State,
    pub(super) paths: ServicePaths,
    pub(super) web_config: Arc<WebConfig>,
    scrapes: Arc<Semaphore>,
    reloads: Semaphore,
}

impl Service {
    /// Answers `scrapes` scrapes at the same time at most; 0: as many as come.
    pub(super) fn new(
        state: State,
        paths: ServicePaths,
        web_config: Arc<WebConfig>,
        scrapes: usize,
    ) -> Service {
        let scrapes = match scrapes {
            0 => Semaphore::MAX_PERMITS,
            limit => limit.min(Semaphore::MAX_PERMITS),
        };
        Service {
            state,
            paths,
            web_config,
            scrapes: Arc::new(Semaphore::new(scrapes)),
            reloads: Semaphore::new(1),
        }
    }

    /// Loads the configuration and the web configuration again, off the async workers and one after the other.
    ///
    /// # Errors
    /// One of them cannot be taken up, or both: what is in force is kept.
    pub(super) async fn reload(self: &Arc<Self>) -> Result<(), String> {
        self.one_reload(|service| {
            let config = service.state.reload_config();
            match (config, service.reload_web()) {
                (Err(one), Err(other)) => Err(format!("{one}; {other}")),
                (one, other) => one.and(other),
            }
        })
        .await
    }

    /// Takes up every change of the web configuration's files, for ever.
    pub(super) async fn follow_web_config(self: Arc<Self>) {
        loop {
            self.web_config.changed().await;
            // The outcome is logged and shown by config_last_reload_successful.
            let _ = self.one_reload(Service::reload_web).await;
        }
    }

    fn reload_web(&self) -> Result<(), String> {
        let done = self.web_config.reload().map_err(|error| error.to_string());
        self.state.web_reloaded(&done);
        done
    }

    async fn one_reload(
        self: &Arc<Self>,
        reload: fn(&Service) -> Result<(), String>,
    ) -> Result<(), String> {
        let _turn = self.reloads.acquire().await.map_err(|error| error.to_string())?;
        let service = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || reload(&service)).await;
        let done = done
            .unwrap_or_else(|error| Err(format!("the reload did not come to its end: {error}")));
        match &done {
            Ok(()) => tracing::info!("configuration loaded"),
            Err(error) => tracing::error!(error, "configuration kept as it was"),
        }
        done
    }

    /// A permit to answer a scrape; `None` if all are taken.
    pub(super) fn scrape_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.scrapes).try_acquire_owned().ok()
    }
}
