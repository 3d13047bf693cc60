//! The HTTP client of `explain`: a GET to a running exporter over http or https, with a password if it wants one.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::exit::{DATAERR, OrExit, UNAVAILABLE, USAGE};
use super::progress::ProgressLine;
use super::terminal::warn;
use super::trust::{self, Connector};
use crate::report::format::printable;

/// A longer answer is not read.
const MAX_BODY: usize = 4 << 20;
/// Of a refusal, so much is shown.
const MAX_REFUSAL: usize = 300;
/// bcrypt, and so the exporter, takes no longer ones; a file that is no password is not read to its end.
const MAX_PASSWORD: u64 = 72;
/// How long the whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which exporter is asked, and with which credentials.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Running exporter")]
pub(super) struct ExporterArgs {
    /// Where the running exporter is: http:// or https://
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:10180")]
    url: String,
    /// For https: the exporter's own certificate, or that of its authority; without it, those that this system trusts
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name that the exporter knows us by, as in its basic_auth_users
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The password of that name, in a file's first line
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
}

/// An exporter that can be asked.
pub(super) struct Exporter {
    url: ExporterUrl,
    tls: Option<Connector>,
    authorization: Option<HeaderValue>,
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl ExporterArgs {
    /// # Errors
    /// The URL is none for us, or the password cannot be read.
    pub(super) fn exporter(&self) -> anyhow::Result<Exporter> {
        // The URL is not repeated: it may hold a password.
        let url = ExporterUrl::parse(&self.url).context("--url").or_exit(USAGE)?;
        let tls = match (url.scheme == Scheme::HTTPS, self.ca_file.as_deref()) {
            (true, ca_file) => Some(trust::connector(ca_file, &url.host)?),
            (false, None) => None,
            (false, Some(_)) => {
                return Err(anyhow!("--ca-file is for https: give a --url that begins so"))
                    .or_exit(USAGE);
            }
        };
        let mut authorization = None;
        if let (Some(user), Some(file)) = (&self.user, &self.password_file) {
            if user.contains(':') {
                return Err(anyhow!("--user: a name has no colon")).or_exit(USAGE);
            }
            authorization = Some(basic(user, &password(file)?)?);
            if tls.is_none() && !url.is_near() {
                warn(format_args!(
                    "kqproc_exporter: with http the password goes to {} for everybody on the way to read; use https",
                    printable(&url.host)
                ));
            }
        }
        Ok(Exporter { url, tls, authorization })
    }
}

/// The parts of `--url`.
struct ExporterUrl {
    scheme: Scheme,
    authority: String,
    host: String,
    port: u16,
    /// Where a proxy has put it below a path: `/kqproc`; else empty.
    path: String,
}

impl fmt::Display for ExporterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl ExporterUrl {
    fn parse(url: &str) -> anyhow::Result<ExporterUrl> {
        const FORM: &str =
            "give a URL like http://127.0.0.1:10180 or https://host.example.org:10180";
        let uri: Uri = url.parse().map_err(|_| anyhow!("this is no URL; {FORM}"))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { bail!(FORM) };
        ensure!(
            !authority.as_str().contains('@'),
            "name and password have no place in a URL, where ps(1) shows them; use --user NAME and --password-file FILE"
        );
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => bail!("only http and https are spoken here; {FORM}"),
        };
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => usual,
            // Never the usual port in place of one that cannot be meant: a password would go to the server that listens there.
            _ => {
                authority.port_u16().filter(|_| !authority.as_str().contains(":+")).context(FORM)?
            }
        };
        let path = parts.path_and_query;
        ensure!(
            path.as_ref().is_none_or(|path| path.query().is_none()),
            "leave out what is behind ?"
        );
        Ok(ExporterUrl {
            scheme,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.to_string(),
            path: path.map_or(String::new(), |path| path.path().trim_end_matches('/').to_owned()),
        })
    }

    /// Whether requests to it stay on this host.
    fn is_near(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        ip.map_or(self.host == "localhost", |ip| ip.is_loopback())
    }
}

/// The first line of a file: an editor puts an end to it.
fn password(file: &Path) -> anyhow::Result<Vec<u8>> {
    let named = || format!("cannot read {}, which --password-file names", file.display());
    let mut bytes = vec![];
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_PASSWORD + 3).read_to_end(&mut bytes))
        .with_context(named)?;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() || line.len() as u64 > MAX_PASSWORD {
        return Err(anyhow!(
            "{} has no password of 1 to {MAX_PASSWORD} bytes in its first line",
            file.display()
        ))
        .or_exit(DATAERR);
    }
    Ok(line.to_vec())
}

