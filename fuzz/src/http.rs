//! Requests of any kind to a running server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use kqproc_exporter::check::Config;
use kqproc_exporter::http::web_args::WebArgs;
use kqproc_exporter::http::{About, Server, State};
use kqproc_exporter::metrics::Origin;
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::recording::{BUNDLED, Reader};

/// Longer than any answer takes, unless the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(serve);

/// A server with incidents, which runs as long as the process.
fn serve() -> SocketAddr {
    let args = WebArgs {
        listen_addresses: vec!["127.0.0.1:0".parse().expect("an address")],
        telemetry_path: "/metrics".into(),
        external_url: None,
        route_prefix: None,
        config_file: None,
        max_requests: 4,
    };
    let server = Server::bind(&args).expect("a free port");
    let address = server.local_addrs()[0];
    let state = State::new(About {
        origin: Origin::Replay,
        detail: "fuzz".into(),
        osrelease: "13.2".into(),
        osreldate: 1302001,
        sources: Vec::new(),
    });
    publish(&state);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(server.run(state, std::future::pending())).expect("it never ends");
    });
    address
}

/// Publishes the statistics and incidents of the bundled recording.
fn publish(state: &State) {
    let mut pipeline = Pipeline::new(Config::default(), state.incidents());
    let mut reader = Reader::new(BUNDLED).expect("a recording");
    while let Some(input) = reader.next().expect("it is whole") {
        pipeline.push(input);
    }
    state.publish(0, pipeline.stats().clone());
}

/// Sends a request: a request line and headers, or any other bytes.
pub fn http(data: &[u8]) {
    let mut stream = TcpStream::connect(*ADDRESS).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // The server may refuse and close before it has read everything.
    let _ = stream.write_all(data);
    let _ = stream.write_all(b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let hung = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!hung, "no answer");
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "not HTTP");
    let status = answer.get(9..12).unwrap_or(b"400");
    assert!(status != b"500" || data.starts_with(b"P"), "an internal error");
}
