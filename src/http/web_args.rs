//! `--web.*`: the flags of exporter-toolkit.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, io};

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
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
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
