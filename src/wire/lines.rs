//! Bytes as they are read from a pipe, cut anywhere, back into lines.

use memchr::memchr;

/// A longer line is garbage: the longest record has about 90 bytes.
pub(crate) const MAX_LINE: usize = 4096;

/// Puts lines together across reads. Holds at most `MAX_LINE` bytes; allocates once.
#[derive(Default, Debug)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    /// Inside a line that is too long: its bytes are dropped up to the next newline.
    skipping: bool,
}

/// A line without its newline, or why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// A whole line.
    Whole(&'a [u8]),
    /// A line of more than `MAX_LINE` bytes, handed over once.
    TooLong,
}

impl Lines {
    /// Hands over every line that `bytes` completes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some((head, [_newline, rest @ ..])) =
            memchr(b'\n', bytes).and_then(|end| bytes.split_at_checked(end))
        {
            bytes = rest;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.len() + head.len() > MAX_LINE {
                each(Line::TooLong);
            } else if self.partial.is_empty() {
                each(Line::Whole(head));
            } else {
                self.partial.extend_from_slice(head);
                each(Line::Whole(&self.partial));
            }
            self.partial.clear();
        }
        if self.skipping {
            return;
        }
        if self.partial.len() + bytes.len() > MAX_LINE {
            each(Line::TooLong);
            self.partial.clear();
            self.skipping = true;
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Whether the next byte begins a line.
    #[inline]
    pub(crate) fn is_between(&self) -> bool {
        self.partial.is_empty() && !self.skipping
    }

    /// The stream has ended: whether it ended in the middle of a line. Ready for another stream.
    pub(crate) fn finish(&mut self) -> bool {
        let cut = !self.partial.is_empty();
        self.partial.clear();
        self.skipping = false;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> (Vec<Option<Vec<u8>>>, bool) {
        let (mut lines, mut out) = (Lines::default(), vec![]);
        for chunk in chunks {
            lines.feed(chunk, |line| {
                out.push(match line {
                    Line::Whole(l) => Some(l.to_vec()),
                    Line::TooLong => None,
                })
            });
        }
        (out, lines.finish())
    }

    #[test]
    fn lines_survive_any_cut() {
        let text = b"one\n\ntwo and more\nthree\n";
        let whole = lines(&[text]);
        for cut in 0..=text.len() {
            assert_eq!(lines(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(whole.0.len(), 4);
        assert!(!whole.1);
        assert!(lines(&[b"cut short"]).1);
    }

    #[test]
    fn a_line_of_4_mib_costs_itself() {
        let long = vec![b'x'; 4 << 20];
        let (out, cut) = lines(&[b"a\n", &long[..77], &long, b"\nb\n"]);
        assert_eq!(out, [Some(b"a".to_vec()), None, Some(b"b".to_vec())]);
        assert!(!cut);
        assert_eq!(lines(&[&[&long[..], b"\nb\n"].concat()]).0, [None, Some(b"b".to_vec())]);
    }
}
