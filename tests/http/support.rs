//! A server inside the test process, for which a test publishes statistics and incidents.

use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use clap::Parser;
use kqproc_exporter::check::stats::{ConsumerStats, Refusal, Stats, TreeStats};
use kqproc_exporter::http::web_args::WebArgs;
use kqproc_exporter::http::{About, Limits, Server, State};
use kqproc_exporter::metrics::{Origin, Source};
use kqproc_exporter::model::{Pid, Verdict, Winner};
use tokio::sync::oneshot;

use crate::common::client::Client;

/// The server, its runtime and a client for it.
pub(crate) struct Exporter {
    client: Client,
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) state: State,
    stop: Option<oneshot::Sender<()>>,
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    web: WebArgs,
}

pub(crate) fn web_args(args: &[&str]) -> WebArgs {
    let fixed = ["exporter", "--web.listen-address=127.0.0.1:0"];
    Command::parse_from(fixed.iter().chain(args)).web
}

impl Deref for Exporter {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Exporter {
    pub(crate) fn start(args: &[&str]) -> Exporter {
        Exporter::start_with(Limits::default(), args)
    }

    pub(crate) fn start_with(limits: Limits, args: &[&str]) -> Exporter {
        Exporter::run(Server::bind(&web_args(args)).unwrap().with_limits(limits), about())
    }

    pub(crate) fn start_about(about: About) -> Exporter {
        Exporter::run(Server::bind(&web_args(&[])).unwrap(), about)
    }

    fn run(server: Server, about: About) -> Exporter {
        let addrs = server.local_addrs();
        let state = State::new(about);
        state.publish(0, some_stats());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let running = runtime.spawn(server.run(state.clone(), shutdown));
        Exporter {
            client: Client { addr: addrs[0] },
            addrs,
            state,
            stop: Some(stop),
            runtime: Some(runtime),
            running: Some(running),
        }
    }

    /// A client whose system takes little on its behalf.
    pub(crate) fn connect_with_small_buffer(&self) -> TcpStream {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.addr.into()).unwrap();
        socket.into()
    }

    /// What a Prometheus that knows nothing of the others on the wire would see.
    pub(crate) fn assert_scrapes(&self) {
        let reply = self.get("/metrics");
        assert_eq!(reply.status, 200);
        assert!(reply.text().contains("kqproc_births_total"));
    }

    /// Asks the server to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let (Some(runtime), Some(running)) = (&self.runtime, self.running.take()) {
            runtime.block_on(running).unwrap().unwrap();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

pub(crate) fn about() -> About {
    About {
        origin: Origin::Replay,
        detail: "merged.kqr".into(),
        osrelease: "13.2-RELEASE".into(),
        osreldate: 1302001,
        sources: Source::ALL.to_vec(),
    }
}

pub(crate) fn some_stats() -> Stats {
    let mut tree = TreeStats { name: "postgres".into(), attached: true, ..TreeStats::default() };
    tree.births[Verdict::Agreed.index()] = 38;
    tree.births[Verdict::Overwritten.index()] = 4;
    tree.births_reported = 45;
    tree.deaths[Verdict::Agreed.index()] = 41;
    tree.deaths_reported = 41;
    tree.collisions[Winner::Status.index()] = 4;
    tree.exit_latency.add(3_000_000);
    tree.exit_latency.add(20_000_000_000);
    Stats { trees: vec![tree], ..Stats::default() }
}

/// The same, and a consumer that reads its kqueue late.
pub(crate) fn with_consumer() -> Stats {
    let mut consumer = ConsumerStats {
        pid: Pid::new(812),
        undelivered: 3,
        lag_ns: 2_500_000_000,
        ..ConsumerStats::default()
    };
    consumer.refused[Refusal::Esrch.index()] = 7;
    let (name, attached) = ("nosh".to_owned(), true);
    let tree = TreeStats { name, attached, consumer: Some(consumer), ..TreeStats::default() };
    let mut stats = some_stats();
    stats.trees.push(tree);
    stats
}
