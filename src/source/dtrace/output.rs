//! The readers of dtrace's output: stdout goes to the pipeline, stderr to the pipeline and to the log.

use std::sync::Arc;

use memchr::memrchr;

use super::process::PipeSink;
use crate::model::MonoTime;
use crate::source::message::TextLane;
use crate::wire::drops::{self, StderrMessage};
use crate::wire::lines::{Line, Lines};

/// A partial line that grows longer is passed on as it is: it is garbage, and the decoder says so.
const LONGEST_TAIL: usize = 64 << 10;

/// Called when dtrace has printed its first record: tracing has begun.
pub(super) type Begun = Arc<dyn Fn() + Send + Sync>;

/// dtrace's stdout, passed on by whole lines.
pub(super) struct StdoutLines {
    lane: TextLane,
    tail: Vec<u8>,
    /// Until the first record.
    begun: Option<Begun>,
}

impl StdoutLines {
    pub(super) fn new(lane: TextLane, begun: Begun) -> StdoutLines {
        StdoutLines { lane, tail: Vec::new(), begun: Some(begun) }
    }
}

impl PipeSink for StdoutLines {
    fn take(&mut self, at: MonoTime, bytes: &[u8]) -> bool {
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
            if let Some(begun) = self.begun.take() {
                begun();
            }
        }
        self.tail.extend_from_slice(rest);
        if self.tail.len() > LONGEST_TAIL {
            self.lane.send(at, &self.tail);
            self.tail.clear();
        }
        true
    }

    fn end(&mut self, at: MonoTime) {
        self.lane.send(at, &self.tail);
        self.tail.clear();
        self.lane.finish(at);
    }
}

/// dtrace's stderr: the bytes to the pipeline, and every line to the log, at level INFO if nothing is lost.
pub(super) struct Messages {
    lane: TextLane,
    lines: Lines,
}

impl Messages {
    pub(super) fn new(lane: TextLane) -> Messages {
        Messages { lane, lines: Lines::default() }
    }
}

impl PipeSink for Messages {
    fn take(&mut self, at: MonoTime, bytes: &[u8]) -> bool {
        self.lane.send(at, bytes);
        self.lines.feed(bytes, |line| match line {
            Line::Whole([]) => {}
            Line::Whole(line) => log_message(line),
            Line::TooLong => tracing::warn!("dtrace: (a line longer than any message)"),
        });
        false
    }

    fn end(&mut self, at: MonoTime) {
        self.lines.finish();
        self.lane.finish(at);
    }
}

pub(super) fn log_message(line: &[u8]) {
    match drops::message(line) {
        Some(StderrMessage::Notice(notice)) => tracing::info!("dtrace: {}", explained(notice)),
        _ => tracing::warn!("{}", line.escape_ascii()),
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
