//! Limits: clients that are slow, silent, many or rude lose their connections, and a scrape beside them still works.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kqproc_exporter::check::stats::TreeStats;
use kqproc_exporter::http::Limits;

use crate::common::client::Reply;
use crate::common::eventually;
use crate::support::{Exporter, some_stats};

/// Short for a limit, and long enough for an honest client on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn a_header_that_does_not_end_is_not_waited_for() {
    let exporter = Exporter::start_with(Limits { header: SHORT, ..Limits::default() }, &[]);
    let mut slow = exporter.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
    exporter.assert_scrapes();
    assert_eq!(read_all(&slow), b"");
}

#[test]
fn a_silent_connection_is_closed() {
    let limits = Limits { header: SHORT, idle: SHORT, ..Limits::default() };
    let exporter = Exporter::start_with(limits, &[]);
    let (silent, mut answered) = (exporter.connect(), exporter.connect());
    answered.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    exporter.assert_scrapes();
    assert_eq!(read_all(&silent), b"");
    assert_eq!(Reply::parse(&read_all(&answered)).status, 200);
}

#[test]
fn two_thousand_idle_connections_keep_no_client_out() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= 4096, "this test needs 4,096 file descriptors: ulimit -Hn is {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();

    let exporter = Exporter::start(&[]);
    let mut scraper = exporter.connect();
    let mut scrape = || {
        scraper.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let reply = Reply::read_one(&mut scraper);
        assert_eq!((reply.status, reply.text()), (200, "kqproc_exporter is healthy.\n"));
    };
    scrape();
    let idle: Vec<TcpStream> = (0..2000).map(|_| exporter.connect()).collect();
    scrape();
    exporter.assert_scrapes();
    drop(idle);
}

#[test]
fn a_header_of_a_megabyte_is_refused() {
    let exporter = Exporter::start(&[]);
    let long = "x".repeat(1 << 20);
    for header in [format!("X-Long: {long}\r\n"), "X-Many: 1\r\n".repeat(200)] {
        let reply = exporter.request("GET", "/metrics", &header);
        // 431; or nothing, where the reset that follows overtook it.
        assert!([431, 0].contains(&reply.status), "{}", reply.status);
        exporter.assert_scrapes();
    }
    let uri = exporter.get(&format!("/{long}"));
    assert!([414, 431, 0].contains(&uri.status), "{}", uri.status);
    exporter.assert_scrapes();
}

#[test]
fn junk_is_refused() {
    let exporter = Exporter::start(&[]);
    let every_byte: Vec<u8> = (0..=255).collect();
    for junk in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &every_byte,
        b"\0\r\n\r\n",
    ] {
        let mut stream = exporter.connect();
        let _ = stream.write_all(junk);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let reply = Reply::parse(&read_all(&stream));
        assert!([400, 0].contains(&reply.status), "{junk:?}: {}", reply.status);
        exporter.assert_scrapes();
    }
}

#[test]
fn a_body_is_refused_unread() {
    let exporter = Exporter::start(&[]);
    for (method, path, body) in [
        ("GET", "/metrics", "Content-Length: 1000000000\r\n"),
        ("POST", "/-/reload", "Content-Length: 5\r\n"),
        ("GET", "/metrics", "Transfer-Encoding: chunked\r\n"),
    ] {
        let reply = exporter.request(method, path, body);
        assert_eq!(reply.status, 413, "{method} {path} {body}");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    assert_eq!(exporter.request("POST", "/-/reload", "Content-Length: 0\r\n").status, 200);
}

#[test]
fn more_scrapes_than_allowed_get_503() {
    let exporter = Exporter::start(&["--web.max-requests=1"]);
    let mut stats = some_stats();
    let tree = |i| TreeStats { name: format!("tree{i}"), ..TreeStats::default() };
    stats.trees = (0..1500).map(tree).collect();
    exporter.state.publish(0, stats);

    // It takes more than every buffer on the way holds, and never reads it.
    let mut greedy = exporter.connect_with_small_buffer();
    greedy.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 12];
    greedy.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    let refused = exporter.get("/metrics");
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("--web.max-requests"));
    assert_eq!(exporter.get("/-/healthy").status, 200);

    drop(greedy);
    eventually("a scrape after the greedy one", || {
        (exporter.get("/metrics").status == 200).then_some(())
    });
}

#[test]
fn no_limit_is_a_choice() {
    let exporter = Exporter::start(&["--web.max-requests=0"]);
    exporter.assert_scrapes();
}
