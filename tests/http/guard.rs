//! Reloads of a damaged web configuration: a client that was refused before is still refused.

use std::io::Write;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use kqproc_exporter::http::Server;

use crate::common::client::Reply;
use crate::common::eventually;
use crate::support::{Exporter, web_args};
use crate::web_config::{Authority, Client, Stream, TLS};

const CLIENTS: &str = "  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n  \
    client_allowed_sans:\n  - scraper.example.org\n  - other.example.org\n  min_version: TLS13\n";

/// A server with every guard that a web configuration can have, but for the rate limit.
struct Guarded {
    authority: Authority,
    exporter: Exporter,
    config: String,
}

impl Guarded {
    fn start() -> Guarded {
        let authority = Authority::new();
        let (certificate, key) = authority.pair("first.example");
        authority.install(&certificate, &key);
        let hash = |password| bcrypt::hash(password, 4).unwrap();
        let (alice, bob) = (hash("alice's"), hash("bob's"));
        let config = format!("{TLS}{CLIENTS}basic_auth_users:\n  alice: {alice}\n  bob: {bob}\n");
        let exporter = Exporter::start(&[&authority.write(&config)]);
        Guarded { authority, exporter, config }
    }

    fn as_named(&self, name: &str) -> Client {
        self.authority.client().with_own(self.authority.pair(name))
    }

    /// A connection that may come in, for one request after the other.
    fn connect(&self) -> Stream {
        self.as_named("scraper.example.org").connect(&self.exporter)
    }

    /// What is asked of a door that must not open, and the one key that must go on fitting.
    fn assert_as_before(&self, what: &str) {
        let status = |client: Client, user: &str| {
            client.scrape_as(&self.exporter, &basic(user)).unwrap_or(0)
        };
        let own = |name| self.as_named(name);
        assert_eq!(self.exporter.get("/metrics").status, 0, "{what}: plain HTTP");
        let nameless = self.authority.client();
        assert_eq!(status(nameless, "alice:alice's"), 0, "{what}: no certificate");
        for name in ["scraper.example", "scraper.example.or", "stranger.example"] {
            assert_eq!(status(own(name), "alice:alice's"), 0, "{what}: a certificate for {name}");
        }
        let old = Client::tls12(own("scraper.example.org"));
        assert_eq!(status(old, "alice:alice's"), 0, "{what}: TLS 1.2");
        for (user, expected) in
            [("alice:bob's", 401), ("ali:alice's", 401), ("alice:alice's", 200), ("bob:bob's", 200)]
        {
            assert_eq!(status(own("other.example.org"), user), expected, "{what}: {user}");
        }
    }
}

fn basic(user: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(user))
}

fn reload(stream: &mut Stream) -> Reply {
    let head = format!("POST /-/reload HTTP/1.1\r\nHost: x\r\n{}\r\n", basic("alice:alice's"));
    stream.write_all(head.as_bytes()).unwrap();
    Reply::read_one(stream)
}

fn put(folder: &Path, config: &str) {
    std::fs::write(folder.join("web.yml"), config).unwrap();
}

#[test]
fn fault_08_a_file_that_is_cut_at_any_byte_opens_no_door() {
    let guarded = Guarded::start();
    let mut stream = guarded.connect();
    let (mut taken_up, mut refused) = (0, 0);
    for cut in 0..=guarded.config.len() {
        put(guarded.authority.path(), &guarded.config[..cut]);
        match reload(&mut stream).status {
            200 => {
                taken_up += 1;
                guarded.assert_as_before(&format!("cut at byte {cut}"));
            }
            500 => refused += 1,
            other => panic!("cut at byte {cut}: {other}"),
        }
    }
    // The whole file, and the one without its last newline.
    assert_eq!(taken_up, 2);
    assert!(refused > 300, "{refused}");
    guarded.assert_as_before("at the end");
}

