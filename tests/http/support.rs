//! A running exporter and a client that says exactly what a test wants said.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Parser;
use kqproc_exporter::check::stats::{Stats, TreeStats};
use kqproc_exporter::cli::web_args::WebArgs;
use kqproc_exporter::http::{About, Limits, Server, State};
use kqproc_exporter::metrics::{Origin, Source};
use kqproc_exporter::model::{Verdict, Winner};
use tokio::sync::oneshot;

/// Nothing in these tests should ever take so long; it only keeps a broken server from hanging them.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Exporter {
    pub(crate) addr: SocketAddr,
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
        state.publish(some_stats());
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
            addr: addrs[0],
            addrs,
            state,
            stop: Some(stop),
            runtime: Some(runtime),
            running: Some(running),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "")
    }

    /// One request on a connection of its own. `headers` end in \r\n each.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str) -> Reply {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        self.say(head.as_bytes())
    }

    /// Says these bytes and hears whatever comes until the server closes.
    pub(crate) fn say(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // The server may refuse and close before it has heard everything.
        let _ = stream.write_all(bytes);
        Reply::read(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
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

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Reads until the server closes.
    pub(crate) fn read(mut stream: impl Read) -> Reply {
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        if let Err(error) = &end {
            assert_ne!(
                error.kind(),
                std::io::ErrorKind::WouldBlock,
                "the server keeps the client waiting"
            );
        }
        Reply::parse(&bytes)
    }

    /// Reads one response with a length, and leaves the connection open.
    pub(crate) fn read_one(stream: &mut impl Read) -> Reply {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        let mut reply = Reply::parse(&bytes);
        let length = reply.header("content-length").unwrap().parse().unwrap();
        reply.body.resize(length, 0);
        stream.read_exact(&mut reply.body).unwrap();
        reply
    }

    pub(crate) fn parse(bytes: &[u8]) -> Reply {
        let split = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let (head, body) = match split {
            Some(at) => (&bytes[..at], &bytes[at + 4..]),
            None => (bytes, &[][..]),
        };
        let head = String::from_utf8(head.to_vec()).unwrap();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Reply { status, head, body: body.to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Tries again until `done` is; what it waits for happens by itself.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
