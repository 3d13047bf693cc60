//! `--web.config.file`: TLS, client certificates, passwords, headers and rate limits, seen by a client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use kqproc_exporter::http::Server;

use crate::common::client::Reply;
use crate::common::eventually;
use crate::common::unusable_files::UNUSABLE_FILES;
use crate::support::{Exporter, web_args};

/// The part of a web configuration that names an installed certificate and its key.
pub(crate) const TLS: &str =
    "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// An authority, and files as a server has them.
pub(crate) struct Authority {
    folder: TempDir,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.crt"), &certificate).unwrap();
        Authority { folder, certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn pair(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.into(), "localhost".into()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Gives the server this certificate, as an ACME client does: one file after the other.
    pub(crate) fn install(&self, certificate: &str, key: &str) {
        std::fs::write(self.path().join("server.crt"), certificate).unwrap();
        std::fs::write(self.path().join("server.key"), key).unwrap();
    }

    pub(crate) fn write(&self, config: &str) -> String {
        let path = self.path().join("web.yml");
        std::fs::write(&path, config).unwrap();
        format!("--web.config.file={}", path.display())
    }

    /// An exporter with a certificate, and `more` in its tls_server_config.
    fn exporter(&self, more: &str) -> Exporter {
        let (certificate, key) = self.pair("first.example");
        self.install(&certificate, &key);
        Exporter::start(&[&self.write(&format!("{TLS}{more}"))])
    }

    pub(crate) fn client(&self) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        Client { roots, versions: vec![&TLS12, &TLS13], own: None }
    }
}

pub(crate) struct Client {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    own: Option<(String, String)>,
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    /// The same client with a certificate and its key.
    pub(crate) fn with_own(self, pair: (String, String)) -> Client {
        Client { own: Some(pair), ..self }
    }

    /// The same client, that speaks no TLS 1.3.
    pub(crate) fn tls12(self) -> Client {
        Client { versions: vec![&TLS12], ..self }
    }

    pub(crate) fn connect(&self, exporter: &Exporter) -> Stream {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(connection, exporter.connect())
    }

    /// The status of a scrape; why there was none.
    fn scrape(&self, exporter: &Exporter) -> std::io::Result<u16> {
        self.scrape_as(exporter, "")
    }

    /// The same with more headers, which end in \r\n each.
    pub(crate) fn scrape_as(&self, exporter: &Exporter, headers: &str) -> std::io::Result<u16> {
        Ok(self.ask(exporter, "/metrics", headers)?.status)
    }

    pub(crate) fn get(&self, exporter: &Exporter, path: &str) -> Reply {
        self.ask(exporter, path, "").unwrap()
    }

    fn ask(&self, exporter: &Exporter, path: &str, headers: &str) -> std::io::Result<Reply> {
        let mut stream = self.connect(exporter);
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(Reply::parse(&bytes))
    }

