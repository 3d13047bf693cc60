//! Just enough of PromQL to see which series a query selects.

/// A series selector: `name{labels}[range]`.
pub(crate) struct Selector<'a> {
    pub(crate) name: &'a str,
    /// What stands between the braces.
    pub(crate) labels: &'a str,
    pub(crate) range: Option<&'a str>,
    /// The function that is applied to it, where one is.
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

/// Whether the word is one of the exporter's metrics, a recording of them, or Prometheus's own about its target.
fn is_metric(word: &str) -> bool {
    ["kqproc_", "process_"].iter().any(|prefix| word.starts_with(prefix))
        || word.contains(":kqproc_")
        || word == "up"
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
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = query[at..].find(is_word).map(|i| at + i) {
        let end = query[begin..].find(|c| !is_word(c)).map_or(query.len(), |i| begin + i);
        let word = &query[begin..end];
        at = end;
        if !is_metric(word) {
            continue;
        }
        let labels =
            query[end..].strip_prefix('{').and_then(|r| r.split_once('}')).map_or("", |(l, _)| l);
        let after =
            &query[end + if query[end..].starts_with('{') { labels.len() + 2 } else { 0 }..];
        let range = after.strip_prefix('[').and_then(|r| r.split_once(']')).map(|(r, _)| r);
        let before = query[..begin].strip_suffix('(').unwrap_or("");
        let function = before.rsplit(|c| !is_word(c)).next().filter(|f| !f.is_empty());
        found.push(Selector { name: word, labels, range, function });
        at = query.len() - after.len();
    }
    found
}
