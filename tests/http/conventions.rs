//! Conventions of Prometheus exporters: paths, methods, compression, readiness, reload.

use std::io::Read;

use kqproc_exporter::metrics::Source;

use crate::support::Exporter;

#[test]
fn endpoints_answer_with_their_types() {
    let exporter = Exporter::start(&[]);
    for (path, status, content_type) in [
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/metrics?collect[]=x", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/-/healthy", 200, "text/plain; charset=utf-8"),
        ("/-/ready", 503, "text/plain; charset=utf-8"),
        ("/nowhere", 404, "text/plain; charset=utf-8"),
        ("/metrics/", 404, "text/plain; charset=utf-8"),
        ("/../metrics", 404, "text/plain; charset=utf-8"),
    ] {
        let reply = exporter.get(path);
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("content-type"), Some(content_type), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        let length: usize = reply.header("content-length").unwrap().parse().unwrap();
        assert_eq!(length, reply.body.len(), "{path}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let exporter = Exporter::start(&[]);
    for path in ["/metrics", "/", "/-/healthy", "/nowhere"] {
        let (get, head) = (exporter.get(path), exporter.request("HEAD", path, ""));
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert!(head.header("content-length").is_some(), "{path}");
        assert!(head.body.is_empty(), "{path}");
    }
}

#[test]
fn other_methods_are_refused_with_those_allowed() {
    let exporter = Exporter::start(&[]);
    for (method, path, allowed) in [
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("OPTIONS", "/-/healthy", "GET, HEAD"),
        ("GET", "/-/reload", "POST, PUT"),
        ("BREW", "/metrics", "GET, HEAD"),
    ] {
        let reply = exporter.request(method, path, "");
        assert_eq!(reply.status, 405, "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[test]
fn gzip_holds_the_same_page() {
    let exporter = Exporter::start(&[]);
    let plain = exporter.get("/metrics");
    let gzipped = exporter.request("GET", "/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(gzipped.header("content-encoding"), Some("gzip"));
    assert_eq!(gzipped.header("vary"), Some("Accept, Accept-Encoding"));
    assert!(gzipped.body.len() * 4 < plain.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gzipped.body[..]).read_to_string(&mut text).unwrap();
    let samples = |page: &str| -> Vec<String> {
        page.lines().filter(|l| !l.contains("process_")).map(String::from).collect()
    };
    assert_eq!(samples(&text), samples(plain.text()));
}

#[test]
fn the_telemetry_path_is_a_choice() {
    let exporter = Exporter::start(&["--web.telemetry-path=/probe"]);
    assert_eq!(exporter.get("/metrics").status, 404);
    assert!(exporter.get("/probe").text().contains("kqproc_births_total"));
    let at_root = Exporter::start(&["--web.telemetry-path=/"]);
    assert!(at_root.get("/").text().contains("kqproc_births_total"));
}

#[test]
fn every_listen_address_answers() {
    let exporter = Exporter::start(&["--web.listen-address=:0"]);
    assert_eq!(exporter.addrs.len(), 2);
    for addr in &exporter.addrs {
        // `:0` is every interface, IPv4 too.
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], addr.port()));
        assert!(std::net::TcpStream::connect(local).is_ok(), "{addr}");
    }
}

#[test]
fn it_is_ready_once_every_source_has_delivered_and_stays_so() {
    let exporter = Exporter::start(&[]);
    exporter.state.set_source(0, Source::Kqueue, true);
    exporter.state.set_source(0, Source::Sysctl, true);
    let reply = exporter.get("/-/ready");
    assert_eq!(reply.status, 503);
    assert_eq!(reply.text(), "Not ready: nothing yet from dtrace.\n");

    exporter.state.set_source(0, Source::Dtrace, true);
    assert_eq!(exporter.get("/-/ready").status, 200);
    exporter.state.set_source(0, Source::Dtrace, false);
    assert_eq!(exporter.get("/-/ready").status, 200);
}

#[test]
fn reload_replies_with_its_outcome() {
    let exporter = Exporter::start(&[]);
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_broken = broken.clone();
    exporter.state.on_reload(move || match is_broken.load(std::sync::atomic::Ordering::SeqCst) {
        false => Ok(()),
        true => Err("kqproc.toml:3: unknown key `tres`".into()),
    });
    assert_eq!(exporter.request("POST", "/-/reload", "").status, 200);
    broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let reply = exporter.request("PUT", "/-/reload", "");
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("kqproc.toml:3: unknown key `tres`"));

    let page = exporter.get("/metrics");
    assert!(page.text().contains("\nkqproc_config_last_reload_successful 0\n"));
}

#[test]
fn keep_alive_and_pipelined_requests_are_answered_in_order() {
    let exporter = Exporter::start(&[]);
    let one = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let replies = exporter.send(format!("{}{last}", one.repeat(50)).as_bytes());
    let all = format!("{}\r\n\r\n{}", replies.head, replies.text());
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 50);
    assert!(all.rsplit_once("HTTP/1.1 ").unwrap().1.starts_with("503 "));
}

#[test]
fn it_stops_in_good_order() {
    let mut exporter = Exporter::start(&[]);
    let idle = exporter.connect();
    exporter.assert_scrapes();
    exporter.stop();
    assert!(std::net::TcpStream::connect(exporter.addr).is_err());
    let mut rest = Vec::new();
    (&idle).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