    /// The certificate that the server shows.
    fn shown(&self, exporter: &Exporter) -> Vec<u8> {
        let mut stream = self.connect(exporter);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

fn healthy(stream: &mut Stream) -> u16 {
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    Reply::read_one(stream).status
}

fn reload(stream: &mut Stream) -> Reply {
    stream.write_all(b"POST /-/reload HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    Reply::read_one(stream)
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn tls_serves_and_plain_http_gets_nothing() {
    let authority = Authority::new();
    let exporter = authority.exporter("");
    assert_eq!(authority.client().scrape(&exporter).unwrap(), 200);
    assert_eq!(exporter.get("/metrics").status, 0);
    assert_eq!(authority.client().scrape(&exporter).unwrap(), 200);
}

#[test]
fn versions_outside_the_bounds_are_refused() {
    let authority = Authority::new();
    let exporter = authority.exporter("  min_version: TLS13\n");
    let only = |versions| Client { versions, ..authority.client() };
    assert!(only(vec![&TLS12]).scrape(&exporter).is_err());
    assert_eq!(only(vec![&TLS13]).scrape(&exporter).unwrap(), 200);

    let authority = Authority::new();
    let exporter = authority.exporter("  max_version: TLS12\n");
    let only = |versions| Client { versions, ..authority.client() };
    assert!(only(vec![&TLS13]).scrape(&exporter).is_err());
    assert_eq!(only(vec![&TLS12]).scrape(&exporter).unwrap(), 200);
}

#[test]
fn a_client_certificate_is_asked_for_and_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let exporter = authority.exporter(
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
         client_allowed_sans: [prometheus.example]\n",
    );
    let with = |own| Client { own, ..authority.client() }.scrape(&exporter);
    assert_eq!(with(Some(authority.pair("prometheus.example"))).unwrap(), 200);
    assert!(with(None).is_err(), "no certificate");
    assert!(with(Some(stranger.pair("prometheus.example"))).is_err(), "of another authority");
    assert!(!matches!(with(Some(authority.pair("other.example"))), Ok(200)), "of another name");
    assert_eq!(with(Some(authority.pair("prometheus.example"))).unwrap(), 200);
}

#[test]
fn a_certificate_is_rotated_in_flight() {
    let authority = Authority::new();
    let exporter = authority.exporter("");
    let client = authority.client();
    let mut old = client.connect(&exporter);
    assert_eq!(healthy(&mut old), 200);

    let (certificate, key) = authority.pair("second.example");
    authority.install(&certificate, &key);
    eventually("the new certificate", || {
        (client.shown(&exporter) == der(&certificate)).then_some(())
    });
    assert_eq!(healthy(&mut old), 200, "a connection from before goes on");
    assert_eq!(client.scrape(&exporter).unwrap(), 200);

    // A key that does not fit: what works is kept.
    authority.install(&authority.pair("third.example").0, &key);
    let reply = reload(&mut old);
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("cert and key"), "{}", reply.text());
    assert_eq!(client.shown(&exporter), der(&certificate));

    let (certificate, key) = authority.pair("fourth.example");
    authority.install(&certificate, &key);
    assert_eq!(reload(&mut old).status, 200);
    assert_eq!(client.shown(&exporter), der(&certificate));
}

#[test]
fn a_certificate_or_key_that_is_no_plain_file_any_more_leaves_the_old_one_in_force() {
    let authority = Authority::new();
    let (certificate, key) = authority.pair("first.example");
    authority.install(&certificate, &key);
    let mut exporter = Exporter::start(&[&authority.write(TLS)]);
    let client = authority.client();
    for name in ["server.crt", "server.key"] {
        let file = authority.path().join(name);
        for (replace, why) in UNUSABLE_FILES {
            replace(&file);
            let reply = reload(&mut client.connect(&exporter));
            assert_eq!(reply.status, 500, "{name}");
            assert!(reply.text().contains(&format!("{name}: {why}")), "{}", reply.text());
        }
        std::fs::remove_file(&file).unwrap();
        authority.install(&certificate, &key);
    }
    assert_eq!(client.shown(&exporter), der(&certificate));
    exporter.stop();
}

#[test]
fn users_are_asked_for_their_password() {
    let authority = Authority::new();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let config = format!("basic_auth_users:\n  alice: {hash}\n");
    let exporter = Exporter::start(&[&authority.write(&config)]);
    let ask = |credentials: &[u8]| {
        let header = format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials));
        exporter.request("GET", "/metrics", &header)
    };
    for path in ["/metrics", "/", "/-/healthy", "/-/ready", "/nowhere"] {
        let reply = exporter.get(path);
        assert_eq!(reply.status, 401, "{path}");
        assert_eq!(reply.header("www-authenticate"), Some("Basic"), "{path}");
    }
    assert_eq!(ask(b"alice:secret").status, 200);
    assert_eq!(ask(b"alice:wrong").status, 401);
    assert_eq!(ask(b"bob:secret").status, 401);
    assert_eq!(ask(b"\xff\xfe:\xff").status, 401);
    let raw = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\xfe\r\nConnection: close\r\n\r\n";
    assert_eq!(exporter.send(raw).status, 401);
}

#[test]
fn headers_are_set_and_requests_limited() {
    let authority = Authority::new();
    let config = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n\
                  rate_limit:\n  interval: 1h\n  burst: 2\n";
    let exporter = Exporter::start(&[&authority.write(config)]);
    let reply = exporter.get("/metrics");
    assert_eq!((reply.status, reply.header("x-frame-options")), (200, Some("deny")));
    assert_eq!(exporter.get("/nowhere").status, 404);
    let reply = exporter.get("/metrics");
    assert_eq!((reply.status, reply.header("x-frame-options")), (429, Some("deny")));
}

#[test]
fn a_bad_file_is_refused_with_its_line_before_anything_listens() {
    let authority = Authority::new();
    for (config, what) in [
        ("basic_auth_users:\n  a: b\n", "web.yml: not a bcrypt hash"),
        ("\n\nrate_limits:\n  interval: 1s\n", "line 3"),
        ("tls_server_config:\n  cert_file: none.crt\n  key_file: none.key\n", "none.crt"),
        ("tls_server_config: {}\n", "no cert or cert_file"),
        ("tls_server_config:\n  cert: x\n  cert_file: x\n  key: x\n", "exclude each other"),
        ("tls_server_config:\n  cert: x\n  key: x\n", "key: "),
    ] {
        let error = Server::bind(&web_args(&[&authority.write(config)])).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
    }
    let missing = Server::bind(&web_args(&["--web.config.file=/nowhere/web.yml"])).err().unwrap();
    assert!(missing.to_string().starts_with("cannot read /nowhere/web.yml: "), "{missing}");
}
