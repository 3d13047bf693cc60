//! Decodes dtrace's stdout, as it is read from a pipe, into records. The two `m` lines of one kevent(2) call of the reader are
//! joined into one [`Mark`].

use memchr::memchr;
use memchr::memmem;

use super::decode::{Reason, decode};
use super::fast::usual_line;
use super::lines::{Line, Lines};
use super::record::{Mark, Record};
use super::schema::SCHEMA;
use crate::model::KernelTime;

/// Decodes a stream that is cut anywhere. Looks at each byte of a good line once.
#[derive(Default, Debug)]
pub struct Records {
    lines: Lines,
    calls: CallStarts,
}

/// The latest beginnings of the reader's calls, by which a mark by getpriority learns when its call began. There is one
/// call at a time; a few are kept because dtrace may print the CPUs' buffers one after the other.
#[derive(Default, Debug)]
struct CallStarts {
    latest: [Option<(u32, KernelTime)>; 8],
    next: usize,
}

impl CallStarts {
    /// The record, completed: a mark whose beginning was dropped keeps a beginning of 0, which is not later.
    #[inline]
    fn pair(&mut self, record: Record) -> Record {
        match record {
            Record::CallMark { at, seq } => {
                if let Some(slot) = self.latest.get_mut(self.next) {
                    *slot = Some((seq, at));
                }
                self.next = (self.next + 1) % self.latest.len();
                record
            }
            Record::Mark(mark @ Mark { seq: Some(seq), .. }) => {
                let same = |(number, _): &&(u32, KernelTime)| *number == seq;
                let began = self.latest.iter().flatten().filter(same).map(|(_, at)| *at);
                let entered = began.filter(|began| *began <= mark.at).max().unwrap_or_default();
                Record::Mark(Mark { entered, ..mark })
            }
            _ => record,
        }
    }
}

/// What a line of dtrace's stdout is, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Printed<'a> {
    /// A record.
    Record(Record),
    /// A message of dtrace's own, as on stderr: both streams went into one file (`> dtrace.txt 2>&1`).
    Message(&'a [u8]),
    /// Neither: its record is missing.
    Bad(Reason),
}

/// Every message of dtrace(1) begins like this (`dt_handle.c`, `dtrace.c`).
pub(crate) const MESSAGE: &[u8] = b"dtrace: ";

impl Records {
    /// Hands over everything that the lines are which `bytes` completes.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Printed<'_>)) {
        let schema = &*SCHEMA;
        while !bytes.is_empty() {
            if self.lines.is_between()
                && let Some((record, rest)) = usual_line(schema, bytes)
            {
                each(Printed::Record(self.calls.pair(record)));
                bytes = rest;
                continue;
            }
            let end = memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1);
            let (line, rest) = bytes.split_at(end);
            let calls = &mut self.calls;
            self.lines.feed(line, |line| match line {
                Line::Whole(line) => {
                    let decoded = decode(line, |record| each(Printed::Record(calls.pair(record))));
                    if let Err(reason) = decoded {
                        no_record(line, reason, &mut each);
                    }
                }
                Line::TooLong => each(Printed::Bad(Reason::TooLong)),
            });
            bytes = rest;
        }
    }

    /// The stream has ended: whether it ended in the middle of a line. Ready for another stream.
    pub fn finish(&mut self) -> bool {
        self.calls = CallStarts::default();
        self.lines.finish()
    }
}

/// A line that is no record. A message may stand if the line of a record was cut: dtrace writes its records in
/// blocks, and its messages at once.
#[cold]
fn no_record(line: &[u8], reason: Reason, each: &mut impl FnMut(Printed<'_>)) {
    let begin = memmem::find(line, MESSAGE);
    if begin != Some(0) {
        each(Printed::Bad(reason));
    }
    if let Some(message) = begin.and_then(|begin| line.get(begin..)) {
        each(Printed::Message(message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the lines are, decoded one by one.
    fn by_line(line: &[u8]) -> Vec<Result<Record, Reason>> {
        let mut out = vec![];
        if let Err(reason) = decode(line, |record| out.push(Ok(record))) {
            out.push(Err(reason));
        }
        out
    }

    fn records(chunks: &[&[u8]]) -> Vec<Result<Record, Reason>> {
        let (mut records, mut out) = (Records::default(), vec![]);
        let mut each = |printed: Printed<'_>| match printed {
            Printed::Record(record) => out.push(Ok(record)),
            Printed::Bad(reason) => out.push(Err(reason)),
            Printed::Message(message) => panic!("{message:?}"),
        };
        chunks.iter().for_each(|chunk| records.feed(chunk, &mut each));
        if records.finish() {
            out.push(Err(Reason::CutShort));
        }
        out
    }

    #[test]
    fn a_stream_is_its_lines_decoded_one_by_one_however_it_is_cut() {
        let text = b"B 1234567890 9\nC 12345678901234567 0 25 16 16 14\n\nT 1\nZ\nX 5 0 9 1 1 256 \nK 1 0 80 -1\n\
            T 1 98765432109876543210\nE 10 1 99";
        let mut lines: Vec<_> = text.split(|b| *b == b'\n').collect();
        lines.pop();
        let mut expected: Vec<_> = lines.iter().flat_map(|line| by_line(line)).collect();
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
            line in "[ABCEFKMNRSTXZa]( (-?[0-9]{1,5}|[0-9a-f]{0,20}|[0-9]{7,20})){0,12}( |x|\\r)?",
        ) {
            let expected = by_line(line.as_bytes());
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

    #[test]
    fn a_mark_by_getpriority_says_when_its_call_began() {
        let text = b"m 100 0 27504 7\nm 300 1 27505 7\nm 400 1 27504 8\nm 900 0 27505 9\n";
        let marks = records(&[text]).into_iter().filter_map(|record| match record {
            Ok(Record::Mark(mark)) => Some((mark.seq, mark.entered.0, mark.at.0, mark.returned)),
            _ => None,
        });
        let expected = [(Some(7), 100, 300, None), (Some(9), 0, 900, None)];
        assert_eq!(marks.collect::<Vec<_>>(), expected, "the beginning of call 9 is missing");
    }

    #[test]
    fn a_message_of_dtrace_is_one_wherever_it_stands() {
        let text = b"dtrace: 6 drops on CPU 0\nC 1044dtrace: error on enabled probe ID 3\nT 1 2\n";
        let mut printed = vec![];
        Records::default().feed(text, |part| {
            printed.push(match part {
                Printed::Record(record) => format!("{:?}", record.kind()),
                Printed::Message(text) => String::from_utf8_lossy(text).into_owned(),
                Printed::Bad(reason) => reason.to_string(),
            });
        });
        assert_eq!(
            printed,
            [
                "dtrace: 6 drops on CPU 0",
                "bad_number",
                "dtrace: error on enabled probe ID 3",
                "Tick"
            ]
        );
    }
}
