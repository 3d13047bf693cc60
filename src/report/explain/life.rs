//! One life of a pid: its time line, its verdicts, and the ways through the kernel behind them. Both what a recording holds
//! and what a running exporter sends become lives, and every life is written here.

use std::fmt::Write as _;

use serde::Serialize;

use crate::model::{KernelTime, Verdict};
use crate::report::evidence::dto::{PathDto, Text, TimelineRow};
use crate::report::format::{Hue, Paint, count_of, printable};
use crate::report::summary::row_hue;

/// One life of the pid: an incarnation.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct ProcessLife {
    /// The tree that it belongs to; `None` for a process that is not watched.
    pub tree: Option<String>,
    /// Since when, on DTrace's clock in nanoseconds; `None` if its beginning was not seen.
    pub since: Option<KernelTime>,
    pub timeline: Vec<TimelineRow>,
    pub judged: Vec<Judged>,
    pub duplicates: Option<Duplicates>,
}

/// A verdict and the way through the kernel behind it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Judged {
    pub fact: Text,
    pub verdict: Text,
    pub path: PathDto,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Duplicates {
    /// How many too many.
    pub count: u64,
    pub path: PathDto,
}

impl ProcessLife {
    /// The time line, and under it why it went as it did.
    pub(super) fn text(&self, out: &mut String, paint: Paint) {
        let zero = self.since.or(self.timeline.first().map(|row| row.at)).unwrap_or_default();
        self.timeline.iter().for_each(|row| row.write(out, zero, paint));
        self.reasons(out, paint);
    }

    fn reasons(&self, out: &mut String, paint: Paint) {
        let good =
            |judged: &Judged| Verdict::from_name(&judged.verdict).is_some_and(Verdict::is_good);
        let wrong: Vec<&Judged> = self.judged.iter().filter(|judged| !good(judged)).collect();
        match wrong[..] {
            [one, other] if (&one.verdict, &one.path) == (&other.verdict, &other.path) => {
                one.text(out, paint, "birth and death are");
            }
            _ => wrong
                .iter()
                .for_each(|judged| judged.text(out, paint, &format!("the {} is", judged.fact))),
        }
        if let Some(Duplicates { count, path }) = &self.duplicates {
            let title = format!("{} too many", count_of(*count, "NOTE_CHILD note"));
            why(out, &paint.dye(Hue::Doubt, &title), path);
        }
        if !self.judged.is_empty() && wrong.is_empty() {
            let _ = writeln!(out, "\n  {}", paint.dye(Hue::Good, "Both witnesses agree."));
        }
    }
}

impl TimelineRow {
    /// Adds the line, its time in milliseconds after `zero`.
    fn write(&self, out: &mut String, zero: KernelTime, paint: Paint) {
        let at = format!("{:+.3}", (self.at.0 as i128 - zero.0 as i128) as f64 / 1e6);
        let times = if self.times > 1 { format!(", {} times", self.times) } else { String::new() };
        let text = printable(&self.text) + &times;
        let witness = printable(self.witness.as_deref().unwrap_or("verdict"));
        let event = paint.dye(self.hue(), &format!("{witness:<8}{text}"));
        let _ = writeln!(out, "{at:>12} ms  {event}");
    }

    fn hue(&self) -> Hue {
        match (self.verdict.as_deref(), self.witness.as_deref()) {
            (Some(verdict), _) => hue_of(verdict),
            (None, Some("gap")) => Hue::Doubt,
            (None, _) => Hue::Plain,
        }
    }
}

impl Judged {
    fn text(&self, out: &mut String, paint: Paint, what: &str) {
        let title = printable(&format!("why {what} {}", self.verdict));
        why(out, &paint.dye(hue_of(&self.verdict), &title), &self.path);
    }
}

/// How a verdict is shown that another release may have sent.
pub(super) fn hue_of(verdict: &str) -> Hue {
    Verdict::from_name(verdict).map_or(Hue::Doubt, |verdict| row_hue(verdict, 1))
}

/// Why something went as it did, under a title: what is known of the way through the kernel.
pub(in crate::report) fn why(out: &mut String, title: &str, path: &PathDto) {
    let _ = writeln!(out, "\n  {title}");
    let what = (!path.sentence.is_empty()).then_some(("what", path.sentence.as_ref()));
    for (name, value) in what.into_iter().chain(path.facts()) {
        let _ = writeln!(out, "    {name:<10}{}", wrapped(&printable(value)));
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
