//! Pages as single HTML files that need nothing else: no network, no script.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::style::RGBColor;

use super::answer::Soundness;
use super::escape::Clean;
use super::section::{Block, Figure, Section};

const CSS: &str = include_str!("report.css");

/// A whole page: the answer with more below it, then the sections. `source` is where its figures come from.
pub(super) fn page(uname: &str, source: &str, header: &Header<'_>, sections: &[Section]) -> String {
    let Header { decision, answer, advice, more } = header;
    let uname = if uname.is_empty() { "this kernel" } else { uname };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                title { (Clean(source)) ": " (decision) }
                style { (PreEscaped(CSS)) }
            }
            body {
                main {
                    header class=(decision) {
                        p.kicker { "Does kqueue lose processes on " (Clean(uname)) "?" }
                        h1 { span.badge { (capital(decision.as_str())) } " " (Clean(capital(answer))) }
                        p.advice { (Clean(advice)) }
                    }
                    (more)
                    @for Section { title, blocks } in sections {
                        section {
                            h2 { (title) }
                            @for block in blocks { (block_html(block)) }
                        }
                    }
                }
                footer {
                    "Made by kqproc_exporter " (env!("CARGO_PKG_VERSION")) " from " (Clean(source)) "."
                }
            }
        }
    };
    page.into_string()
}

/// What a page begins with.
pub(super) struct Header<'a> {
    pub(super) decision: Soundness,
    /// One sentence.
    pub(super) answer: &'a str,
    /// What to do, in another one.
    pub(super) advice: &'a str,
    /// What follows at a glance.
    pub(super) more: Markup,
}

fn block_html(block: &Block) -> Markup {
    match block {
        Block::Paragraph(text) => html! { p { (Clean(text)) } },
        Block::Table(table) => table.html(),
        Block::Facts(facts) => html! {
            div.scroll {
                table.facts {
                    @for (name, value) in facts {
                        tr { th scope="row" { (name) } td { (Clean(value)) } }
                    }
                }
            }
        },
        Block::Figure(figure) if figure.svg.is_empty() => html! {},
        Block::Figure(Figure { svg, caption, legend }) => html! {
            figure role="img" aria-label=(caption) {
                (PreEscaped(svg))
                figcaption {
                    (caption)
                    @for (name, RGBColor(r, g, b)) in legend {
                        " "
                        span.key {
                            i style=(format!("background:#{r:02x}{g:02x}{b:02x}")) {}
                            (name)
                        }
                    }
                }
            }
        },
        Block::Reason { hue, title, path } => html! {
            h3 class=(hue.class()) { (title) }
            p { (path.sentence) }
            dl.why {
                @for (name, value) in path.facts() {
                    dt { (name) } dd { (value) }
                }
            }
        },
        Block::Details { title, text } => html! {
            details {
                summary { (title) }
                pre { @for line in text.lines() { (Clean(line)) "\n" } }
            }
        },
    }
}

/// With a capital at its beginning, as a sentence has it; kqueue has none.
pub(super) fn capital(text: &str) -> String {
    if text.starts_with("kqueue") {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
