//! docs/runbook.md as a page, for links from an incident to what to do about it.

use std::sync::LazyLock;

use maud::{Markup, PreEscaped, html};
use pulldown_cmark::html::push_html;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

use super::page;
use crate::http::paths::TOP;

/// The page: it never changes.
pub(in crate::http) static RUNBOOK: LazyLock<String> = LazyLock::new(|| {
    page(TOP, "Runbook", html! {}, render(include_str!("../../../docs/runbook.md")))
});

/// HTML whose headings have the anchors that the text's own links name.
fn render(markdown: &str) -> Markup {
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
    let mut is_elsewhere = false;
    // The files of the repository that the text leads to are not served: their names stay.
    events.retain(|event| match event {
        Event::Start(Tag::Link { dest_url, .. }) => {
            is_elsewhere = !dest_url.starts_with('#') && !dest_url.contains("://");
            !is_elsewhere
        }
        Event::End(TagEnd::Link) => !std::mem::take(&mut is_elsewhere),
        _ => true,
    });
    let mut text = String::new();
    push_html(&mut text, events.into_iter());
    html! { article.runbook { (PreEscaped(text)) } }
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
    fn what_is_not_served_is_named_and_no_link() {
        let text = "[a file](../deploy/README.md), [here](#here), [web](https://x.example/)";
        let page = render(text).into_string();
        assert!(page.contains("<p>a file, <a href=\"#here\">here</a>, <a href="), "{page}");
    }

    #[test]
    fn headings_have_the_anchors_of_github() {
        let page = render("## Verdict `lost silent`: why?\n\ntext\n").into_string();
        assert!(page.contains("<h2 id=\"verdict-lost-silent-why\">"), "{page}");
    }
}
