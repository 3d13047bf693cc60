//! The HTTP server: listeners, connections, and an orderly end.

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
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::limits::Limits;
use super::listen::listen;
use super::paths::ServicePaths;
use super::peers::{ConnectionSlot, Peers};
use super::service::Service;
use super::state::State;
use super::timed_stream::TimedStream;
use super::web_config::{WebConfig, WebConfigError};
use super::{history, route};
use crate::http::web_args::WebArgs;

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, not ours, or cannot be resolved.
    #[error("cannot listen on {address}: {error}; give another address with --web.listen-address")]
    Listen {
        /// The address as it was given.
        address: String,
        /// The system's error.
        error: io::Error,
    },
    /// `--web.config.file` cannot be used.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
}

/// Bound sockets, before the first connection is accepted.
pub struct Server {
    listeners: Vec<StdListener>,
    paths: ServicePaths,
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
            paths: ServicePaths::new(args),
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

    /// Where it listens, with the real port if 0 was asked for.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Answers requests until `shutdown` resolves, then finishes those that have begun.
    ///
    /// # Errors
    /// The listeners or SIGHUP's handler cannot be given to the runtime.
    pub async fn run(self, state: State, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let drain = self.limits.drain;
        state.set_external_url(self.paths.external());
        let (stop, stopping) = watch::channel(ConnectionEnd::No);
        let service = Arc::new(Service::new(
            state,
            self.paths,
            Arc::clone(&self.web_config),
            self.max_requests,
        ));
        let connections = Arc::new(Connections {
            service: Arc::clone(&service),
            limits: self.limits,
            peers: Arc::new(Peers::new(self.limits.connections)),
        });
        let mut tasks = JoinSet::new();
        // Before the first connection: a SIGHUP that comes early must not be lost.
        tasks.spawn(reload_on_hangup(signal(SignalKind::hangup())?, Arc::clone(&service)));
        for listener in self.listeners {
            tracing::info!(address = %listener.local_addr()?, "listening");
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(accept(listener, Arc::clone(&connections), stopping.clone()));
        }
        tasks.spawn(Arc::clone(&service).follow_web_config());
        tasks.spawn(sample(service.state.clone()));
        drop(stopping);
        shutdown.await;
        tasks.shutdown().await;
        // Every connection holds a receiver: the channel is closed once the last of them is gone.
        stop.send_replace(ConnectionEnd::Gracefully);
        let drained = timeout(drain, stop.closed()).await.is_ok();
        stop.send_replace(ConnectionEnd::Now);
        stop.closed().await;
        tracing::info!(drained, "stopped");
        Ok(())
    }
}

/// How connections are to end.
#[derive(Clone, Copy, PartialEq)]
enum ConnectionEnd {
    No,
    /// After the request at hand.
    Gracefully,
    Now,
}

/// What every connection needs.
struct Connections {
    service: Arc<Service>,
    limits: Limits,
    peers: Arc<Peers>,
}

async fn accept(
    listener: TcpListener,
    connections: Arc<Connections>,
    stopping: watch::Receiver<ConnectionEnd>,
) {
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
        let Some(slot) = connections.peers.admit().await else { return };
        tokio::spawn(connection(stream, slot, Arc::clone(&connections), stopping.clone()));
    }
}

async fn connection(
    stream: TcpStream,
    slot: ConnectionSlot,
    connections: Arc<Connections>,
    stopping: watch::Receiver<ConnectionEnd>,
) {
    // Without it, a response of two segments would wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let stream = TimedStream::new(stream, Arc::clone(&slot.peer), &connections.limits);
    let way = slot.peer.gives_way();
    let Some(tls) = connections.service.web_config.rules().tls.clone() else {
        return serve(stream, &slot, way, connections, stopping).await;
    };
    let mut way = pin!(way);
    let stream = tokio::select! {
        accepted = timeout(connections.limits.header, tls.acceptor.accept(stream)) => accepted,
        () = way.as_mut() => return,
    };
    match stream {
        Ok(Ok(stream)) if tls.admits(stream.get_ref().1.peer_certificates()) => {
            serve(stream, &slot, way, connections, stopping).await;
        }
        Ok(Ok(_)) => tracing::debug!("client certificate bears no allowed name"),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// Answers the requests of one connection.
async fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    slot: &ConnectionSlot,
    gives_way: impl Future<Output = ()>,
    connections: Arc<Connections>,
    mut stopping: watch::Receiver<ConnectionEnd>,
) {
    let peer = &slot.peer;
    let answer = service_fn(|request| {
        let connections = Arc::clone(&connections);
        async move {
            connections.peers.begin(peer);
            let response = route::respond(&connections.service, &request).await;
            connections.peers.end(peer);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None)
        .max_buf_size(connections.limits.header_bytes.max(8 << 10))
        .max_header_size(connections.limits.header_bytes);
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
            ConnectionEnd::No => {}
            ConnectionEnd::Gracefully => served.as_mut().graceful_shutdown(),
            ConnectionEnd::Now => return,
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
