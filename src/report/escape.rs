//! Text from anywhere inside of HTML.

use std::fmt::{self, Display, Write};

/// Text from anywhere, such as a tree's name, made harmless in HTML: in elements and in quoted attributes.
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

/// Text from anywhere without characters that cannot be seen, which could turn it around or hide a part of it. What is a
/// character of HTML's own is left to what writes the HTML.
pub(super) struct Clean<T>(pub(super) T);

impl<T: Display> Display for Clean<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let invisible = |c: char| c.is_control() || is_directional(c);
        f.write_str(&self.0.to_string().replace(invisible, "\u{fffd}"))
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

/// Whether it changes the direction of the text behind it.
pub(crate) fn is_directional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
