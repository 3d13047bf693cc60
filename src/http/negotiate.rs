//! Content negotiation: the format and encoding that a request asks for.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use super::query::{self, BadQuery};
use crate::metrics::page::ExpositionFormat;

/// OpenMetrics if the client likes it at least as well as plain text, as Prometheus does.
pub(super) fn format(headers: &HeaderMap) -> ExpositionFormat {
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
    if open > 0.0 && open >= text { ExpositionFormat::OpenMetrics } else { ExpositionFormat::Text }
}

/// Whether the client takes gzip.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    let named = choices(headers, ACCEPT_ENCODING).find(|c| c.name.eq_ignore_ascii_case("gzip"));
    let named = named.or_else(|| choices(headers, ACCEPT_ENCODING).find(|c| c.name == "*"));
    named.is_some_and(|c| c.quality > 0.0)
}

/// The format of an answer that both people and programs ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AnswerFormat {
    Html,
    Json,
}

impl AnswerFormat {
    /// What `?format=` asks for, if it is there.
    ///
    /// # Errors
    /// It asks for something else.
    pub(super) fn asked(query: &str) -> Result<Option<AnswerFormat>, BadQuery> {
        let asked = query::pairs(query).find(|(name, value)| name == "format" && !value.is_empty());
        asked.map_or(Ok(None), |(name, value)| match value.as_str() {
            "html" => Ok(Some(AnswerFormat::Html)),
            "json" => Ok(Some(AnswerFormat::Json)),
            _ => Err(BadQuery::Value { name, wanted: "html or json".to_owned() }),
        })
    }

    /// A page if the client likes one at least as well as data, as a browser does; else data.
    pub(super) fn liked(headers: &HeaderMap) -> AnswerFormat {
        let quality = |name: &str| {
            let named = choices(headers, ACCEPT).filter(|c| c.name.eq_ignore_ascii_case(name));
            named.map(|choice| choice.quality).fold(0.0, f32::max)
        };
        let html = quality("text/html");
        if html > 0.0 && html >= quality("application/json") {
            AnswerFormat::Html
        } else {
            AnswerFormat::Json
        }
    }
}

struct AcceptedType<'a> {
    name: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

fn choices(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = AcceptedType<'_>> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(choice)
}

fn choice(text: &str) -> AcceptedType<'_> {
    let mut parts = text.split(';').map(str::trim);
    let mut choice = AcceptedType { name: parts.next().unwrap_or(""), version: None, quality: 1.0 };
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
        use ExpositionFormat::{OpenMetrics, Text};
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
    fn a_page_comes_only_where_it_is_liked_as_well_as_data() {
        for (accept, expected) in [
            ("", AnswerFormat::Json),
            ("*/*", AnswerFormat::Json),
            ("application/json", AnswerFormat::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", AnswerFormat::Html),
            ("Text/HTML", AnswerFormat::Html),
            ("text/html;q=0.1, application/json", AnswerFormat::Json),
            ("text/html;q=0", AnswerFormat::Json),
        ] {
            assert_eq!(AnswerFormat::liked(&headers(ACCEPT, accept)), expected, "{accept}");
        }
        assert_eq!(AnswerFormat::asked("pid=1&format=html"), Ok(Some(AnswerFormat::Html)));
        assert_eq!(AnswerFormat::asked("format="), Ok(None));
        assert!(AnswerFormat::asked("format=xml").is_err());
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
