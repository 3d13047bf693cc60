//! The two witnesses of a raw recording on one time line: `K` lines become marks that name their batch.

use std::ops::ControlFlow;

use super::align::{self, Alignment, Return, Span};
use super::kevents::{Call, Kevents};
use super::{CHUNK, Clock, plausible};
use crate::input::{Attach, Batch, Input, Sink};
use crate::model::{Kevent, MonoTime, TreeId, note};
use crate::wire::decode::decode;
use crate::wire::record::Record;

/// The reader registered the root in a call of its own that it did not number. To be numbered before call 0 and leave
/// every other call's capacity as it was (it tells whether the call took all there was), all numbers grow by a whole
/// round of capacities.
const RENUMBERED: u64 = 1024;

/// The reader had not been running for longer when it registered the root.
const REGISTRATION_NS: u64 = 1_000_000_000;

/// Said in dtrace's place where the two witnesses have no common time line: like any message that nobody knows, it makes
/// DTrace blind throughout.
pub(super) const UNALIGNED: &[u8] = b"no K line could be matched with a kevent(2) call\n";

/// A raw recording, ready to be played.
pub(super) struct Timeline<'a> {
    text: &'a [u8],
    root: Attach,
    /// The registration first.
    calls: Vec<Call>,
    marks: Vec<Mark>,
    /// Whether it is known which mark is which call.
    aligned: bool,
    /// Calls behind the last one that DTrace saw and the reader did not write down.
    lost_at_end: u64,
    end: u64,
}

/// A `K` line of the reader.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Where in the text it begins.
    offset: usize,
    at: u64,
    returned: i32,
    /// Which call it is.
    call: Option<usize>,
    /// When the call began, or earlier.
    entered: u64,
}

impl<'a> Timeline<'a> {
    pub(super) fn new(kevents: &Kevents, text: &'a [u8]) -> Timeline<'a> {
        let start = kevents.start;
        let after = start.clock.mono_ns;
        let before = after.saturating_sub(REGISTRATION_NS);
        let mut calls = vec![Call { seq: RENUMBERED - 1, before, after, events: vec![] }];
        calls.extend(kevents.calls.iter().map(|c| Call { seq: c.seq + RENUMBERED, ..c.clone() }));
        let last = calls.last().map_or(after, |call| call.after);
        let (marks, guesses) = scan(text, kevents);
        let mut timeline = Timeline {
            text,
            root: Attach {
                tree: TreeId(0),
                pid: start.root,
                root: true,
                errno: 0,
                notes: Attach::USUAL_NOTES,
            },
            calls,
            marks,
            aligned: false,
            lost_at_end: 0,
            end: kevents.end.map_or(last, |clock| clock.mono_ns.max(last)),
        };
        let spans: Vec<Span> = timeline.calls.iter().map(span).collect();
        let returns: Vec<Return> = timeline.marks.iter().map(returned).collect();
        if let Some(found) = align::align(&returns, &spans, &guesses) {
            timeline.aligned = true;
            timeline.name(&found, &spans);
            if let Some(offset) = found.offsets.last() {
                timeline.finish(*offset, kevents);
            }
        }
        timeline
    }

    /// Tells each mark which call it is.
    fn name(&mut self, found: &Alignment, spans: &[Span]) {
        let mut earlier = 0;
        for (call, mark) in found.returns.iter().enumerate() {
            let Some(mark) = mark.map(|index| &mut self.marks[index]) else { continue };
            mark.call = Some(call);
            // An earlier call had returned before this one began: that is all that is certain. Where a garbled clock
            // says otherwise, nothing is.
            let began = spans[call].before + found.offsets[call];
            mark.entered = if earlier as i64 <= began { earlier } else { 0 };
            earlier = mark.at;
        }
    }

    /// What the reader did after the last call that it wrote down.
    fn finish(&mut self, offset: i64, kevents: &Kevents) {
        let Some((seq, after)) = self.calls.last().map(|call| (call.seq + 1, call.after)) else {
            return;
        };
        let behind = |mark: &&mut Mark| mark.at as i64 - offset > after as i64;
        let entered = self.marks.iter().rev().find(|m| m.call.is_some()).map_or(0, |m| m.at);
        let mut tail: Vec<&mut Mark> = self.marks.iter_mut().filter(behind).collect();
        tail.dedup_by_key(|mark| mark.at);
        if tail.iter().any(|mark| mark.returned > 0) {
            self.lost_at_end = tail.len() as u64;
        } else if let [idle] = &mut tail[..]
            && root_has_ended(kevents)
        {
            // Once the root's exit has come, the reader waits until a call times out, and does not write that down.
            (idle.call, idle.entered) = (Some(self.calls.len()), entered);
            self.calls.push(Call { seq, before: after, after: self.end, events: vec![] });
        }
    }

    /// Stdout up to each mark, then the batches up to the one that it names.
    pub(super) fn play(&self, sink: &mut impl Sink) -> ControlFlow<()> {
        if !self.aligned && self.calls.len() > 1 && !self.text.is_empty() {
            // Nobody knows what came first: nothing that one of them did not say can be held against the other.
            sink.push(Input::Stderr { at: MonoTime(0), bytes: UNALIGNED })?;
        }
        let mut out = Out {
            timeline: self,
            sink,
            next: 0,
            now: self.calls[0].after,
            marked: None,
            chunk: vec![],
        };
        let mut marks = self.marks.iter().peekable();
        for (offset, line) in lines(self.text) {
            match marks.next_if(|mark| mark.offset == offset) {
                None => out.line(line)?,
                Some(mark) => match mark.call {
                    Some(call) => out.mark(mark, line, call)?,
                    None => continue,
                },
            }
        }
        out.finish()
    }
}

/// The state of playing.
struct Out<'a, S> {
    timeline: &'a Timeline<'a>,
    sink: &'a mut S,
    /// The first call that has not been pushed.
    next: usize,
    now: u64,
    /// The last mark: its time on DTrace's clock, and the same on the reader's or a little later.
    marked: Option<(u64, u64)>,
    chunk: Vec<u8>,
}

