//! The web configuration file, in exporter-toolkit's YAML. An error names its line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::de::{Deserialize, Deserializer, Error};

use crate::duration;

/// bcrypt's work doubles with each step: 2^14 is about a second for one guess.
const MAX_COST: u32 = 14;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebConfigFile {
    pub(super) tls_server_config: Option<TlsConfig>,
    pub(super) http_server_config: Option<Http>,
    pub(super) basic_auth_users: Option<BTreeMap<String, PasswordHash>>,
    #[serde(deserialize_with = "rate_limit")]
    pub(super) rate_limit: Option<RateLimit>,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsConfig {
    #[serde(deserialize_with = "unless_blank")]
    pub(super) cert: Option<String>,
    #[serde(deserialize_with = "unless_blank")]
    pub(super) cert_file: Option<PathBuf>,
    #[serde(deserialize_with = "unless_blank")]
    pub(super) key: Option<String>,
    #[serde(deserialize_with = "unless_blank")]
    pub(super) key_file: Option<PathBuf>,
    pub(super) client_auth_type: ClientAuth,
    #[serde(deserialize_with = "unless_blank")]
    pub(super) client_ca: Option<String>,
    #[serde(deserialize_with = "unless_blank")]
    pub(super) client_ca_file: Option<PathBuf>,
    #[serde(deserialize_with = "allowed_sans")]
    pub(super) client_allowed_sans: Vec<AllowedSan>,
    pub(super) min_version: Option<TlsVersion>,
    pub(super) max_version: Option<TlsVersion>,
    // These configure Go's own TLS. Their defaults are accepted; any other value is refused with a reason.
    #[serde(deserialize_with = "cipher_suites")]
    cipher_suites: (),
    #[serde(deserialize_with = "curve_preferences")]
    curve_preferences: (),
    #[serde(deserialize_with = "prefer_server_cipher_suites")]
    prefer_server_cipher_suites: (),
}

/// exporter-toolkit takes an empty string for no value.
fn unless_blank<'de, D: Deserializer<'de>, T: From<String>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()).map(T::from))
}

/// An empty list admits no client in exporter-toolkit. It is more likely a mistake, so it is refused.
fn allowed_sans<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AllowedSan>, D::Error> {
    let names = Option::<Vec<AllowedSan>>::deserialize(deserializer)?.unwrap_or_default();
    if names.is_empty() {
        let why =
            "client_allowed_sans: a list without a name admits no client; add names, or remove it";
        return Err(D::Error::custom(why));
    }
    Ok(names)
}

fn cipher_suites<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    let why =
        "cipher_suites is for Go's TLS only: rustls offers sound suites and no others; remove it";
    only_empty(deserializer, why)
}

fn curve_preferences<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    let why = "curve_preferences is for Go's TLS only: rustls chooses the key exchange; remove it";
    only_empty(deserializer, why)
}

fn only_empty<'de, D: Deserializer<'de>>(deserializer: D, why: &str) -> Result<(), D::Error> {
    match Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default().is_empty() {
        true => Ok(()),
        false => Err(D::Error::custom(why)),
    }
}

