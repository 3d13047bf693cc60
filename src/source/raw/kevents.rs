//! kevents.jsonl: what the reader of a raw recording wrote down.

use serde::Deserialize;

use super::{Clock, plausible};
use crate::input::Batch;
use crate::model::{Kevent, Pid, TreeId};

/// The start line: without it nobody knows what was watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The process that called kevent(2).
    pub(super) reader: Pid,
    /// The process that it watched.
    pub(super) root: Pid,
    pub(super) clock: Clock,
}

/// One kevent(2) call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) seq: u64,
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) events: Vec<Kevent>,
}

/// The whole file.
#[derive(Debug)]
pub(super) struct Kevents {
    pub(super) start: Start,
    /// In the order of their numbers, which may have gaps.
    pub(super) calls: Vec<Call>,
    /// When the reader ended, if it wrote that down.
    pub(super) end: Option<Clock>,
    /// Lines that say nothing.
    pub(super) bad_lines: u64,
}

#[derive(Deserialize)]
struct StartFields {
    reader: u64,
    root: u64,
    #[serde(flatten)]
    clock: Clock,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Batch { batch: u64, cap: u32, before_ns: u64, after_ns: u64, events: Vec<Event> },
    Start { start: StartFields },
    End { end: Clock },
}

/// ident, flags, fflags, data.
#[derive(Deserialize)]
struct Event(u64, u32, u32, i64);

impl From<Event> for Kevent {
    fn from(Event(ident, flags, fflags, data): Event) -> Kevent {
        Kevent { ident, flags, fflags, data, udata: TreeId(0).cookie() }
    }
}

/// Reads every line that can be read. `None` without a start line.
pub(super) fn read(text: &[u8]) -> Option<Kevents> {
    let (mut start, mut end, mut calls, mut bad_lines) = (None, None, Vec::new(), 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        match serde_json::from_slice(line).ok() {
            Some(Line::Start { start: fields }) if start.is_none() => start = begin(fields),
            Some(Line::End { end: clock }) if plausible(clock.mono_ns) => end = Some(clock),
            Some(Line::Batch { batch, cap, before_ns, after_ns, events })
                if cap == Batch::capacity_of(batch)
                    && before_ns <= after_ns
                    && plausible(after_ns)
                    && batch < u64::from(u32::MAX) =>
            {
                let events = events.into_iter().map(Kevent::from).collect();
                calls.push(Call { seq: batch, before: before_ns, after: after_ns, events });
            }
            _ => bad_lines += 1,
        }
    }
    calls.sort_by_key(|call: &Call| call.seq);
    calls.dedup_by_key(|call| call.seq);
    Some(Kevents { start: start?, calls, end, bad_lines })
}

fn begin(fields: StartFields) -> Option<Start> {
    let StartFields { reader, root, clock } = fields;
    let (reader, root) = (Pid::new(reader)?, Pid::new(root)?);
    plausible(clock.mono_ns).then_some(Start { reader, root, clock })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str =
        r#"{"start":{"reader":26,"root":27,"notes":3758096385,"mono_ns":9,"real_ns":10}}"#;

    fn batch(seq: u64, cap: u64) -> String {
        format!(
            r#"{{"batch":{seq},"cap":{cap},"before_ns":1{seq},"after_ns":2{seq},"events":[[28,48,4,27],[27,32816,2147483648,-1]]}}"#
        )
    }

    #[test]
    fn a_bad_line_costs_itself() {
        let text = [
            START.into(),
            batch(0, 1024),
            batch(1, 1025)[..40].into(),
            batch(2, 1024),
            batch(3, 1027) + "\r",
            "\0\u{fffd}".into(),
            batch(3, 1027),
            "[[[[[[".repeat(1000),
            batch(4, 1028).replace("[28", "[-28"),
            batch(1024, 1024),
            r#"{"end":{"mono_ns":11,"real_ns":12}}"#.into(),
        ];
        let read = read(text.join("\n").as_bytes()).expect("a start line");
        assert_eq!(read.calls.iter().map(|c| c.seq).collect::<Vec<_>>(), [0, 3, 1024]);
        assert_eq!((read.bad_lines, read.start.root.get()), (5, 27));
        assert_eq!(read.end.map(|e| e.mono_ns), Some(11));
        let exit = read.calls[0].events[1];
        assert_eq!((exit.ident, exit.flags, exit.fflags, exit.data), (27, 32816, 1 << 31, -1));
    }

    #[test]
    fn without_a_start_line_there_is_nothing() {
        assert!(read(batch(0, 1024).as_bytes()).is_none());
        assert!(read(b"").is_none());
    }
}
