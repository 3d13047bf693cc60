//! The bytes of dtrace's stdout as they are read, into records.

use memchr::memchr;

use super::decode::{Reason, decode};
use super::fast::usual_line;
use super::lines::{Line, Lines};
use super::record::Record;
use super::schema::SCHEMA;

/// Decodes a stream that is cut anywhere. Looks at each byte of a good line once.
#[derive(Default, Debug)]
pub struct Records {
    lines: Lines,
}

impl Records {
    /// Hands over every record, or the reason why there is none, of the lines that `bytes` completes.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Result<Record, Reason>)) {
        let schema = &*SCHEMA;
        while !bytes.is_empty() {
            if self.lines.is_between()
                && let Some((record, rest)) = usual_line(schema, bytes)
            {
                each(Ok(record));
                bytes = rest;
                continue;
            }
            let end = memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1);
            let (line, rest) = bytes.split_at(end);
            self.lines.feed(line, |line| match line {
                Line::Whole(line) => decode(line).transpose().into_iter().for_each(&mut each),
                Line::TooLong => each(Err(Reason::TooLong)),
            });
            bytes = rest;
        }
    }

    /// The stream has ended: whether it ended in the middle of a line. Ready for another stream.
    pub fn finish(&mut self) -> bool {
        self.lines.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(chunks: &[&[u8]]) -> Vec<Result<Record, Reason>> {
        let (mut records, mut out) = (Records::default(), vec![]);
        chunks.iter().for_each(|chunk| records.feed(chunk, |record| out.push(record)));
        if records.finish() {
            out.push(Err(Reason::CutShort));
        }
        out
    }

    #[test]
    fn a_stream_is_its_lines_decoded_one_by_one_however_it_is_cut() {
        let text = b"B 1234567890 9\nC 12345678901234567 0 25 16 16 14\n\nT 1\nZ\nX 5 0 9 1 1 256 \nK 1 0 80 -1\n\
            T 1 12345678901234567890\nE 10 1 99";
        let mut lines: Vec<_> = text.split(|b| *b == b'\n').collect();
        lines.pop();
        let mut expected: Vec<_> = lines.iter().filter_map(|l| decode(l).transpose()).collect();
        expected.push(Err(Reason::CutShort));
        assert_eq!(expected.iter().filter(|r| r.is_ok()).count(), 3);
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(records(&[head, tail]), expected, "cut at {cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_line_is_judged_as_decode_judges_it(
            line in "[BCEFKMRSTXZ]( (-?[0-9]{1,5}|[0-9a-f]{0,20}|[0-9]{7,20})){0,7}( |x|\\r)?",
        ) {
            let expected: Vec<_> = decode(line.as_bytes()).transpose().into_iter().collect();
            let text = format!("{line}\n");
            proptest::prop_assert_eq!(records(&[text.as_bytes()]), expected);
        }

        #[test]
        fn numbers_of_any_length_are_read_as_they_are_written(value: u64, shift in 0u32..64) {
            let (value, wall) = (value >> shift, value >> 1);
            let line = format!("T {} {wall}\n", value >> 1);
            let read = records(&[line.as_bytes()]);
            let at = crate::model::KernelTime(value >> 1);
            proptest::prop_assert_eq!(read, [Ok(Record::Tick { at, wall })]);
        }
    }
}
