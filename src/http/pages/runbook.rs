//! docs/runbook.md as a page, so that whoever is on call has it where the incident is.

use std::sync::LazyLock;

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

use super::page;

/// The page: it never changes.
pub(in crate::http) static RUNBOOK: LazyLock<String> =
    LazyLock::new(|| page("Runbook", "", &render(include_str!("../../../docs/runbook.md"))));

/// HTML whose headings have the anchors that the text's own links name.
fn render(markdown: &str) -> String {
    let mut events: Vec<Event<'_>> =
        Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH).collect();
    let mut heading = None;
    for i in 0..events.len() {
        match &events[i] {
            Event::Start(Tag::Heading { .. }) => heading = Some((i, String::new())),
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, title)) = &mut heading {
                    title.push_str(text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((start, title)) = heading.take()
                    && let Event::Start(Tag::Heading { id, .. }) = &mut events[start]
                {
                    *id = Some(CowStr::from(anchor(&title)));
                }
            }
            _ => {}
        }
    }
    let mut page = String::from("<article class=\"runbook\">\n");
    html::push_html(&mut page, events.into_iter());
    page.push_str("</article>\n");
    page
}

/// A heading's anchor, as GitHub makes it.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between `before` and the next quote, for each place.
    fn quoted<'a>(page: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        page.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn every_link_within_the_runbook_leads_somewhere() {
        let anchors: Vec<&str> = quoted(&RUNBOOK, " id=\"").collect();
        assert!(anchors.contains(&"verdict-lost-silent"));
        let links: Vec<&str> = quoted(&RUNBOOK, "href=\"#").collect();
        assert!(links.len() > 10);
        for link in links {
            assert!(anchors.contains(&link), "#{link} leads nowhere");
        }
    }

    #[test]
    fn headings_have_the_anchors_of_github() {
        let page = render("## Verdict `lost silent`: why?\n\ntext\n");
        assert!(page.contains("<h2 id=\"verdict-lost-silent-why\">"), "{page}");
    }
}