impl<S: Sink> Out<'_, S> {
    /// A line as it is; of CRLF only LF is left.
    fn line(&mut self, line: &[u8]) -> ControlFlow<()> {
        match line.strip_suffix(b"\r\n") {
            Some(line) => self.chunk.extend([line, b"\n"].concat()),
            None => self.chunk.extend_from_slice(line),
        }
        if self.chunk.len() >= CHUNK { self.flush() } else { ControlFlow::Continue(()) }
    }

    /// A mark in place of the `K` line, then the batches up to its own.
    fn mark(&mut self, mark: &Mark, line: &[u8], call: usize) -> ControlFlow<()> {
        let cpu = line.split(|byte| *byte == b' ').nth(2).unwrap_or(b"0").escape_ascii();
        let &Mark { at, entered, returned, .. } = mark;
        let Call { seq, after, .. } = self.timeline.calls[call];
        let nevents = Batch::capacity_of(seq);
        let text = format!("M {at} {cpu} {entered} {nevents} {returned} 0\n");
        self.chunk.extend_from_slice(text.as_bytes());
        self.now = after.max(self.now);
        self.marked = Some((at, after));
        self.flush()?;
        self.batches(call + 1)
    }

    /// Nothing is read before it happens: not before the last line, which is the latest.
    fn flush(&mut self) -> ControlFlow<()> {
        let last = self.chunk.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
        if let (Some((marked, after)), Some(Ok(Some(record)))) = (self.marked, last.map(decode)) {
            self.now = self.now.max(after.saturating_add(record.at().0.saturating_sub(marked)));
        }
        for bytes in self.chunk.chunks(CHUNK) {
            self.sink.push(Input::Stdout { at: MonoTime(self.now), bytes })?;
        }
        self.chunk.clear();
        ControlFlow::Continue(())
    }

    /// Pushes the calls before number `end` that have not been pushed.
    fn batches(&mut self, end: usize) -> ControlFlow<()> {
        for index in self.next..end {
            self.next = index + 1;
            let call = &self.timeline.calls[index];
            if let Some(previous) = index.checked_sub(1).map(|i| &self.timeline.calls[i]) {
                let count = call.seq - previous.seq - 1;
                self.lost(previous, count, call.before)?;
            }
            self.sink.push(Input::Batch(Batch {
                seq: call.seq,
                capacity: Batch::capacity_of(call.seq),
                before: MonoTime(call.before),
                after: MonoTime(call.after),
                attached: if index == 0 { std::slice::from_ref(&self.timeline.root) } else { &[] },
                events: &call.events,
            }))?;
            self.now = call.after.max(self.now);
        }
        ControlFlow::Continue(())
    }

    /// `count` calls behind `previous` are missing.
    fn lost(&mut self, previous: &Call, count: u64, to: u64) -> ControlFlow<()> {
        if count == 0 {
            return ControlFlow::Continue(());
        }
        let (first, from) = (previous.seq + 1, MonoTime(previous.after));
        self.sink.push(Input::BatchesLost { first, count, from, to: MonoTime(to) })
    }

    fn finish(mut self) -> ControlFlow<()> {
        let Timeline { calls, lost_at_end, end, .. } = self.timeline;
        self.now = self.now.max(*end);
        self.flush()?;
        self.batches(calls.len())?;
        match calls.last() {
            Some(last) => self.lost(last, *lost_at_end, *end),
            None => ControlFlow::Continue(()),
        }
    }
}

/// The `K` lines of the reader, and what the lines with both clocks say about the offset.
fn scan(text: &[u8], kevents: &Kevents) -> (Vec<Mark>, Vec<i64>) {
    let (mut marks, mut guesses) = (Vec::new(), Vec::new());
    for (offset, line) in lines(text) {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        match decode(line.strip_suffix(b"\r").unwrap_or(line)) {
            Ok(Some(Record::Kevent { at, pid, returned }))
                if pid == kevents.start.reader && plausible(at.0) =>
            {
                marks.push(Mark { offset, at: at.0, returned, call: None, entered: 0 });
            }
            Ok(Some(Record::Begin { at, wall } | Record::Tick { at, wall })) => {
                for Clock { mono_ns, real_ns } in
                    [Some(kevents.start.clock), kevents.end].into_iter().flatten()
                {
                    let real_since = (real_ns as i64).wrapping_sub(wall as i64);
                    let mono = (mono_ns as i64).wrapping_sub(real_since);
                    guesses.push((at.0 as i64).wrapping_sub(mono));
                }
            }
            _ => {}
        }
    }
    (marks, guesses)
}

/// Lines with their newline, and where they begin.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut next = 0;
    text.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let offset = next;
        next += line.len();
        (offset, line)
    })
}

fn span(call: &Call) -> Span {
    let returned = call.events.len() as i64;
    Span { before: call.before as i64, after: call.after as i64, returned }
}

fn returned(mark: &Mark) -> Return {
    Return { at: mark.at as i64, returned: mark.returned.into() }
}

fn root_has_ended(kevents: &Kevents) -> bool {
    let root = u64::from(kevents.start.root.get());
    let exit = |event: &Kevent| event.ident == root && event.fflags & note::EXIT != 0;
    kevents.end.is_some() && kevents.calls.iter().any(|call| call.events.iter().any(exit))
}
