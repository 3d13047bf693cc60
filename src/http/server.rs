//! Listeners and connections.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::listen::listen;
use super::peers::{Peers, Seat};
use super::state::State;
use super::timed::Timed;
use super::web_config::{WebConfig, WebConfigError};
use super::{history, route};
use crate::http::web_args::WebArgs;

/// What a client may cost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// How long a client may take from its connection or first byte to the end of a request's header, and for taking
    /// the next piece of a response.
    pub header: Duration,
    /// How long a connection may be silent between requests.
    pub idle: Duration,
    /// Bytes of a request's header.
    pub header_bytes: usize,
    /// Connections at the same time; with one more, the least useful one gives way.
    pub connections: usize,
    /// How long requests may go on after the service was told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            header_bytes: 16 << 10,
            connections: 512,
            drain: Duration::from_secs(5),
        }
    }
}

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, not ours, or cannot be resolved.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// `--web.config.file` cannot be used.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
}

/// Bound sockets that nobody is answered on yet.
pub struct Server {
    listeners: Vec<StdListener>,
    telemetry_path: String,
    max_requests: usize,
    web_config: Arc<WebConfig>,
    limits: Limits,
}

impl Server {
    /// Reads the web configuration and opens every listening socket. Needs no runtime, so privileges may be dropped
    /// behind it.
    ///
    /// # Errors
    /// An address that cannot be listened on, or a web configuration that cannot be used.
    pub fn bind(args: &WebArgs) -> Result<Server, BindError> {
        let web_config = Arc::new(WebConfig::load(args.config_file.as_deref())?);
        let mut listeners = Vec::new();
        for address in &args.listen_addresses {
            let listener = listen(address)
                .map_err(|error| BindError::Listen { address: address.to_string(), error })?;
            listeners.push(listener);
        }
        Ok(Server {
            listeners,
            telemetry_path: args.telemetry_path.clone(),
            max_requests: args.max_requests,
            web_config,
            limits: Limits::default(),
        })
    }

    /// With other limits.
    pub fn with_limits(mut self, limits: Limits) -> Server {
        self.limits = limits;
        self
    }

    /// Where it listens, with the real port where 0 was asked for.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Answers until `shutdown` resolves, then lets what was begun come to its end.
    ///
    /// # Errors
    /// The listeners or SIGHUP's handler cannot be given to the runtime.
    pub async fn run(self, state: State, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let drain = self.limits.drain;
        let (stop, stopping) = watch::channel(Stop::No);
        let service = Arc::new(Service::new(&self, state));
        let mut tasks = JoinSet::new();
        // Before anyone can know that the service is there: an early SIGHUP would end the process.
        tasks.spawn(reload_on_hangup(signal(SignalKind::hangup())?, Arc::clone(&service)));
        for listener in self.listeners {
            tracing::info!(address = %listener.local_addr()?, "listening");
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(accept(listener, Arc::clone(&service), stopping.clone()));
        }
        tasks.spawn(Arc::clone(&service.web_config).follow());
        tasks.spawn(sample(service.state.clone()));
        drop(stopping);
        shutdown.await;
        tasks.shutdown().await;
        // Every connection holds a receiver: the channel is closed once the last of them is gone.
        stop.send_replace(Stop::Gracefully);
        let drained = timeout(drain, stop.closed()).await.is_ok();
        stop.send_replace(Stop::Now);
        stop.closed().await;
        tracing::info!(drained, "stopped");
        Ok(())
    }
}

/// Told to every connection.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    No,
    /// End behind the request at hand.
    Gracefully,
    Now,
}

/// What every connection needs.
pub(super) struct Service {
    pub(super) state: State,
    pub(super) telemetry_path: String,
    pub(super) web_config: Arc<WebConfig>,
    limits: Limits,
    peers: Arc<Peers>,
    scrapes: Option<Arc<Semaphore>>,
    reloads: Semaphore,
}

