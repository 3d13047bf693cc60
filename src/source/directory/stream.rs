//! dtrace.txt in the order of time, and the calls of kevents.jsonl between its lines.
//!
//! dtrace(1) may print the CPUs' buffers one after the other, so the lines are sorted by their time stamps first, unless
//! the clock of some CPU steps back: then the order of the file is all there is. A call has its place if a mark names it:
//! an `m` line by its number. A program from before those printed a `K` line for each call instead; they are counted, and
//! made into `m` lines if all counts agree.

use std::collections::HashMap;
use std::ops::ControlFlow;

use memchr::memmem;

use super::calls::{CallsFile, LoggedCall};
use super::{CHUNK, ID};
use crate::input::{Attach, Batch, Input, Sink};
use crate::model::{MonoTime, note};
use crate::wire::decode::{AFTER_CALL, BEFORE_CALL, decode};
use crate::wire::record::{Mark, Record};
use crate::wire::records::MESSAGE;

/// In dtrace's place if it is not known which mark is which call: as any message that is not known, it makes DTrace blind
/// throughout.
const UNPLACED: &[u8] = b"the K lines do not agree with the calls of kevents.jsonl\n";

/// The first call is looked for among so many `K` lines, and the first `K` line among so many calls.
const MOST_SHIFT: i64 = 1024;

/// A line without its end.
#[derive(Clone, Copy, Debug)]
struct TextLine<'a> {
    text: &'a [u8],
    /// When it happened; a line that is no record has the time of the one before it.
    at: u64,
    /// Which call of the mirror it is about.
    call: Option<CallLine>,
}

/// A line about a call of the mirror, whose number is one more than in the file.
#[derive(Clone, Copy, PartialEq, Debug)]
enum CallLine {
    /// `m`: it is about to begin.
    Begins(u64),
    /// `m`: it has returned.
    Returned(u64),
    /// `K`: some call of this process has returned so many events.
    Count { pid: u32, events: i32 },
}

/// The newest time stamp of each CPU, by its field.
#[derive(Default)]
struct CpuClocks<'a> {
    newest: HashMap<&'a [u8], u64>,
    /// One of them was followed by an older one.
    step_back: bool,
}

impl<'a> CpuClocks<'a> {
    fn see(&mut self, line: &'a [u8], at: u64) {
        let Some(cpu) = cpu(line) else { return };
        let newest = self.newest.entry(cpu).or_default();
        self.step_back |= at < *newest;
        *newest = at;
    }
}

/// The whole text.
pub(super) struct DtraceText<'a> {
    lines: Vec<TextLine<'a>>,
    /// What is behind the last newline.
    rest: &'a [u8],
    /// Lines of stderr among them (`> dtrace.txt 2>&1`). It is not known when they were written, as in dtrace.err.
    pub(super) messages: Vec<u8>,
}