#[test]
fn a_file_without_one_of_its_lines_opens_no_door() {
    let guarded = Guarded::start();
    let mut stream = guarded.connect();
    let lines: Vec<&str> = guarded.config.lines().collect();
    for gone in 0..lines.len() {
        let rest: String = lines
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != gone)
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        put(guarded.authority.path(), &rest);
        let reply = reload(&mut stream);
        assert_eq!(reply.status, 500, "without {:?}", lines[gone]);
        assert!(reply.text().contains("kept as it was"), "{}", reply.text());
    }
    guarded.assert_as_before("at the end");
    for (weaker, why) in [
        ("", "TLS is gone, client_auth_type is weaker"),
        ("RequireAndVerifyClientCert VerifyClientCertIfGiven", "client_auth_type is weaker"),
        ("other.example.org other.example.com", r#"the allowed name "other.example.org" is gone"#),
        ("TLS13 TLS12", "min_version is lower"),
        ("bob robert", r#"user "bob" is gone"#),
    ] {
        let config = match weaker.split_once(' ') {
            Some((from, to)) => guarded.config.replace(from, to),
            None => String::new(),
        };
        put(guarded.authority.path(), &config);
        let reply = reload(&mut stream);
        assert_eq!(reply.status, 500, "{weaker}");
        assert!(reply.text().contains(why), "{}", reply.text());
        assert!(reply.text().contains("restart to serve with less"), "{}", reply.text());
    }
    // More users and names may come by a reload.
    put(
        guarded.authority.path(),
        &(guarded.config.replace("  - other", "  - more.example.org\n  - other")
            + &format!("  carol: {}\n", bcrypt::hash("carol's", 4).unwrap())),
    );
    assert_eq!(reload(&mut stream).status, 200);
    let more = guarded.as_named("more.example.org");
    assert_eq!(more.scrape_as(&guarded.exporter, &basic("carol:carol's")).unwrap(), 200);
    guarded.assert_as_before("with more");
}

#[test]
fn fault_09_an_empty_allow_list_is_refused() {
    let guarded = Guarded::start();
    let mut stream = guarded.connect();
    let names = "\n  - scraper.example.org\n  - other.example.org\n";
    for empty in [" []\n", "\n", " ['']\n", "\n  - ''\n"] {
        put(guarded.authority.path(), &guarded.config.replace(names, empty));
        let reply = reload(&mut stream);
        assert_eq!(reply.status, 500, "{empty:?}");
        assert!(reply.text().contains("client_allowed_sans"), "{}", reply.text());
        let flag = format!("--web.config.file={}/web.yml", guarded.authority.path().display());
        assert!(Server::bind(&web_args(&[&flag])).is_err(), "{empty:?}, at the start");
    }
    guarded.assert_as_before("at the end");
}

#[test]
fn a_rate_limit_neither_goes_nor_grows_by_a_reload_nor_is_its_bucket_filled() {
    let authority = Authority::new();
    let config = "rate_limit:\n  interval: 1h30m\n  burst: 7\n";
    let exporter = Exporter::start(&[&authority.write(config)]);
    let reload = || exporter.request("POST", "/-/reload", "");
    for weaker in [
        "",
        "rate_limit:\n",
        "rate_limit:\n  interval: 1h\n  burst: 7\n",
        "rate_limit:\n  interval: 1h30m\n  burst: 8\n",
        "rate_limit:\n  interval: 0s\n  burst: 7\n",
    ] {
        authority.write(weaker);
        let reply = reload();
        assert_eq!(reply.status, 500, "{weaker}");
        assert!(reply.text().contains("rate_limit is gone or allows more"), "{}", reply.text());
    }
    authority.write(config);
    assert_eq!(reload().status, 200);
    assert_eq!(exporter.get("/-/healthy").status, 200, "the seventh request");
    assert_eq!(exporter.get("/-/healthy").status, 429);
}

/// A change of the file is taken up without a request, so its refusal must be seen without one.
#[test]
fn a_damaged_file_that_is_loaded_without_a_request_counts_as_a_failed_reload() {
    let authority = Authority::new();
    let (certificate, key) = authority.pair("first.example");
    authority.install(&certificate, &key);
    let rest = "rate_limit:\n  interval: 1ms\n  burst: 1000\n";
    let exporter = Exporter::start(&[&authority.write(&format!("{TLS}{rest}"))]);
    let client = authority.client();
    let successful = || {
        let reply = client.get(&exporter, "/metrics");
        reply.samples()["kqproc_config_last_reload_successful"]
    };
    assert_eq!(successful(), 1.0);
    authority.write(TLS);
    eventually("the refusal", || (successful() == 0.0).then_some(()));
    authority.write(&format!("{TLS}{rest}"));
    eventually("the whole file", || (successful() == 1.0).then_some(()));
}