impl Service {
    fn new(server: &Server, state: State) -> Service {
        let scrapes = server.max_requests.min(Semaphore::MAX_PERMITS);
        Service {
            state,
            telemetry_path: server.telemetry_path.clone(),
            web_config: Arc::clone(&server.web_config),
            limits: server.limits,
            peers: Arc::new(Peers::new(server.limits.connections)),
            scrapes: (scrapes > 0).then(|| Arc::new(Semaphore::new(scrapes))),
            reloads: Semaphore::new(1),
        }
    }

    /// Loads the configuration and the web configuration again, off the async workers and one after the other.
    pub(super) async fn reload(self: &Arc<Self>) -> Result<(), String> {
        let _turn = self.reloads.acquire().await.map_err(|error| error.to_string())?;
        let service = Arc::clone(self);
        let web = move || service.web_config.reload().map_err(|error| error.to_string());
        let state = self.state.clone();
        let done = tokio::task::spawn_blocking(move || state.reload(web)).await;
        done.unwrap_or_else(|error| Err(format!("the reload did not come to its end: {error}")))
    }

    /// Leave to answer a scrape; `Some(None)` where there is no limit.
    pub(super) fn scrape_permit(&self) -> Option<Option<OwnedSemaphorePermit>> {
        match &self.scrapes {
            None => Some(None),
            Some(scrapes) => Arc::clone(scrapes).try_acquire_owned().ok().map(Some),
        }
    }
}

async fn accept(listener: TcpListener, service: Arc<Service>, stopping: watch::Receiver<Stop>) {
    const FIRST_PAUSE: Duration = Duration::from_millis(1);
    let mut pause = FIRST_PAUSE;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: those in use come back.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
                continue;
            }
        };
        pause = FIRST_PAUSE;
        let Some(seat) = service.peers.admit().await else { return };
        tokio::spawn(connection(stream, seat, Arc::clone(&service), stopping.clone()));
    }
}

async fn connection(
    stream: TcpStream,
    seat: Seat,
    service: Arc<Service>,
    stopping: watch::Receiver<Stop>,
) {
    // Without it, a response of two segments would wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let stream = Timed::new(stream, Arc::clone(&seat.peer), &service.limits);
    let way = seat.peer.gives_way();
    let Some(tls) = service.web_config.rules().tls.clone() else {
        return serve(stream, &seat, way, service, stopping).await;
    };
    let mut way = pin!(way);
    let stream = tokio::select! {
        accepted = timeout(service.limits.header, tls.acceptor.accept(stream)) => accepted,
        () = way.as_mut() => return,
    };
    match stream {
        Ok(Ok(stream)) if tls.admits(stream.get_ref().1.peer_certificates()) => {
            serve(stream, &seat, way, service, stopping).await;
        }
        Ok(Ok(_)) => tracing::debug!("client certificate bears no allowed name"),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// Answers the requests of one connection.
async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    seat: &Seat,
    gives_way: impl Future<Output = ()>,
    service: Arc<Service>,
    mut stopping: watch::Receiver<Stop>,
) {
    let peer = &seat.peer;
    let answer = service_fn(|request| {
        let service = Arc::clone(&service);
        async move {
            service.peers.begin(peer);
            let response = route::respond(&service, &request).await;
            service.peers.end(peer);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None)
        .max_buf_size(service.limits.header_bytes.max(8 << 10))
        .max_header_size(service.limits.header_bytes);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), answer));
    let mut gives_way = pin!(gives_way);
    loop {
        let stop = tokio::select! {
            served = served.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = gives_way.as_mut() => {
                tracing::debug!("connection gave way to a new one");
                return;
            }
            _ = stopping.changed() => *stopping.borrow_and_update(),
        };
        match stop {
            Stop::No => {}
            Stop::Gracefully => served.as_mut().graceful_shutdown(),
            Stop::Now => return,
        }
    }
}

/// Keeps the status page's hour.
async fn sample(state: State) {
    let mut steps = interval(history::STEP);
    loop {
        steps.tick().await;
        state.sample();
    }
}

/// SIGHUP does what `/-/reload` does.
async fn reload_on_hangup(mut hangups: Signal, service: Arc<Service>) {
    while hangups.recv().await.is_some() {
        // The outcome is logged and shown by config_last_reload_successful.
        let _ = service.reload().await;
    }
}