fn prefer_server_cipher_suites<'de, D: Deserializer<'de>>(d: D) -> Result<(), D::Error> {
    match Option::<bool>::deserialize(d)?.unwrap_or(true) {
        true => Ok(()),
        false => Err(D::Error::custom(
            "prefer_server_cipher_suites: rustls always prefers the server's order; remove it",
        )),
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    /// Allows HTTP/2 in exporter-toolkit. This server negotiates HTTP/1.1 with either value.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    #[serde(deserialize_with = "headers")]
    pub(super) headers: HeaderMap,
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum ClientAuth {
    #[default]
    None,
    IfGiven,
    Required,
}

impl<'de> Deserialize<'de> for ClientAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ClientAuth, D::Error> {
        match Option::<String>::deserialize(deserializer)?.unwrap_or_default().as_str() {
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
        if name.is_empty() || name.contains('@') {
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

/// The token bucket of the whole server; an interval of 0 means no limit.
#[derive(serde::Deserialize, Clone, Copy, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RateLimit {
    #[serde(deserialize_with = "go_duration")]
    pub(super) interval: Duration,
    pub(super) burst: u32,
}

/// No limit is the same as an interval of 0.
fn rate_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RateLimit>, D::Error> {
    let given = Option::<RateLimit>::deserialize(deserializer)?;
    let rate = given.filter(|rate| !rate.interval.is_zero());
    match rate {
        Some(RateLimit { burst: 0, .. }) => {
            Err(D::Error::custom("rate_limit: a burst of 0 would refuse every request"))
        }
        rate => Ok(rate),
    }
}

fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_else(|| "0".to_owned());
    duration::parse(&text)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration such as 500ms or 1m30s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        match serde_saphyr::from_str::<WebConfigFile>(text) {
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
            assert!(serde_saphyr::from_str::<WebConfigFile>(text).is_ok(), "{text}");
        }
    }

    /// What exporter-toolkit documents as a default, or reads as unset.
    #[test]
    fn fault_10_documented_defaults_are_accepted() {
        for text in [
            "http_server_config:\n  http2: true\n",
            "http_server_config:\n  http2:\n  headers:\n",
            "tls_server_config:\n  prefer_server_cipher_suites: true\n",
            "tls_server_config:\n  prefer_server_cipher_suites:\n",
            "tls_server_config:\n  cipher_suites: []\n  curve_preferences: []\n",
            "tls_server_config:\n  cipher_suites:\n  curve_preferences:\n",
            "tls_server_config:\n  min_version:\n  max_version:\n",
            "tls_server_config:\n  client_auth_type: NoClientCert\n  client_ca_file: \"\"\n  client_ca: ''\n",
            "tls_server_config:\n  client_ca_file:\n  client_ca:\n  client_auth_type:\n",
            "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
            "rate_limit: {}\n",
            "rate_limit:\n  interval:\n  burst: 20\n",
            "rate_limit:\n  interval: 0\n  burst: 0\n",
            "rate_limit:\n  interval: 0s\n  burst: 0\n",
        ] {
            let file = serde_saphyr::from_str::<WebConfigFile>(text);
            let file = file.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(file.rate_limit.is_none(), "{text}");
            let tls = file.tls_server_config.unwrap_or_default();
            assert!(tls.client_ca.is_none() && tls.client_ca_file.is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_reported_with_its_line() {
        for (text, line, why) in [
            ("tls_config:\n  x: 1\n", 1, "unknown field `tls_config`"),
            ("tls_server_config:\n  cert_file: a\n  certfile: a\n", 3, "unknown field `certfile`"),
            ("tls_server_config:\n  min_version: TLS10\n", 2, "TLS10 is broken"),
            ("tls_server_config:\n  max_version: TLS14\n", 2, "not TLS12 or TLS13"),
            ("tls_server_config:\n  cipher_suites: [A]\n", 2, "cipher_suites is for Go's"),
            ("tls_server_config:\n  curve_preferences: [A]\n", 2, "curve_preferences is for Go's"),
            ("tls_server_config:\n  prefer_server_cipher_suites: false\n", 2, "always prefers"),
            ("tls_server_config:\n  client_auth_type: RequireAnyClientCert\n", 2, "unverified"),
            ("tls_server_config:\n  client_auth_type: Yes\n", 2, "is not NoClientCert"),
            ("tls_server_config:\n  client_allowed_sans:\n  - a@b\n", 3, "no e-mail"),
            ("tls_server_config:\n  client_allowed_sans: ['']\n", 2, "DNS names"),
            ("tls_server_config:\n  client_allowed_sans: []\n", 2, "without a name"),
            ("tls_server_config:\n  client_allowed_sans:\n", 2, "without a name"),
            ("http_server_config:\n  http2: maybe\n", 2, "bool"),
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
            ("rate_limit:\n  interval: 1s\n  burst: 0\n", 2, "would refuse every request"),
            ("rate_limit:\n  interval: 1s\n", 2, "would refuse every request"),
            ("a: [", 1, ""),
        ] {
            let error = error_of(text);
            assert!(error.contains(why), "{error}");
            assert!(error.contains(&format!("line {line}")), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