impl<'a> DtraceText<'a> {
    pub(super) fn new(text: &'a [u8]) -> DtraceText<'a> {
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let (whole, rest) = text.split_at(end);
        let (mut lines, mut messages) = (Vec::new(), Vec::new());
        let (mut now, mut clocks) = (0, CpuClocks::default());
        for text in whole.split_inclusive(|byte| *byte == b'\n') {
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let mut call = None;
            let decoded = decode(text, |record| {
                now = record.at().0;
                call = call_line(&record);
            });
            if decoded.is_ok() {
                clocks.see(text, now);
                lines.push(TextLine { text, at: now, call });
                continue;
            }
            let (text, message) = text.split_at(memmem::find(text, MESSAGE).unwrap_or(text.len()));
            if !message.is_empty() {
                messages.extend([message, b"\n"].concat());
            }
            // Behind the beginning of a record, or instead of one.
            if message.is_empty() || !text.is_empty() {
                lines.push(TextLine { text, at: now, call });
            }
        }
        if !clocks.step_back {
            lines.sort_by_key(|line| line.at);
        }
        DtraceText { lines, rest, messages }
    }

    /// Pushes the lines as one stream that was read at a time that is not known.
    pub(super) fn play(&self, sink: &mut impl Sink) -> ControlFlow<()> {
        let mut out = Out::new(sink, MonoTime(0));
        for line in &self.lines {
            out.line(line.text)?;
        }
        out.end(self.rest)
    }

    /// Pushes the lines, each call behind the line of its return.
    pub(super) fn play_with(
        mut self,
        mut calls: CallsFile,
        sink: &mut impl Sink,
    ) -> ControlFlow<()> {
        if !self.name_calls(&calls) {
            sink.push(Input::Stderr { at: MonoTime(0), bytes: UNPLACED })?;
        }
        let tail = Tail::of(&self.lines, &calls);
        calls.calls.extend(tail.idle);
        let mut out = Out::new(sink, MonoTime(calls.start.clock.mono_ns));
        let mut left = calls.calls.as_slice();
        for line in &self.lines {
            match line.call {
                None => out.line(line.text)?,
                Some(CallLine::Count { .. }) => {}
                Some(CallLine::Begins(call)) => out.mark(line, BEFORE_CALL, call)?,
                Some(CallLine::Returned(call)) => {
                    out.mark(line, AFTER_CALL, call)?;
                    let known = calls.numbered(call);
                    out.clock = known.map(|known| (line.at, known.after)).or(out.clock);
                    out.follow(line.at);
                    out.flush()?;
                    left = out.calls(&calls, left, call)?;
                }
            }
            out.follow(line.at);
        }
        out.at = out.at.max(MonoTime(tail.end));
        out.end(self.rest)?;
        out.calls(&calls, left, u64::MAX)?;
        match tail.lost {
            0 => ControlFlow::Continue(()),
            count => {
                let (first, from) = (tail.seq, MonoTime(tail.after));
                sink.push(Input::BatchesLost { first, count, from, to: MonoTime(tail.end) })
            }
        }
    }

    /// If `K` lines alone tell of the calls, makes those of the reader into `m` lines. `false` if it is not known which call
    /// is which: then all of them are left out.
    fn name_calls(&mut self, calls: &CallsFile) -> bool {
        let is_any = |is: fn(&CallLine) -> bool| {
            self.lines.iter().any(|line| line.call.as_ref().is_some_and(is))
        };
        let is_counted = is_any(|call| matches!(call, CallLine::Count { .. }));
        if !is_counted || is_any(|call| matches!(call, CallLine::Returned(_))) {
            return true;
        }
        let reader = calls.start.reader.get();
        let mut returns: Vec<&mut TextLine<'_>> = Vec::new();
        for line in &mut self.lines {
            match line.call {
                Some(CallLine::Count { pid, events: 0.. })
                    if pid == reader && returns.last().is_none_or(|last| last.at != line.at) =>
                {
                    returns.push(line);
                }
                _ => {}
            }
        }
        let counts: Vec<(u64, i64)> = returns.iter().map(|line| (line.at, count(line))).collect();
        let Some(shift) = shift(&counts, &calls.calls) else { return false };
        for (index, line) in (0i64..).zip(returns) {
            line.call = u64::try_from(index - shift).ok().map(CallLine::Returned);
        }
        true
    }
}

fn count(line: &TextLine<'_>) -> i64 {
    match line.call {
        Some(CallLine::Count { events, .. }) => events.into(),
        _ => -1,
    }
}

/// By how much the index of a return is larger than the number of its call: so that every return has the number of events
/// that the call has, and more than half of the calls have a return. If several fit, the one that leaves the fewest calls
/// alone; then the one with the most even distance between the two clocks. `None` if none fits.
fn shift(returns: &[(u64, i64)], calls: &[LoggedCall]) -> Option<i64> {
    let pair = |call: &LoggedCall, shift: i64| {
        let index = usize::try_from(call.seq as i64 + shift).ok()?;
        returns.get(index).map(|(at, events)| (*at, *events))
    };
    let pairs = |shift: i64| calls.iter().filter_map(move |call| Some((call, pair(call, shift)?)));
    let fits = |shift: &i64| {
        pairs(*shift).all(|(call, (_, events))| call.events.len() as i64 == events)
            && 2 * pairs(*shift).count() > calls.len()
    };
    let unevenness = |shift: i64| {
        let mut distances: Vec<i64> = pairs(shift)
            .map(|(call, (at, _))| (at as i64).wrapping_sub(call.after as i64))
            .collect();
        distances.sort_unstable();
        let middle = distances.get(distances.len() / 2).copied().unwrap_or_default();
        distances.iter().fold(0u64, |sum, d| sum.saturating_add(d.abs_diff(middle)))
    };
    let fitting: Vec<i64> = (-MOST_SHIFT..=MOST_SHIFT).filter(fits).collect();
    let most = fitting.iter().map(|shift| pairs(*shift).count()).max()?;
    let best = fitting.into_iter().filter(|shift| pairs(*shift).count() == most);
    best.min_by_key(|shift| unevenness(*shift))
}

/// What the reader did after the last call that it wrote down.
struct Tail {
    /// Once the root's exit has come, the reader waits until a call times out, and does not write that down.
    idle: Option<LoggedCall>,
    /// How many calls are missing, the first of them, and when the one before it returned.
    lost: u64,
    seq: u64,
    after: u64,
    /// When the reader ended.
    end: u64,
}

impl Tail {
    fn of(lines: &[TextLine<'_>], calls: &CallsFile) -> Tail {
        let (last, after) = calls.calls.last().map_or((0, 0), |call| (call.seq, call.after));
        let newest = lines.iter().filter_map(|line| match line.call {
            Some(CallLine::Returned(call)) => Some(call),
            _ => None,
        });
        let missing = newest.max().unwrap_or(0).saturating_sub(last);
        let (seq, end) = (last + 1, calls.end.map_or(after, |end| end.max(after)));
        let idle = LoggedCall { seq, capacity: 1, before: after, after: end, events: vec![] };
        let idle = (missing == 1 && root_has_ended(calls)).then_some(idle);
        Tail { lost: if idle.is_some() { 0 } else { missing }, idle, seq, after, end }
    }
}

fn root_has_ended(calls: &CallsFile) -> bool {
    let root = u64::from(calls.start.root.get());
    let mut events = calls.calls.iter().flat_map(|call| &call.events);
    calls.end.is_some() && events.any(|e| e.ident == root && e.fflags & note::EXIT != 0)
}

/// The state of playing.
struct Out<'a, S> {
    sink: &'a mut S,
    chunk: Vec<u8>,
    /// When the chunk was read, at the earliest.
    at: MonoTime,
    /// The last mark: its time on DTrace's clock, and on the reader's.
    clock: Option<(u64, u64)>,
}

impl<'a, S: Sink> Out<'a, S> {
    fn new(sink: &'a mut S, at: MonoTime) -> Out<'a, S> {
        Out { sink, chunk: Vec::new(), at, clock: None }
    }

    fn line(&mut self, text: &[u8]) -> ControlFlow<()> {
        self.chunk.extend_from_slice(text);
        self.chunk.push(b'\n');
        if self.chunk.len() >= CHUNK { self.flush() } else { ControlFlow::Continue(()) }
    }

    /// A mark of call number `call`. After a `K` line, the return of a call, the next one begins.
    fn mark(&mut self, line: &TextLine<'_>, which: i32, call: u64) -> ControlFlow<()> {
        let (at, cpu) = (line.at, cpu(line.text).unwrap_or(b"0").escape_ascii());
        self.line(format!("m {at} {cpu} {which} {call}").as_bytes())?;
        if line.text.starts_with(b"K") {
            self.line(format!("m {at} {cpu} {BEFORE_CALL} {}", call + 1).as_bytes())?;
        }
        ControlFlow::Continue(())
    }

    /// A line of this time is not read before it happens.
    fn follow(&mut self, at: u64) {
        if let Some((marked, after)) = self.clock {
            self.at = self.at.max(MonoTime(after.saturating_add(at.saturating_sub(marked))));
        }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        for bytes in self.chunk.chunks(CHUNK) {
            self.sink.push(Input::Stdout { at: self.at, bytes })?;
        }
        self.chunk.clear();
        ControlFlow::Continue(())
    }

    /// The text ends with `rest`.
    fn end(&mut self, rest: &[u8]) -> ControlFlow<()> {
        self.chunk.extend_from_slice(rest);
        self.flush()
    }

    /// Pushes the calls that are `left` of all `calls`, up to number `last`. Those behind it.
    fn calls<'c>(
        &mut self,
        calls: &CallsFile,
        left: &'c [LoggedCall],
        last: u64,
    ) -> ControlFlow<(), &'c [LoggedCall]> {
        let (due, left) = left.split_at(left.partition_point(|call| call.seq <= last));
        for call in due {
            if let Some(before) = calls.before(call) {
                let (first, count) = (before.seq + 1, call.seq - before.seq - 1);
                let (from, to) = (MonoTime(before.after), MonoTime(call.before));
                if count > 0 {
                    self.sink.push(Input::BatchesLost { first, count, from, to })?;
                }
            }
            let (pid, notes) = (calls.start.root, calls.start.notes);
            let root = [Attach { tree: ID, pid, root: true, errno: 0, notes }];
            self.sink.push(Input::Batch(Batch {
                seq: call.seq,
                capacity: call.capacity,
                before: MonoTime(call.before),
                after: MonoTime(call.after),
                attached: if call.seq == 0 { &root } else { &[] },
                events: &call.events,
            }))?;
        }
        ControlFlow::Continue(left)
    }
}

/// The call that a record is about, if any: number N of the file is N + 1 here.
fn call_line(record: &Record) -> Option<CallLine> {
    match *record {
        Record::Kevent { pid, returned, .. } => {
            Some(CallLine::Count { pid: pid.get(), events: returned })
        }
        Record::CallMark { seq, .. } => Some(CallLine::Begins(u64::from(seq) + 1)),
        Record::Mark(Mark { seq: Some(seq), .. }) => Some(CallLine::Returned(u64::from(seq) + 1)),
        _ => None,
    }
}

/// The CPU on which a record was made, if it has that field.
fn cpu(line: &[u8]) -> Option<&[u8]> {
    let letter = line.first()?;
    if b"CXEFKMmNAa".contains(letter) { line.split(|byte| *byte == b' ').nth(2) } else { None }
}
