//! The explanation for a person.

use std::fmt::Write as _;

use super::{Duplicates, Explanation, Judged, Life, Line, Voice};
use crate::model::{Fact, Verdict};
use crate::report::format::{Hue, Paint, count_of, printable};
use crate::report::paths::KernelPath;
use crate::report::summary::row_hue;

impl Explanation {
    /// The time line of each life, and under it why it went as it did.
    pub fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}\n{}, regime {}",
            paint.dye(Hue::Title, &format!("pid {} in {}", self.pid, printable(&self.source))),
            printable(&self.kernel.uname),
            self.regime
        );
        for (i, life) in self.lives.iter().enumerate() {
            let tree = life.tree.as_deref().map(printable);
            let tree = tree.map_or("not in a watched tree".to_owned(), |t| format!("tree {t}"));
            let title = format!("life {} of {}, {tree}", i + 1, self.lives.len());
            let _ = writeln!(out, "\n{}", paint.dye(Hue::Title, &title));
            life.text(&mut out, paint);
        }
        if self.left_out > 0 {
            let _ = writeln!(out, "\n{} left out", count_of(self.left_out, "further word"));
        }
        out
    }
}

impl Life {
    fn text(&self, out: &mut String, paint: Paint) {
        self.time_line(out, paint);
        self.reasons(out, paint);
    }

    pub(super) fn time_line(&self, out: &mut String, paint: Paint) {
        let zero = self.since.or(self.lines.iter().find_map(|line| line.at));
        for line in &self.lines {
            let at = match (line.at, zero) {
                (Some(at), Some(zero)) => {
                    format!("{:+.3}", (at.0 as i128 - zero.0 as i128) as f64 / 1e6)
                }
                _ => "?".to_owned(),
            };
            let times =
                if line.times > 1 { format!(", {} times", line.times) } else { String::new() };
            let text = printable(&line.text) + &times;
            let said = paint.dye(hue(line), &format!("{:<8}{text}", line.voice));
            let _ = writeln!(out, "{at:>12} ms  {said}");
        }
    }

    fn reasons(&self, out: &mut String, paint: Paint) {
        let wrong: Vec<&Judged> =
            self.judged.iter().filter(|j| j.verdict != Verdict::Agreed).collect();
        match wrong[..] {
            [birth, death] if birth.verdict == death.verdict && birth.path == death.path => {
                birth.text(out, paint, "birth and death are");
            }
            _ => wrong.iter().for_each(|judged| match judged.fact {
                Fact::Birth => judged.text(out, paint, "the birth is"),
                Fact::Death => judged.text(out, paint, "the death is"),
            }),
        }
        if let Some(Duplicates { count, path }) = &self.duplicates {
            let title = count_of(*count, "NOTE_CHILD note");
            why(out, &paint.dye(Hue::Doubt, &format!("{title} too many")), path);
        }
        if !self.judged.is_empty() && self.judged.iter().all(|j| j.verdict == Verdict::Agreed) {
            let _ = writeln!(out, "\n  {}", paint.dye(Hue::Good, "Both witnesses agree."));
        }
    }
}

impl Judged {
    fn text(&self, out: &mut String, paint: Paint, what: &str) {
        let title = format!("why {what} {}", self.verdict);
        why(out, &paint.dye(row_hue(self.verdict, 1), &title), &self.path);
    }
}

fn why(out: &mut String, title: &str, path: &KernelPath) {
    let KernelPath { sentence, function, condition, releases, sure } = path;
    because(out, title, [sentence, function, condition, releases, sure.as_str()]);
}

/// The words of a kernel path, in the order of its fields.
pub(super) fn because(out: &mut String, title: &str, words: [&str; 5]) {
    let _ = writeln!(out, "\n  {title}");
    let names = ["what", "where", "when", "releases", "sure"];
    for (name, value) in names.into_iter().zip(words) {
        if !value.is_empty() {
            let _ = writeln!(out, "    {name:<10}{}", wrapped(value));
        }
    }
}

/// `text` in lines of at most 100 columns, under the first one.
fn wrapped(text: &str) -> String {
    const INDENT: usize = 14;
    let (mut out, mut column) = (String::new(), INDENT);
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > INDENT && column + 1 + width > 100 {
            let _ = write!(out, "\n{:INDENT$}", "");
            column = INDENT;
        } else if column > INDENT {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

fn hue(line: &Line) -> Hue {
    match (line.voice, line.verdict) {
        (_, Some(verdict)) => row_hue(verdict, 1),
        (Voice::Gap, _) => Hue::Doubt,
        _ => Hue::Plain,
    }
}
