//! What becomes of dtrace's words: the main program's go to the pipeline, the cause probes' records as well, and what
//! either of them says to a person goes to the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memchr::memrchr;

use super::pipes::Drain;
use crate::model::MonoTime;
use crate::source::message::TextLane;
use crate::wire::drops::{self, Message};
use crate::wire::lines::{Line, Lines};

/// A partial line that grows longer is passed on as it is: it is garbage, and the decoder says so.
const LONGEST_TAIL: usize = 64 << 10;

/// The main program's stdout. Passed on by whole lines: the cause probes' lines go between them.
pub(crate) struct Records {
    lane: TextLane,
    tail: Vec<u8>,
    /// Set with the first word: tracing has begun.
    begun: Arc<AtomicBool>,
}

impl Records {
    pub(crate) fn new(lane: TextLane, begun: Arc<AtomicBool>) -> Records {
        Records { lane, tail: Vec::new(), begun }
    }
}

impl Drain for Records {
    fn take(&mut self, at: MonoTime, bytes: &[u8]) {
        let whole = memrchr(b'\n', bytes).map_or(0, |end| end + 1);
        let (whole, rest) = bytes.split_at(whole);
        if !whole.is_empty() {
            if self.tail.is_empty() {
                self.lane.send(at, whole);
            } else {
                self.tail.extend_from_slice(whole);
                self.lane.send(at, &self.tail);
                self.tail.clear();
            }
            self.begun.store(true, Ordering::Release);
        }
        self.tail.extend_from_slice(rest);
        if self.tail.len() > LONGEST_TAIL {
            self.lane.send(at, &self.tail);
            self.tail.clear();
        }
    }

    fn end(&mut self, at: MonoTime) {
        self.lane.send(at, &self.tail);
        self.tail.clear();
        self.lane.finish(at);
    }
}

/// The cause probes' stdout: their R and S records are passed on, their heartbeat is not.
pub(crate) struct Causes {
    lane: TextLane,
    lines: Lines,
}

impl Causes {
    pub(crate) fn new(lane: TextLane) -> Causes {
        Causes { lane, lines: Lines::default() }
    }
}

impl Drain for Causes {
    fn take(&mut self, at: MonoTime, bytes: &[u8]) {
        let mut records = Vec::new();
        self.lines.feed(bytes, |line| {
            if let Line::Whole(line @ [b'R' | b'S', ..]) = line {
                records.extend_from_slice(line);
                records.push(b'\n');
            }
        });
        self.lane.send(at, &records);
        // A missing cause is not worth a blind window.
        self.lane.forgive();
    }

    fn end(&mut self, _: MonoTime) {
        self.lines.finish();
    }
}

/// stderr: every line to the log, at level INFO where nothing is lost, and the bytes to the pipeline where it is to know them.
pub(crate) struct Messages {
    name: &'static str,
    lane: Option<TextLane>,
    lines: Lines,
}

impl Messages {
    pub(crate) fn new(name: &'static str, lane: Option<TextLane>) -> Messages {
        Messages { name, lane, lines: Lines::default() }
    }
}

impl Drain for Messages {
    fn take(&mut self, at: MonoTime, bytes: &[u8]) {
        if let Some(lane) = &mut self.lane {
            lane.send(at, bytes);
        }
        let name = self.name;
        self.lines.feed(bytes, |line| match line {
            Line::Whole([]) => {}
            Line::Whole(line) => match drops::message(line) {
                Some(Message::Notice(notice)) => tracing::info!("{name}: {}", explained(notice)),
                _ => tracing::warn!("{name}: {}", line.escape_ascii()),
            },
            Line::TooLong => tracing::warn!("{name}: (a line longer than any message)"),
        });
    }

    fn end(&mut self, at: MonoTime) {
        self.lines.finish();
        if let Some(lane) = &mut self.lane {
            lane.finish(at);
        }
    }
}

/// A notice of dtrace's, and what it means if a reader of the log may worry.
fn explained(notice: &str) -> String {
    match notice.strip_prefix("buffer size lowered to ") {
        Some(size) => format!(
            "its buffer on each CPU has {size}, as memory allows: only if drops are counted is that too little"
        ),
        None => notice.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_buffer_is_explained_and_other_notices_are_passed_on() {
        let lowered = explained("buffer size lowered to 4m");
        assert!(
            lowered.starts_with("its buffer on each CPU has 4m, as memory allows"),
            "{lowered}"
        );
        assert_eq!(explained("aggregation rate reduced to 1"), "aggregation rate reduced to 1");
    }
}
