//! `--web.*`: the flags of exporter-toolkit.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, io};

use hyper::Uri;

use super::route;

/// How the exporter is reached over HTTP.
#[derive(clap::Args, Clone, PartialEq, Debug)]
#[command(next_help_heading = "Web")]
pub struct WebArgs {
    /// Address to listen on: HOST:PORT, or :PORT for every interface. Repeatable
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10180",
        action = clap::ArgAction::Append
    )]
    pub listen_addresses: Vec<ListenAddress>,

    /// Path of the metrics
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        default_value = "/metrics",
        value_parser = telemetry_path
    )]
    pub telemetry_path: String,

    #[allow(rustdoc::bare_urls, reason = "the help shows it as it stands")]
    /// Where browsers find the exporter, such as https://host.example.org/kqproc behind a proxy: for absolute links, and the
    /// default of --web.route-prefix
    #[arg(long = "web.external-url", value_name = "URL")]
    pub external_url: Option<ExternalUrl>,

    /// What each path of a request begins with; / if a proxy takes the path of the external URL away [default: that path]
    #[arg(long = "web.route-prefix", value_name = "PATH", value_parser = route_prefix)]
    pub route_prefix: Option<String>,

    /// YAML file with TLS, passwords, headers and rate limit, as exporter-toolkit has it
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Scrapes that are answered at the same time, others get 503; 0: no limit
    #[arg(long = "web.max-requests", value_name = "N", default_value_t = 40)]
    pub max_requests: usize,
}

/// HOST:PORT as Go's programs take it: an empty host is every interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// The addresses that the host has.
    ///
    /// # Errors
    /// The host is a name that cannot be resolved.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let host = if self.host.is_empty() { "::" } else { &self.host };
        Ok((host, self.port).to_socket_addrs()?.collect())
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let form = || format!("{text:?} is not HOST:PORT, [IPV6]:PORT or :PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().map_err(|_| form())?;
        let host = match host.strip_prefix('[').map(|h| h.strip_suffix(']')) {
            Some(Some(inner)) => inner,
            None if !host.contains([':', '[', ']']) => host,
            _ => return Err(form()),
        };
        Ok(ListenAddress { host: host.into(), port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenAddress { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The address of the exporter for those who are not on its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalUrl {
    /// Scheme and authority: `https://host.example.org`.
    origin: String,
    /// What comes behind them, without a `/` at its end: `/kqproc`, or nothing.
    pub(super) path: String,
}

impl fmt::Display for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

impl FromStr for ExternalUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<ExternalUrl, String> {
        let form = || "give a URL like https://host.example.org/kqproc, without ? and #".to_owned();
        let url: Uri = text.parse().map_err(|_| form())?;
        let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(form());
        };
        if url.query().is_some() || text.contains('#') || authority.as_str().contains('@') {
            return Err(form());
        }
        Ok(ExternalUrl {
            origin: format!("{}://{authority}", url.scheme_str().unwrap_or_default()),
            path: route_prefix(url.path())?,
        })
    }
}

/// A prefix with one `/` before it and none behind it, as Prometheus takes it: `kq/`, `/kq` and `/kq/` are the same.
fn route_prefix(text: &str) -> Result<String, String> {
    if text.contains(['?', '#', ' ']) {
        return Err("a path has no ?, # or blank".into());
    }
    let path = text.trim_matches('/');
    Ok(if path.is_empty() { String::new() } else { format!("/{path}") })
}

fn telemetry_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') || text.contains(['?', '#', ' ']) {
        return Err("a path begins with / and has no ?, # or blank".into());
    }
    if text.starts_with("/-/") || route::is_taken(text) {
        return Err("that path is taken by another endpoint".into());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        web: WebArgs,
    }

    fn parse(args: &[&str]) -> Result<WebArgs, clap::Error> {
        let args = ["exporter"].iter().chain(args);
        <Command as clap::Parser>::try_parse_from(args).map(|command| command.web)
    }

    #[test]
    fn the_defaults_are_the_conventional_ones() {
        let web = parse(&[]).unwrap();
        assert_eq!(web.listen_addresses, ["127.0.0.1:10180".parse().unwrap()]);
        assert_eq!(web.telemetry_path, "/metrics");
        assert_eq!(web.max_requests, 40);
    }

    #[test]
    fn listen_address_is_repeatable_and_replaces_the_default() {
        let web = parse(&["--web.listen-address=:9", "--web.listen-address", "[::1]:0"]).unwrap();
        let shown: Vec<String> = web.listen_addresses.iter().map(|a| a.to_string()).collect();
        assert_eq!(shown, [":9", "[::1]:0"]);
    }

    #[test]
    fn an_external_url_is_known_by_its_path() {
        for (url, shown, path) in [
            ("https://host.example.org", "https://host.example.org", ""),
            ("https://host.example.org:81/", "https://host.example.org:81", ""),
            ("http://[::1]/a/kq/", "http://[::1]/a/kq", "/a/kq"),
        ] {
            let external: ExternalUrl = url.parse().unwrap();
            assert_eq!((external.to_string().as_str(), external.path.as_str()), (shown, path));
        }
        for url in ["", "/kq", "host", "host/kq", "ftp://h/", "http://h/?x", "http://u:p@h/"] {
            assert!(url.parse::<ExternalUrl>().is_err(), "{url}");
        }
        for prefix in ["kq", "/kq", "kq/", "/kq/"] {
            assert_eq!(route_prefix(prefix).unwrap(), "/kq");
        }
        assert_eq!(route_prefix("/").unwrap(), "");
        assert!(route_prefix("/a?b").is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for address in ["", "localhost", "::1:80", "host:port", "host:70000", "[::1:80"] {
            assert!(address.parse::<ListenAddress>().is_err(), "{address}");
        }
        for path in [
            "metrics",
            "/a?b",
            "/-/ready",
            "/-/x",
            "/incidents",
            "/incidents/7",
            "/runbook",
            "/status.js",
        ] {
            assert!(parse(&["--web.telemetry-path", path]).is_err(), "{path}");
        }
        assert!(parse(&["--web.max-requests=-1"]).is_err());
    }
}
