//! One GET over plain HTTP: for questions to a running exporter.

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

/// Gets `path` from the service at `base`, as JSON.
///
/// # Errors
/// It cannot be reached in time, or answers with anything but 200.
pub(super) fn json(base: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let uri: Uri = format!("{}{path}", base.trim_end_matches('/'))
        .parse()
        .with_context(|| format!("{base} is no URL; give one like http://127.0.0.1:10180"))?;
    let host = match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) => host.trim_matches(['[', ']']).to_owned(),
        _ => bail!("{base}: only http:// is spoken here; with TLS, fetch {path} with curl(1)"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, get(&uri, &host))
            .await
            .map_err(|_| anyhow!("{uri} did not answer within {} s", PATIENCE.as_secs()))?
            .with_context(|| format!("cannot get {uri}"))
    })
}

async fn get(uri: &Uri, host: &str) -> anyhow::Result<Vec<u8>> {
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
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
