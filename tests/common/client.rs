//! An HTTP client that sends exactly the bytes of a test, and the reply.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// The address of a server. Every request has a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub addr: SocketAddr,
}

impl Client {
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "")
    }

    /// `headers` end in \r\n each.
    pub fn request(&self, method: &str, path: &str, headers: &str) -> Reply {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n");
        self.send(head.as_bytes())
    }

    /// Sends these bytes and reads until the server closes.
    pub fn send(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // The server may refuse and close before it has read everything.
        let _ = stream.write_all(bytes);
        Reply::read(stream)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        stream
    }

    /// The samples of `/metrics` by their name and labels.
    pub fn samples(&self) -> BTreeMap<String, f64> {
        let reply = self.get("/metrics");
        assert_eq!(reply.status, 200, "{}", reply.head);
        reply.samples()
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads until the server closes.
    pub fn read(mut stream: impl Read) -> Reply {
        let mut bytes = Vec::new();
        if let Err(error) = stream.read_to_end(&mut bytes) {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "the server keeps the client waiting");
        }
        Reply::parse(&bytes)
    }

    /// Reads one response with a length, and leaves the connection open.
    pub fn read_one(stream: &mut impl Read) -> Reply {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a byte of the head");
            bytes.push(byte[0]);
        }
        let mut reply = Reply::parse(&bytes);
        let length = reply.header("content-length").expect("a length");
        reply.body.resize(length.parse().expect("a number"), 0);
        stream.read_exact(&mut reply.body).expect("the body");
        reply
    }

    pub fn parse(bytes: &[u8]) -> Reply {
        let split = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let (head, body) = match split {
            Some(at) => (&bytes[..at], &bytes[at + 4..]),
            None => (bytes, &[][..]),
        };
        let head = String::from_utf8(head.to_vec()).expect("text");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Reply { status, head, body: body.to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The samples of a page of metrics by their name and labels.
    pub fn samples(&self) -> BTreeMap<String, f64> {
        self.text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').expect("a sample"))
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
            .collect()
    }
}
