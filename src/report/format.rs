//! Colour on a terminal, and numbers as a person reads them.

use anstyle::{AnsiColor, Style};

use super::escape::is_invisible;

/// Whether words are coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paint {
    /// Bare text.
    Plain,
    /// ANSI escapes.
    Ansi,
}

/// What a colour means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hue {
    /// As it should be.
    Good,
    /// kqueue failed.
    Bad,
    /// Not known.
    Doubt,
    /// Of no interest here.
    Dim,
    /// A title.
    Title,
    /// Like everything else.
    Plain,
}

impl Paint {
    /// `text` in this hue.
    pub(crate) fn dye(self, hue: Hue, text: &str) -> String {
        let style = hue.style();
        if self == Paint::Plain { text.to_owned() } else { format!("{style}{text}{style:#}") }
    }
}

impl Hue {
    /// The class of the pages' stylesheets that shows it.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Hue::Good => "good",
            Hue::Bad => "bad",
            Hue::Doubt => "doubt",
            Hue::Dim => "zero",
            Hue::Title | Hue::Plain => "",
        }
    }

    /// How a terminal shows it. Both of a terminal's backgrounds bear these.
    pub(crate) const fn style(self) -> Style {
        match self {
            Hue::Plain => Style::new(),
            Hue::Good => AnsiColor::Green.on_default(),
            Hue::Bad => AnsiColor::Red.on_default(),
            Hue::Doubt => AnsiColor::Yellow.on_default(),
            Hue::Dim => Style::new().dimmed(),
            Hue::Title => Style::new().bold(),
        }
    }
}

/// `text` without anything that steers a terminal: characters that control it or the direction of text are spelled out.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 birth`, `2 births`: `noun` gets an s where English wants one.
pub(crate) fn count_of(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// Nanoseconds in the unit that suits them: `830 ns`, `67.1 ms`, `2.1 s`.
pub fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        // What rounds to 1000.0 has the next unit.
        1_000..999_950 => format!("{:.1} us", ns as f64 / 1e3),
        999_950..999_950_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("it's\x1b[2J\n\u{9b}"), "it's\\u{1b}[2J\\n\\u{9b}");
        assert_eq!(printable("\u{202e}gpj.exe\u{61c}"), "\\u{202e}gpj.exe\\u{61c}");
    }

    #[test]
    fn durations_have_their_unit() {
        assert_eq!(duration(830), "830 ns");
        assert_eq!(duration(1023), "1.0 us");
        assert_eq!(duration(999_949), "999.9 us");
        assert_eq!(duration(999_950), "1.0 ms");
        assert_eq!(duration(67_108_863), "67.1 ms");
        assert_eq!(duration(999_999_999), "1.0 s");
        assert_eq!(duration(2_147_483_647), "2.1 s");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(count_of(1, "birth"), "1 birth");
        assert_eq!(count_of(0, "birth"), "0 births");
    }

    #[test]
    fn plain_text_has_no_escapes() {
        assert_eq!(Paint::Plain.dye(Hue::Bad, "x"), "x");
        assert_eq!(Paint::Ansi.dye(Hue::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
