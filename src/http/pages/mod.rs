//! Pages for people: hand-written HTML that works without JavaScript.

pub(super) mod incident;
pub(super) mod runbook;
mod spark;
pub(super) mod status;

use std::fmt::{self, Display, Write};

/// The stylesheet of every page.
pub(super) const CSS: &str = include_str!("status.css");
/// Refreshes the status page in place.
pub(super) const JS: &str = include_str!("status.js");
/// Nothing from elsewhere is loaded or run, and nothing inline either: what slips through escaping stays text.
pub(super) const SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Text from anywhere, such as a tree's name, made harmless in HTML: in elements and in quoted attributes.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

struct Escaper<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                // Invisible characters could turn a name around or hide a part of it.
                c if c.is_control() || is_directional(c) => write!(self.0, "\u{fffd}")?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn is_directional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A whole page around `main`, with more for its head.
fn page(title: &str, head: &str, main: &str) -> String {
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/status.css">
{head}</head>
<body>
<header>
<a class="name" href="/">kqproc_exporter</a>
<nav><a href="/incidents">Incidents</a> <a href="/runbook">Runbook</a> <a href="/-/ready">Ready</a></nav>
</header>
<main>
{main}</main>
<footer>kqproc_exporter {version}</footer>
</body>
</html>
"#,
        title = Escaped(title),
        version = env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_text_or_attribute() {
        assert_eq!(
            Escaped("<script>\"a\" & 'b'\u{202e}\n").to_string(),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{fffd}\u{fffd}"
        );
        assert_eq!(Escaped(7).to_string(), "7");
    }
}
