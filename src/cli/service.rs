//! The running service: a source on a thread of its own, the HTTP server beside it, and their end.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::exit::{CONFIG, Failure, OrExit, SOFTWARE, UNAVAILABLE};
use super::feed::Feed;
use super::log_args::LogArgs;
use super::signals::Signals;
use super::user::UserArgs;
use crate::check::Config;
use crate::http::web_args::WebArgs;
use crate::http::{BindError, Server};

/// How long the end of the service waits for what still runs.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// How a source is served.
#[derive(clap::Args, Debug)]
pub struct ServiceArgs {
    #[command(flatten)]
    pub(super) user: UserArgs,

    #[command(flatten)]
    pub(super) web: WebArgs,

    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl ServiceArgs {
    /// Serves what `feed` yields until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// The service cannot be started.
    pub fn serve(&self, feed: Feed) -> anyhow::Result<ExitCode> {
        self.log.init();
        self.user.change()?;
        serve(feed, Config::default(), &self.web)
    }
}

fn bind(web: &WebArgs) -> anyhow::Result<Server> {
    Server::bind(web).map_err(|error| {
        let status = match error {
            BindError::Listen { .. } => UNAVAILABLE,
            BindError::WebConfig(_) => CONFIG,
        };
        Failure::new(status, error).into()
    })
}

/// Serves what `feed` yields until SIGTERM or SIGINT.
///
/// # Errors
/// The service cannot be started, or the feed fails.
pub(super) fn serve(feed: Feed, check: Config, web: &WebArgs) -> anyhow::Result<ExitCode> {
    on_runtime(|runtime| serve_on(runtime, feed, check, web))
}

/// What `work` gives. A file that is read from a disk that hangs must not keep the process then.
fn on_runtime<T>(work: impl FnOnce(&Runtime) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the HTTP service")?;
    let done = work(&runtime);
    runtime.shutdown_timeout(LAST_PATIENCE);
    done
}

fn serve_on(
    runtime: &Runtime,
    feed: Feed,
    check: Config,
    web: &WebArgs,
) -> anyhow::Result<ExitCode> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting kqproc_exporter");
    let server = bind(web)?;
    let (stop, state) = (feed.stop(), feed.state());
    let (ended, end) = oneshot::channel();
    // The receiver is gone if the service was stopped first.
    let run = move || drop(ended.send(feed.run(check)));
    let ingest = thread::Builder::new().name("ingest".into()).spawn(run)?;
    let (failed, signals) = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut failed = None;
        let over = async {
            tokio::select! {
                () = signals.next() => {}
                error = failure(end) => failed = error,
            }
        };
        server.run(state, over).await?;
        Ok::<_, anyhow::Error>((failed, signals))
    })?;
    stop.request();
    // A second signal is for a dtrace that does not end.
    runtime.spawn(signals.hand_on_to(stop));
    if ingest.join().is_err() {
        let error = anyhow::anyhow!("the ingest thread panicked: please report what stands above");
        return Err(error).or_exit(SOFTWARE);
    }
    match failed {
        Some(error) => Err(error).or_exit(UNAVAILABLE),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Waits for the feed to fail: its error, or `None` if its thread has panicked, which the join reports. A feed that ends
/// without an error ends nothing: its figures are served on.
async fn failure<E>(end: oneshot::Receiver<Result<(), E>>) -> Option<E> {
    match end.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_read_that_hangs_keeps_no_exporter_from_its_end() {
        let ((begun, begins), (_held, hangs)) = (channel(), channel::<()>());
        let read = move || (begun.send(()), hangs.recv());
        let begins = on_runtime(|runtime| {
            runtime.spawn_blocking(read);
            Ok(begins.recv()?)
        });
        assert!(begins.is_ok());
    }

    #[tokio::test]
    async fn an_ingest_thread_that_panics_ends_the_service_and_one_that_ends_well_does_not() {
        let (ended, end) = oneshot::channel::<Result<(), &str>>();
        let panics = thread::spawn(move || {
            let _ended = ended;
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert_eq!(failure(end).await, None);
        assert!(panics.join().is_err());
        for (result, over) in [(Ok(()), false), (Err("dtrace is gone"), true)] {
            let (ended, end) = oneshot::channel();
            ended.send(result).unwrap();
            let waits = tokio::time::timeout(std::time::Duration::ZERO, failure(end));
            assert_eq!(waits.await.is_ok(), over, "{result:?}");
        }
    }
}
