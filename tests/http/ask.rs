//! `explain` as a client of an exporter with TLS and a password: which certificates it trusts, what it sends, and that it reads
//! no reply without end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use crate::common::exporter::PROGRAM;
use crate::support::Exporter;
use crate::web_config::{Authority, TLS};

/// Runs `explain` with these flags: the exit status, stdout and stderr.
fn explain(flags: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).arg("explain").args(flags).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// An exporter with a certificate and the user alice, whose password is "secret".
fn exporter(authority: &Authority, (certificate, key): (String, String)) -> (Exporter, String) {
    authority.install(&certificate, &key);
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let config = authority.write(&format!("{TLS}basic_auth_users:\n  alice: {hash}\n"));
    let exporter = Exporter::start(&[&config]);
    let url = format!("https://localhost:{}", exporter.addr.port());
    (exporter, url)
}

/// A file in the authority's folder.
fn file(authority: &Authority, name: &str, text: &str) -> String {
    let path = authority.path().join(name);
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}

/// A certificate that signs itself, as `openssl req -x509` makes one: an authority's, too.
fn self_signed(is_ca: IsCa) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    params.is_ca = is_ca;
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn explain_knows_tls_and_passwords() {
    let authority = Authority::new();
    let (_exporter, url) = exporter(&authority, authority.pair("first.example"));
    let ca = authority.path().join("ca.crt").display().to_string();
    let right = file(&authority, "right", "secret\n");
    let wrong = file(&authority, "wrong", "guess\n");
    let ask = |more: &[&str]| explain(&[&["--url", &url], more].concat());
    let (status, text, error) =
        ask(&["--ca-file", &ca, "--user", "alice", "--password-file", &right]);
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert!(text.contains(&format!("No incidents at {url}")), "{text}");
    for (flags, words) in [
        (&["--ca-file", &ca][..], "say whose with --user NAME and --password-file FILE"),
        (
            &["--ca-file", &ca, "--user", "alice", "--password-file", &wrong],
            "does not know this name with this password",
        ),
        (&[], "--ca-file"),
    ] {
        let (status, text, error) = ask(flags);
        assert_eq!((status, text.as_str()), (Some(69), ""), "{flags:?}: {error}");
        assert!(error.contains(words), "{flags:?}: {error}");
    }
    let (status, _, error) = explain(&["--url", &url.replace("https", "http")]);
    assert_eq!(status, Some(69));
    assert!(error.contains("does it want https?"), "{error}");
    // The certificate is not for the address.
    let (status, _, error) =
        explain(&["--url", &url.replace("localhost", "127.0.0.1"), "--ca-file", &ca]);
    assert_eq!(status, Some(69));
    assert!(error.contains("a name or an address that its certificate has"), "{error}");
}

#[test]
fn a_self_signed_certificate_is_trusted_where_it_is_named_and_for_its_name() {
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let authority = Authority::new();
        let (_exporter, url) = exporter(&authority, self_signed(is_ca));
        let own = authority.path().join("server.crt").display().to_string();
        let other = file(&authority, "other.crt", &self_signed(is_ca).0);
        let password = file(&authority, "password", "secret");
        let ask = |url: &str, ca: &str| {
            explain(&[
                "--url",
                url,
                "--ca-file",
                ca,
                "--user",
                "alice",
                "--password-file",
                &password,
            ])
        };
        let (status, _, error) = ask(&url, &own);
        assert_eq!(status, Some(0), "{is_ca:?}: {error}");
        let (status, _, error) = ask(&url, &other);
        assert_eq!(status, Some(69), "{is_ca:?}: another one is trusted");
        assert!(error.contains("--ca-file"), "{error}");
        assert_eq!(ask(&url.replace("localhost", "127.0.0.1"), &own).0, Some(69), "{is_ca:?}");
    }
}

/// The request that the program sends to a server that replies `answer`, and the outcome.
fn sent(flags: &[&str], answer: &[u8]) -> (String, (Option<i32>, String, String)) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://127.0.0.1:{}/kqproc/", listener.local_addr().expect("bound").port());
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut head = vec![];
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).expect("a head");
                head.push(byte[0]);
            }
            // The client may have had enough before the end.
            let _ = stream.write_all(answer);
            String::from_utf8(head).expect("text")
        });
        let came = explain(&[&["--url", &url], flags].concat());
        (served.join().expect("served"), came)
    })
}

#[test]
fn a_request_names_the_host_and_the_password_is_in_its_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "secret\n").expect("written");
    let password = password.to_str().expect("text");
    let refusal = b"HTTP/1.1 503 Busy\r\nContent-Length: 8\r\n\r\n\x1b[2Jbusy";
    let flags = ["--user", "alice", "--password-file", password, "--tree", "a b"];
    let (head, (status, _, error)) = sent(&flags, refusal);
    assert!(
        head.starts_with("GET /kqproc/incidents?format=json&limit=20&tree=a+b HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nhost: 127.0.0.1:"), "{head}");
    assert!(head.contains("\r\nauthorization: Basic YWxpY2U6c2VjcmV0\r\n"), "{head}");
    assert_eq!(status, Some(69), "{error}");
    assert!(error.contains("503") && error.contains("u{1b}[2Jbusy"), "nothing steers: {error:?}");
}

#[test]
fn no_answer_is_read_for_ever() {
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(8 << 20, b'[');
    let (_, (status, _, error)) = sent(&[], &endless);
    assert_eq!(status, Some(69), "{error}");
    assert!(error.contains("could not be read"), "{error}");
    let (_, (status, _, error)) = sent(&[], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(status, Some(65), "{error}");
    assert!(error.contains("does not answer like this release"), "{error}");
}