fn basic(user: &str, password: &[u8]) -> anyhow::Result<HeaderValue> {
    let credentials = [user.as_bytes(), b":", password].concat();
    let mut header: HeaderValue =
        format!("Basic {}", BASE64_STANDARD.encode(credentials)).parse()?;
    header.set_sensitive(true);
    Ok(header)
}

impl Exporter {
    /// Gets `path` from it: what it means, and the JSON as it came.
    ///
    /// # Errors
    /// It cannot be reached in time, answers with anything but 200, or not like this release.
    pub(super) fn ask<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<(T, Value)> {
        let body = self.body(path)?;
        let json = serde_json::from_slice::<Value>(&body);
        json.and_then(|json| Ok((T::deserialize(&json)?, json)))
            .with_context(|| {
                format!("{self} does not answer like this release; use its own explain")
            })
            .or_exit(DATAERR)
    }

    fn body(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let progress = ProgressLine::new(&format!("asking {self}"), None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let late =
            |_| anyhow!("nothing came within {} s; say where it is with --url", PATIENCE.as_secs());
        let body = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.get(path)).await.map_err(late).flatten()
        });
        // A resolver that hangs is not waited for.
        runtime.shutdown_background();
        drop(progress);
        let asked = || format!("cannot ask the exporter at {self}");
        body.with_context(asked).or_exit(UNAVAILABLE)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let stream =
            TcpStream::connect((self.url.host.as_str(), self.url.port)).await.map_err(|error| {
                anyhow!(
                    "{error}; start one with kqproc_exporter serve, say where it is with --url, or explain a \
                     recording with --recording FILE"
                )
            })?;
        match &self.tls {
            None => self.exchange(stream, path).await.map_err(|error| {
                if error.is::<hyper::Error>() {
                    error.context("does it want https?")
                } else {
                    error
                }
            }),
            Some(tls) => self.exchange(tls.connect(stream).await?, path).await,
        }
    }

    async fn exchange<S>(&self, stream: S, path: &str) -> anyhow::Result<Vec<u8>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::get(format!("{}{path}", self.url.path))
            .header(HOST, &self.url.authority)
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| anyhow!("the answer could not be read: {error}"))?;
        let body = body.to_bytes();
        match status {
            StatusCode::OK => Ok(body.to_vec()),
            StatusCode::UNAUTHORIZED if self.authorization.is_none() => {
                bail!("it wants a password: say whose with --user NAME and --password-file FILE")
            }
            StatusCode::UNAUTHORIZED => bail!("it does not know this name with this password"),
            _ => {
                let refusal = String::from_utf8_lossy(&body);
                let refusal: String = refusal.trim().chars().take(MAX_REFUSAL).collect();
                bail!("{status}: {}", printable(&refusal))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_no_more() {
        for (url, shown, host, port) in [
            ("http://127.0.0.1:10180", "http://127.0.0.1:10180", "127.0.0.1", 10180),
            ("https://[::1]:7/", "https://[::1]:7", "::1", 7),
            ("https://h.example", "https://h.example", "h.example", 443),
            ("http://h/kqproc/", "http://h/kqproc", "h", 80),
            ("http://h#x", "http://h", "h", 80),
        ] {
            let parsed = ExporterUrl::parse(url).expect(url);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{url}");
        }
        for url in [
            "",
            "a b",
            "/x",
            "localhost:1",
            "ftp://h",
            "http://h?x",
            "http://u:secret@h",
            "http://h:99999",
            "http://h:",
            "http://h:+1",
            "https://[::1]:99999",
        ] {
            let error = ExporterUrl::parse(url).err().expect(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_stays_on_this_host_is_known() {
        for (url, near) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://192.0.2.7:10180", false),
            ("http://127.0.0.1.example.org", false),
        ] {
            assert_eq!(ExporterUrl::parse(url).expect(url).is_near(), near, "{url}");
        }
    }

    #[test]
    fn a_password_is_a_files_first_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [
            ("secret\n", Some("secret")),
            (" s e \r\nmore", Some(" s e ")),
            ("\nsecret", None),
            ("", None),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let found = password(file.path()).ok();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
        std::fs::write(file.path(), "x".repeat(72) + "\r\n").unwrap();
        assert_eq!(password(file.path()).unwrap().len(), 72);
        std::fs::write(file.path(), "x".repeat(73)).unwrap();
        assert!(password(file.path()).is_err());
    }
}
