//! The parts of which the HTML page is made.

use std::fmt::{Display, Write as _};

use plotters::style::RGBColor;

use super::Incident;
use crate::model::Verdict;
use crate::report::escape::Escaped;
use crate::report::format::thousands;
use crate::report::summary::ByWord;

pub(super) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// With a capital at its beginning, as a sentence has it; kqueue has none.
pub(super) fn capital(text: &str) -> String {
    if text.starts_with("kqueue") {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// `598 of 600`, or nothing to speak of.
pub(super) fn share(right: u64, all: u64) -> String {
    if all == 0 {
        "\u{2013}".to_owned()
    } else {
        format!("{} of {}", thousands(right), thousands(all))
    }
}

/// The values of some words, bin by bin.
pub(super) fn sum(by: &ByWord<Vec<u64>>, wanted: &[&str]) -> Vec<u64> {
    let mut sums = vec![];
    for (_, values) in by.iter().filter(|(word, _)| wanted.contains(word)) {
        sums.resize(sums.len().max(values.len()), 0);
        sums.iter_mut().zip(values).for_each(|(sum, n)| *sum += n);
    }
    sums
}

pub(super) fn verdict_class(verdict: Verdict, n: u64) -> &'static str {
    match verdict {
        _ if n == 0 => "zero",
        Verdict::Agreed => "good",
        Verdict::KqueueOnly | Verdict::Undecided => "doubt",
        _ => "bad",
    }
}

pub(super) fn figure(out: &mut String, svg: &str, caption: &str, legend: &[(&str, RGBColor)]) {
    if svg.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<figure role=\"img\" aria-label=\"{}\">\n{svg}<figcaption>{}",
        Escaped(caption),
        Escaped(caption)
    );
    for (name, RGBColor(r, g, b)) in legend {
        let _ = write!(
            out,
            " <span class=\"key\"><i style=\"background:#{r:02x}{g:02x}{b:02x}\"></i>{}</span>",
            Escaped(name)
        );
    }
    out.push_str("</figcaption>\n</figure>\n");
}

pub(super) fn head(out: &mut String, names: &[&str]) {
    out.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for name in names {
        let _ = write!(out, "<th scope=\"col\">{}</th>", Escaped(name));
    }
    out.push_str("</tr></thead>\n");
}

/// A row of numbers.
pub(super) fn row<const N: usize>(
    out: &mut String,
    name: impl Display,
    class: &str,
    cells: [String; N],
) {
    let _ = write!(out, "<tr class=\"{class}\"><th scope=\"row\">{}</th>", Escaped(name));
    for cell in cells {
        let _ = write!(out, "<td class=\"n\">{}</td>", Escaped(cell));
    }
    out.push_str("</tr>\n");
}

/// What happened in the kernel to this incident and those like it.
pub(super) fn why(out: &mut String, incident: &Incident) {
    let path = incident.path;
    let class = verdict_class(incident.verdict, 1);
    let _ = writeln!(
        out,
        "<h3 class=\"{class}\">{} {}</h3>\n<p>{}</p>",
        capital(incident.fact),
        incident.verdict,
        Escaped(path.sentence)
    );
    let facts: Vec<String> =
        [("where", path.function), ("when", path.condition), ("releases", path.releases)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", Escaped(value)))
            .collect();
    let _ = writeln!(
        out,
        "<dl class=\"why\">{}<dt>sure</dt><dd>{}</dd></dl>",
        facts.concat(),
        path.sure
    );
}

/// The number, or nothing where nobody knows it.
pub(super) fn known(osreldate: u32) -> String {
    if osreldate == 0 { String::new() } else { osreldate.to_string() }
}
