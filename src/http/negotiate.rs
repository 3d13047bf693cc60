//! What the client asked for: format and encoding.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::metrics::page::Format;

/// OpenMetrics where the client likes it at least as well as plain text, as Prometheus does.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let (mut open, mut text) = (0.0, 0.0);
    for choice in choices(headers, ACCEPT) {
        let best = match choice.name {
            "application/openmetrics-text" if choice.version.is_none_or(|v| v == "1.0.0") => {
                &mut open
            }
            "text/plain" | "text/*" | "*/*" => &mut text,
            _ => continue,
        };
        *best = choice.quality.max(*best);
    }
    if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Text }
}

/// Whether the client takes gzip.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    let named = choices(headers, ACCEPT_ENCODING).find(|c| c.name.eq_ignore_ascii_case("gzip"));
    let named = named.or_else(|| choices(headers, ACCEPT_ENCODING).find(|c| c.name == "*"));
    named.is_some_and(|c| c.quality > 0.0)
}

/// Whether the client would rather have a page for people than data: a browser does.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    choices(headers, ACCEPT).any(|choice| choice.name == "text/html" && choice.quality > 0.0)
}

struct Choice<'a> {
    name: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

fn choices(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Choice<'_>> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(choice)
}

fn choice(text: &str) -> Choice<'_> {
    let mut parts = text.split(';').map(str::trim);
    let mut choice = Choice { name: parts.next().unwrap_or(""), version: None, quality: 1.0 };
    for part in parts {
        match part.split_once('=') {
            Some(("q" | "Q", quality)) => choice.quality = quality.trim().parse().unwrap_or(0.0),
            Some(("version", version)) => choice.version = Some(version.trim()),
            _ => {}
        }
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn openmetrics_comes_only_when_it_is_liked_best() {
        use Format::{OpenMetrics, Text};
        for (accept, expected) in [
            ("", Text),
            ("*/*", Text),
            ("text/plain;version=0.0.4", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2", OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; q=0.1, text/plain", Text),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=x,;;=,", Text),
        ] {
            assert_eq!(format(&headers(ACCEPT, accept)), expected, "{accept}");
        }
    }

    #[test]
    fn gzip_comes_only_on_request() {
        for (accept, expected) in [
            ("", false),
            ("identity", false),
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0, *", false),
            ("*", true),
            ("deflate, br", false),
        ] {
            assert_eq!(gzip(&headers(ACCEPT_ENCODING, accept)), expected, "{accept}");
        }
    }
}
