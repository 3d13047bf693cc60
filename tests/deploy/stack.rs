//! A real Prometheus and a real Alertmanager on loopback, each ended when its value is dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::eventually;

/// The name of the Alertmanager's program in the system's package.
const ALERTMANAGER: &str =
    if cfg!(target_os = "freebsd") { "alertmanager" } else { "prometheus-alertmanager" };

/// An address without a listener.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The body that a GET of `path` is answered with.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_string()),
        _ => Err(io::Error::other(format!("{path}: {head}\n{body}"))),
    }
}

/// A server that calls `take` with the body of every request. The replies have no body.
fn serve(take: impl Fn(&str) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer_one(stream, &take); // the client may have gone away
        }
    });
    address
}

fn answer_one(mut stream: TcpStream, take: &impl Fn(&str)) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    take(&String::from_utf8_lossy(&body));
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// A server process.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    _dir: TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Starts `command` with a directory of its own and waits until `ready` answers 200.
    pub(crate) fn start(
        command: &mut Command,
        dir: TempDir,
        address: SocketAddr,
        ready: &str,
    ) -> Daemon {
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut daemon = Daemon { child: child.unwrap(), address, _dir: dir };
        eventually(&format!("{command:?}"), || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {ended:?}");
            get(address, ready).ok()
        });
        daemon
    }

    /// A Prometheus with this configuration; `files` lie beside it.
    pub(crate) fn prometheus(config: &str, files: &[(&str, &str)]) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path(), files);
        write_all(dir.path(), &[("prometheus.yml", config)]);
        let address = free_address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        Daemon::start(&mut command, dir, address, "/-/ready")
    }

    /// An Alertmanager that sends every alert to `webhook` at once.
    pub(crate) fn alertmanager(webhook: SocketAddr) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "route:\n  receiver: hook\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: 1s\n\
             receivers:\n- name: hook\n  webhook_configs:\n  - url: http://{webhook}/\n"
        );
        write_all(dir.path(), &[("alertmanager.yml", &config)]);
        let address = free_address();
        let mut command = Command::new(ALERTMANAGER);
        command
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .arg(format!("--config.file={}", dir.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()));
        Daemon::start(&mut command, dir, address, "/-/ready")
    }

    /// What a Prometheus answers to an instant query.
    pub(crate) fn query(&self, expr: &str) -> Vec<Value> {
        let answer = get(self.address, &format!("/api/v1/query?query={}", escape(expr)));
        let answer: Value = serde_json::from_str(&answer.expect(expr)).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

fn write_all(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

/// Percent-encodes a query.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(
            |b| {
                if b.is_ascii_alphanumeric() {
                    (b as char).to_string()
                } else {
                    format!("%{b:02X}")
                }
            },
        )
        .collect()
}

/// A webhook, and the alerts that it receives, one at a time.
pub(crate) fn webhook() -> (SocketAddr, Receiver<Value>) {
    let (sender, alerts) = channel();
    let address = serve(move |body| {
        let message: Value = serde_json::from_str(body).unwrap();
        for alert in message["alerts"].as_array().unwrap() {
            let _ = sender.send(alert.clone()); // the test may be over
        }
    });
    (address, alerts)
}
