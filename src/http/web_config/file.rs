//! The file as it is written: exporter-toolkit's YAML. Whatever is wrong is told with its line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::de::{Deserialize, Deserializer, Error};

/// bcrypt's work doubles with each step: 2^14 is about a second for one guess.
const MAX_COST: u32 = 14;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) tls_server_config: Option<Tls>,
    pub(super) http_server_config: Option<Http>,
    pub(super) basic_auth_users: Option<BTreeMap<String, PasswordHash>>,
    pub(super) rate_limit: Option<RateLimit>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) cert: Option<String>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) client_auth_type: ClientAuth,
    pub(super) client_ca: Option<String>,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_allowed_sans: Vec<AllowedSan>,
    pub(super) min_version: Option<TlsVersion>,
    pub(super) max_version: Option<TlsVersion>,
    // Named here to be refused by name, with a reason.
    #[serde(deserialize_with = "cipher_suites")]
    cipher_suites: (),
    #[serde(deserialize_with = "curve_preferences")]
    curve_preferences: (),
    #[serde(deserialize_with = "prefer_server_cipher_suites")]
    prefer_server_cipher_suites: (),
}

/// Fields that configure Go's own TLS.
macro_rules! go_only {
    ($($field:ident: $why:literal;)+) => { $(
        fn $field<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
            Err(D::Error::custom(concat!(stringify!($field), " is for Go's TLS only: ", $why)))
        }
    )+ };
}
go_only! {
    cipher_suites: "rustls offers sound suites and no others; remove it";
    curve_preferences: "rustls chooses the key exchange; remove it";
    prefer_server_cipher_suites: "rustls always prefers the server's order; remove it";
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    #[serde(deserialize_with = "http2")]
    http2: (),
    #[serde(deserialize_with = "headers")]
    pub(super) headers: HeaderMap,
}

fn http2<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    if bool::deserialize(deserializer)? {
        let why = "http2: this server speaks HTTP/1.1; remove it or set it to false";
        return Err(D::Error::custom(why));
    }
    Ok(())
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
    let given = Option::<BTreeMap<String, String>>::deserialize(deserializer)?.unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let allowed: Option<&[&str]> = match name.as_str() {
            "Strict-Transport-Security" | "Content-Security-Policy" | "X-XSS-Protection" => None,
            "X-Content-Type-Options" => Some(&["nosniff"]),
            "X-Frame-Options" => Some(&["deny", "sameorigin"]),
            _ => return Err(D::Error::custom(format!("header {name} cannot be configured"))),
        };
        if let Some(allowed) = allowed.filter(|a| !a.contains(&value.to_lowercase().as_str())) {
            let allowed = allowed.join(" or ");
            return Err(D::Error::custom(format!("header {name}: {value:?} is not {allowed}")));
        }
        let value = HeaderValue::from_str(&value)
            .map_err(|_| D::Error::custom(format!("header {name}: not a header value")))?;
        headers.insert(HeaderName::from_str(&name).map_err(D::Error::custom)?, value);
    }
    Ok(headers)
}

/// What is asked of the client's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ClientAuth {
    #[default]
    None,
    IfGiven,
    Required,
}

impl<'de> Deserialize<'de> for ClientAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ClientAuth, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" | "NoClientCert" => Ok(ClientAuth::None),
            "VerifyClientCertIfGiven" => Ok(ClientAuth::IfGiven),
            "RequireAndVerifyClientCert" => Ok(ClientAuth::Required),
            unverified @ ("RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert") => {
                Err(D::Error::custom(format!(
                    "client_auth_type: {unverified} would take any certificate unverified; use \
                     VerifyClientCertIfGiven or RequireAndVerifyClientCert"
                )))
            }
            other => Err(D::Error::custom(format!(
                "client_auth_type: {other:?} is not NoClientCert, VerifyClientCertIfGiven or \
                 RequireAndVerifyClientCert"
            ))),
        }
    }
}

/// A name that a client's certificate may bear.
pub(super) struct AllowedSan(pub(super) String);

impl<'de> Deserialize<'de> for AllowedSan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AllowedSan, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.contains('@') {
            let why = "client_allowed_sans: DNS names, URIs and IP addresses only, no e-mail";
            return Err(D::Error::custom(why));
        }
        Ok(AllowedSan(name))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum TlsVersion {
    Tls12,
    Tls13,
}

