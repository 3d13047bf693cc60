//! A page as sections of paragraphs, tables and figures. What it says is decided once; the page is then written for a
//! terminal ([`text`]), as Markdown ([`markdown`]) or as HTML ([`super::html`]).

use std::fmt::{Display, Write as _};

use plotters::style::RGBColor;

use super::evidence::dto::PathDto;
use super::explain::life::why;
use super::format::{Hue, Paint, printable};
use super::table::Table;

/// A part of a page with a heading.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) blocks: Vec<Block>,
}

/// What a section is made of.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Block {
    Paragraph(String),
    Table(Table),
    /// Names and values.
    Facts(Vec<(&'static str, String)>),
    /// A plot: HTML alone shows it.
    Figure(Figure),
    /// A way through the kernel, under what it did.
    Reason {
        hue: Hue,
        title: String,
        path: PathDto,
    },
    /// A long text that is shown to those who ask for it: HTML alone has it.
    Details {
        title: &'static str,
        text: String,
    },
}

/// A plot with its caption.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Figure {
    /// Empty if nothing could be drawn.
    pub(super) svg: String,
    pub(super) caption: String,
    pub(super) legend: Vec<(String, RGBColor)>,
}

impl Block {
    pub(super) fn paragraph(text: impl Into<String>) -> Block {
        Block::Paragraph(text.into())
    }
}

pub(super) fn text(sections: &[Section], paint: Paint) -> String {
    let mut out = String::new();
    for Section { title, blocks } in sections {
        let _ = writeln!(out, "\n{}", paint.dye(Hue::Title, title));
        for block in blocks {
            match block {
                Block::Paragraph(text) => {
                    let _ = writeln!(out, "{}", printable(text));
                }
                Block::Table(table) => out += &table.text(paint),
                Block::Facts(facts) => {
                    for (name, value) in facts {
                        let _ = writeln!(out, "{name:<10}{}", printable(value));
                    }
                }
                Block::Reason { hue, title, path } => {
                    why(&mut out, &paint.dye(*hue, title), path);
                }
                Block::Figure(_) | Block::Details { .. } => {}
            }
        }
    }
    out
}

pub(super) fn markdown(sections: &[Section]) -> String {
    let mut out = String::new();
    for Section { title, blocks } in sections {
        let _ = write!(out, "\n## {title}\n");
        for block in blocks {
            match block {
                Block::Paragraph(text) => {
                    let _ = write!(out, "\n{}\n", literal(text));
                }
                Block::Table(table) => {
                    let _ = write!(out, "\n{}", table.markdown());
                }
                Block::Facts(facts) => {
                    list(&mut out, facts.iter().map(|(name, value)| (*name, value.as_str())));
                }
                Block::Reason { title, path, .. } => {
                    let _ = write!(out, "\n### {title}\n\n{}\n", literal(&path.sentence));
                    list(&mut out, path.facts());
                }
                Block::Figure(_) | Block::Details { .. } => {}
            }
        }
    }
    out
}

fn list<'a>(out: &mut String, facts: impl Iterator<Item = (&'static str, &'a str)>) {
    out.push('\n');
    for (name, value) in facts {
        let _ = writeln!(out, "- {name}: {}", literal(value));
    }
}

/// Text that stays text: nothing that Markdown or HTML would take for its own.
pub(super) fn literal(text: impl Display) -> String {
    let mut out = String::new();
    for c in printable(&text.to_string()).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '|' | '*' | '`' | '[' | ']' | '\\' | '#' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}
