//! Messages from the threads of a live source to the one that feeds the pipeline. Only that one waits: a reader that finds no
//! room counts what it could not keep, and reports it as soon as there is room.

use std::ops::ControlFlow;
use std::sync::Arc;

use memchr::memchr;

use super::inbox::MessageSender;
use super::pool::{Pool, PooledBuf};
use crate::input::{Input, OwnedBatch, Sink};
use crate::model::MonoTime;

/// One message.
#[derive(Debug)]
pub(crate) enum Message {
    Batch(PooledBuf<OwnedBatch>),
    Text(PooledBuf<Chunk>),
    /// This many bytes of dtrace's output were read and could not be kept.
    Lost {
        at: MonoTime,
        stream: Stream,
        bytes: u64,
    },
    /// An input that borrows nothing.
    Plain(Input<'static>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Stream {
    #[default]
    Stdout,
    Stderr,
}

/// Bytes of one of dtrace's pipes.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    at: MonoTime,
    stream: Stream,
    bytes: Vec<u8>,
}

impl Message {
    /// Pushes its input.
    pub(crate) fn deliver(&self, sink: &mut impl Sink) -> ControlFlow<()> {
        match self {
            Message::Batch(batch) => sink.push(Input::Batch(batch.as_batch())),
            Message::Text(chunk) => sink.push(chunk.stream.input(chunk.at, &chunk.bytes)),
            Message::Lost { at, stream, bytes } => {
                // A line that is no record and no message of dtrace: the decoder counts it and takes dtrace for blind
                // until its next record, and a recording has the reason in plain text.
                let line = format!("! {bytes} bytes of dtrace's output found no room\n");
                sink.push(stream.input(*at, line.as_bytes()))
            }
            Message::Plain(input) => sink.push(*input),
        }
    }
}

impl Stream {
    fn input(self, at: MonoTime, bytes: &[u8]) -> Input<'_> {
        match self {
            Stream::Stdout => Input::Stdout { at, bytes },
            Stream::Stderr => Input::Stderr { at, bytes },
        }
    }
}

/// One of dtrace's pipes on its way to the pipeline. It never waits, and what it drops it drops by whole lines.
#[derive(Debug)]
pub(crate) struct TextLane {
    pool: Arc<Pool<Chunk>>,
    to: MessageSender,
    stream: Stream,
    lost: u64,
    /// The dropped bytes ended inside a line: its rest must not be taken for a line.
    torn: bool,
}

impl TextLane {
    /// A lane that may fill `buffers` buffers ahead of the pipeline.
    pub(crate) fn new(stream: Stream, buffers: usize, to: MessageSender) -> TextLane {
        TextLane { pool: Pool::new(buffers), to, stream, lost: 0, torn: false }
    }

    /// Sends these bytes, which were read at `at`, or counts them as lost.
    pub(crate) fn send(&mut self, at: MonoTime, mut bytes: &[u8]) {
        if self.torn {
            let end = memchr(b'\n', bytes);
            let rest = end.map_or(bytes.len(), |end| end + 1);
            self.lost += rest as u64;
            self.torn = end.is_none();
            bytes = &bytes[rest..];
        }
        if bytes.is_empty() {
            return;
        }
        let free = self.pool.take();
        if !free.is_some_and(|chunk| self.report_loss(at) && self.try_send(chunk, at, bytes)) {
            self.lost += bytes.len() as u64;
            self.torn = !bytes.ends_with(b"\n");
        }
    }

    /// The pipe has ended. Reports what was lost and not reported yet; waits for the pipeline if it must.
    pub(crate) fn finish(&mut self, at: MonoTime) {
        if self.lost > 0 {
            self.to.send(self.loss(at));
        }
        (self.lost, self.torn) = (0, false);
    }

    fn loss(&self, at: MonoTime) -> Message {
        Message::Lost { at, stream: self.stream, bytes: self.lost }
    }

    /// Sends how much was lost, if something was. Whether that was sent.
    fn report_loss(&mut self, at: MonoTime) -> bool {
        let sent = self.lost == 0 || self.to.try_send(self.loss(at)).is_ok();
        if sent {
            self.lost = 0;
        }
        sent
    }

    fn try_send(&mut self, mut chunk: PooledBuf<Chunk>, at: MonoTime, bytes: &[u8]) -> bool {
        (chunk.at, chunk.stream) = (at, self.stream);
        chunk.bytes.clear();
        chunk.bytes.extend_from_slice(bytes);
        self.to.try_send(Message::Text(chunk)).is_ok()
    }
}

/// Everything in an inbox as the pipeline would read it.
#[cfg(test)]
pub(super) fn text_of(from: &super::inbox::Inbox) -> String {
    let mut text = Vec::new();
    for message in from.queued() {
        let _ = message.deliver(&mut |input: Input<'_>| {
            if let Input::Stdout { bytes, .. } | Input::Stderr { bytes, .. } = input {
                text.extend_from_slice(bytes);
            }
            ControlFlow::Continue(())
        });
    }
    String::from_utf8(text).expect("text")
}

#[cfg(test)]
mod tests {
    use super::text_of as drain;
    use super::*;
    use crate::source::inbox::inbox;
    use crate::wire::decode::{Reason, decode};
    use crate::wire::drops;

    #[test]
    fn a_full_lane_drops_whole_lines_and_reports_how_much() {
        let (to, from) = inbox(2);
        let mut lane = TextLane::new(Stream::Stdout, 2, to);
        let at = MonoTime(1);
        lane.send(at, b"T 1 1\n");
        lane.send(at, b"T 2 2\n");
        lane.send(at, b"T 3 3\nX 4 0 ");
        assert_eq!(drain(&from), "T 1 1\nT 2 2\n");
        lane.send(at, b"5 1 1");
        lane.send(at, b" 0\nT 5 5\n");
        assert_eq!(drain(&from), "! 20 bytes of dtrace's output found no room\nT 5 5\n");
    }

    #[test]
    fn a_loss_reads_as_blindness_on_either_stream() {
        let (to, from) = inbox(0);
        let mut lane = TextLane::new(Stream::Stdout, 0, to);
        lane.send(MonoTime(1), b"T 1 1\n");
        lane.finish(MonoTime(2));
        let text = drain(&from);
        let line = text.trim_end().as_bytes();
        assert_eq!(decode(line, |_| ()), Err(Reason::UnknownKind));
        assert_eq!(drops::message(line), Some(drops::StderrMessage::Unknown));
    }

    #[test]
    fn what_was_lost_last_is_reported_at_the_end() {
        let (to, from) = inbox(1);
        let mut lane = TextLane::new(Stream::Stderr, 1, to);
        lane.send(MonoTime(1), b"a\n");
        lane.send(MonoTime(1), b"lost\n");
        lane.finish(MonoTime(2));
        assert_eq!(drain(&from), "a\n! 5 bytes of dtrace's output found no room\n");
        lane.send(MonoTime(3), b"b\n");
        assert_eq!(drain(&from), "b\n");
    }
}
