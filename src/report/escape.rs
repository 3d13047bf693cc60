//! Cleans text from outside, such as the name of a tree, of control and direction characters before a page shows it.

use std::fmt::{self, Display};

/// Text from anywhere without characters that cannot be seen, which could turn it around or hide a part of it. What is a
/// character of HTML's own is left to what writes the HTML.
pub(crate) struct Clean<T>(pub(crate) T);

impl<T: Display> Display for Clean<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().replace(is_invisible, "\u{fffd}"))
    }
}

/// Whether it controls a terminal or changes the direction of the text behind it.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control() || is_directional(c)
}

/// Whether it changes the direction of the text behind it.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_text_or_attribute() {
        let hostile = Clean("<script>\"a\" & b\u{202e}\n");
        let page = maud::html! { p title=(hostile) { (hostile) } };
        let text = "&lt;script&gt;&quot;a&quot; &amp; b\u{fffd}\u{fffd}";
        assert_eq!(page.into_string(), format!("<p title=\"{text}\">{text}</p>"));
    }
}
