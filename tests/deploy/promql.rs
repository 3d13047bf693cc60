//! A small parser of PromQL: which series a query selects, and the labels that it groups by.

/// A series selector: `name{labels}[range]`.
pub(crate) struct Selector<'a> {
    pub(crate) name: &'a str,
    /// The text between the braces.
    pub(crate) labels: &'a str,
    pub(crate) range: Option<&'a str>,
    /// The function that is applied to it, if any.
    pub(crate) function: Option<&'a str>,
}

impl Selector<'_> {
    /// The names of the labels that it matches on.
    pub(crate) fn label_names(&self) -> Vec<&str> {
        let matchers = split_outside_quotes(self.labels, ',');
        matchers.iter().filter_map(|m| Some(m[..m.find(['=', '!'])?].trim())).collect()
    }
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut start, mut parts) = (false, 0, Vec::new());
    for (i, c) in text.char_indices() {
        quoted ^= c == '"';
        if c == separator && !quoted {
            parts.push(&text[start..i]);
            start = i + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Whether this is the name of a metric of the exporter, of a recording of one, or of `up`.
fn is_metric(name: &str) -> bool {
    ["kqproc_", "process_"].iter().any(|prefix| name.starts_with(prefix))
        || name.contains(":kqproc_")
        || name == "up"
}

/// The labels that a query groups or joins by.
pub(crate) fn grouping(query: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for keyword in ["by", "on", "group_left"] {
        for (at, _) in query.match_indices(keyword) {
            let rest = query[at + keyword.len()..].trim_start();
            let begins = query[..at].chars().next_back().is_none_or(|c| c.is_whitespace());
            if let Some((list, _)) =
                rest.strip_prefix('(').and_then(|r| r.split_once(')')).filter(|_| begins)
            {
                found.extend(list.split(',').map(str::trim));
            }
        }
    }
    found
}

/// The selectors of a query, as far as they are about the exporter's own metrics.
pub(crate) fn selectors(query: &str) -> Vec<Selector<'_>> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = query[at..].find(in_name).map(|i| at + i) {
        let end = query[begin..].find(|c| !in_name(c)).map_or(query.len(), |i| begin + i);
        let name = &query[begin..end];
        at = end;
        if !is_metric(name) {
            continue;
        }
        let labels =
            query[end..].strip_prefix('{').and_then(|r| r.split_once('}')).map_or("", |(l, _)| l);
        let after =
            &query[end + if query[end..].starts_with('{') { labels.len() + 2 } else { 0 }..];
        let range = after.strip_prefix('[').and_then(|r| r.split_once(']')).map(|(r, _)| r);
        let before = query[..begin].strip_suffix('(').unwrap_or("");
        let function = before.rsplit(|c| !in_name(c)).next().filter(|f| !f.is_empty());
        found.push(Selector { name, labels, range, function });
        at = query.len() - after.len();
    }
    found
}
