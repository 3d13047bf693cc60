//! One GET over plain HTTP: for questions to a running exporter.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A longer answer is not read.
const MAX_BODY: usize = 4 << 20;
/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where an exporter is: `http://HOST:PORT`, with a path where a proxy has put it below one.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    base: String,
    host: String,
}

impl FromStr for Exporter {
    type Err = String;

    fn from_str(base: &str) -> Result<Exporter, String> {
        let uri: Uri = base
            .parse()
            .map_err(|_| "this is no URL; give one like http://127.0.0.1:10180".to_owned())?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => Ok(Exporter {
                base: base.trim_end_matches('/').to_owned(),
                host: host.trim_matches(['[', ']']).to_owned(),
            }),
            (Some("https"), _) => Err("only http is spoken here; with TLS, get \
                 /incidents/N?format=json with curl(1)"
                .to_owned()),
            _ => Err("give a URL like http://127.0.0.1:10180".to_owned()),
        }
    }
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl Exporter {
    /// Gets `path` from it, as JSON.
    ///
    /// # Errors
    /// It cannot be reached in time, or answers with anything but 200.
    pub(super) fn json(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let uri: Uri = format!("{}{path}", self.base).parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, get(&uri, &self.host))
                .await
                .map_err(|_| anyhow!("{uri} did not answer within {} s", PATIENCE.as_secs()))?
                .with_context(|| format!("cannot get {uri}"))
        })
    }
}

async fn get(uri: &Uri, host: &str) -> anyhow::Result<Vec<u8>> {
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| anyhow!("{error}; is an exporter there? Say where it is with --url"))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| anyhow!("the answer could not be read: {error}"))?.to_bytes();
    if status != hyper::StatusCode::OK {
        bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body.to_vec())
}
