//! docs/runbook.md as a page, so that whoever is on call has it where the incident is.

use std::fmt::Write;
use std::sync::LazyLock;

use super::{Escaped, page};

/// The page: it never changes.
pub(in crate::http) static RUNBOOK: LazyLock<String> =
    LazyLock::new(|| page("Runbook", "", &render(include_str!("../../../docs/runbook.md"))));

/// Headings become headings with anchors as GitHub makes them; the rest is shown as it is written.
fn render(markdown: &str) -> String {
    let mut html = String::from("<article class=\"runbook\">\n");
    let mut text = String::new();
    let mut fenced = false;
    for line in markdown.lines() {
        fenced ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if fenced || !(1..=4).contains(&level) || !title.starts_with(' ') {
            text.push_str(line);
            text.push('\n');
            continue;
        }
        flush(&mut html, &mut text);
        let title = title.trim();
        let anchor = anchor(title);
        let _ = writeln!(html, "<h{level} id=\"{anchor}\">{}</h{level}>", Escaped(title));
    }
    flush(&mut html, &mut text);
    html.push_str("</article>\n");
    html
}

fn flush(html: &mut String, text: &mut String) {
    if !text.trim().is_empty() {
        let _ = writeln!(html, "<pre>{}</pre>", Lines(text.trim_matches('\n')));
    }
    text.clear();
}

/// Escaped text that keeps its line ends.
struct Lines<'a>(&'a str);

impl std::fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.lines().try_for_each(|line| writeln!(f, "{}", Escaped(line)))
    }
}

fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Verdict;
    use crate::report::evidence::runbook_anchor;

    #[test]
    fn every_verdict_can_be_jumped_to() {
        for verdict in Verdict::ALL.iter().filter(|v| **v != Verdict::Agreed) {
            let id = format!("id=\"{}\"", runbook_anchor(*verdict));
            assert!(RUNBOOK.contains(&id), "{id}");
        }
    }

    #[test]
    fn code_is_no_heading_and_nothing_is_markup() {
        let html = render("# A <b>\n```\n# make x > y\n```\n#tag\n");
        assert!(html.contains("<h1 id=\"a-b\">A &lt;b&gt;</h1>"), "{html}");
        assert!(html.contains("\n# make x &gt; y\n```\n#tag\n</pre>"), "{html}");
    }
}