impl<'de> Deserialize<'de> for TlsVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TlsVersion, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "TLS12" => Ok(TlsVersion::Tls12),
            "TLS13" => Ok(TlsVersion::Tls13),
            old @ ("TLS10" | "TLS11") => Err(D::Error::custom(format!(
                "{old} is broken and for Go's TLS only; the lowest here is TLS12"
            ))),
            other => Err(D::Error::custom(format!("{other:?} is not TLS12 or TLS13"))),
        }
    }
}

/// A bcrypt hash whose cost can be borne.
pub(super) struct PasswordHash {
    pub(super) text: String,
    pub(super) cost: u32,
}

impl<'de> Deserialize<'de> for PasswordHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PasswordHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The hash itself stays out of the message: messages are logged.
        let parts = bcrypt::HashParts::from_str(&text)
            .map_err(|_| D::Error::custom("not a bcrypt hash (make one with htpasswd -nBC 10)"))?;
        let cost = parts.get_cost();
        if cost > MAX_COST {
            let why = format!("a bcrypt cost of {cost} takes too long; {MAX_COST} at most");
            return Err(D::Error::custom(why));
        }
        Ok(PasswordHash { text, cost })
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    #[serde(deserialize_with = "go_duration")]
    pub(super) interval: Duration,
    #[serde(deserialize_with = "burst")]
    pub(super) burst: u32,
}

fn burst<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("burst: 0 would refuse every request")),
        burst => Ok(burst),
    }
}

fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_go_duration(&text)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration such as 500ms or 1m30s")))
}

/// Go's `time.ParseDuration` without signs: numbers with units, one after the other.
fn parse_go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end)?;
        seconds += number.parse::<f64>().ok()?
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = next;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        match serde_saphyr::from_str::<File>(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error.without_snippet().to_string(),
        }
    }

    #[test]
    fn the_toolkits_own_examples_are_read() {
        for text in [
            "",
            "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n",
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  client_auth_type: \
             RequireAndVerifyClientCert\n  client_ca_file: c\n  client_allowed_sans: [x.example]\n  \
             min_version: TLS13\n  max_version: TLS13\n",
            "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    \
             Strict-Transport-Security: max-age=1\n",
            "basic_auth_users:\n  alice: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n",
            "basic_auth_users:\n",
            "rate_limit:\n  interval: 1s\n  burst: 20\n",
        ] {
            assert!(serde_saphyr::from_str::<File>(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, why) in [
            ("tls_config:\n  x: 1\n", 1, "unknown field `tls_config`"),
            ("tls_server_config:\n  cert_file: a\n  certfile: a\n", 3, "unknown field `certfile`"),
            ("tls_server_config:\n  min_version: TLS10\n", 2, "TLS10 is broken"),
            ("tls_server_config:\n  max_version: TLS14\n", 2, "not TLS12 or TLS13"),
            ("tls_server_config:\n  cipher_suites: [A]\n", 2, "cipher_suites is for Go's"),
            ("tls_server_config:\n  curve_preferences: [A]\n", 2, "curve_preferences is for Go's"),
            ("tls_server_config:\n  prefer_server_cipher_suites: true\n", 2, "is for Go's"),
            ("tls_server_config:\n  client_auth_type: RequireAnyClientCert\n", 2, "unverified"),
            ("tls_server_config:\n  client_auth_type: Yes\n", 2, "is not NoClientCert"),
            ("tls_server_config:\n  client_allowed_sans:\n  - a@b\n", 3, "no e-mail"),
            ("http_server_config:\n  http2: true\n", 2, "HTTP/1.1"),
            ("http_server_config:\n  headers:\n    X-Evil: 1\n", 3, "cannot be configured"),
            (
                "http_server_config:\n  headers:\n    X-Frame-Options: maybe\n",
                3,
                "deny or sameorigin",
            ),
            ("basic_auth_users:\n  bob: secret\n", 2, "not a bcrypt hash"),
            (
                "basic_auth_users:\n  bob: $2y$31$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n",
                2,
                "takes too long",
            ),
            ("rate_limit:\n  interval: soon\n  burst: 1\n", 2, "no duration"),
            ("rate_limit:\n  interval: 1s\n  burst: 0\n", 3, "would refuse every request"),
            ("rate_limit:\n  interval: 1s\n", 2, "missing field `burst`"),
            ("a: [", 1, ""),
        ] {
            let error = error_of(text);
            assert!(error.contains(why), "{error}");
            assert!(error.contains(&format!("line {line}")), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("1s", Some(1.0)),
            ("1m30.5s", Some(90.5)),
            ("250ms", Some(0.25)),
            ("0", Some(0.0)),
            ("", None),
            ("1", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(parse_go_duration(text).map(|d| d.as_secs_f64()), expected, "{text}");
        }
    }
}
