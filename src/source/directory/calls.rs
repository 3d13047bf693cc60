//! kevents.jsonl: what the reader of a mirror wrote down.
//!
//! `{"start":{"reader":PID,"root":PID,"notes":N,"mono_ns":N,"real_ns":N}}`, then for each kevent(2) call
//! `{"batch":N,"cap":N,"before_ns":N,"after_ns":N,"events":[[ident,flags,fflags,data],...]}`, then
//! `{"end":{"mono_ns":N,"real_ns":N}}`.

use serde::Deserialize;

use crate::input::Attach;
use crate::model::{Kevent, Pid, TreeId};

/// The same moment on the two clocks of the recorded host, in nanoseconds.
#[derive(Clone, Copy, Default, Debug, Deserialize)]
pub(super) struct Clock {
    pub(super) mono_ns: u64,
    pub(super) real_ns: u64,
}

/// The start line: without it, it is not known what was watched.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Start {
    /// The process that called kevent(2).
    pub(super) reader: Pid,
    /// The process that it watched.
    pub(super) root: Pid,
    /// What it asked for.
    #[serde(default = "usual_notes")]
    pub(super) notes: u32,
    #[serde(flatten)]
    pub(super) clock: Clock,
}

fn usual_notes() -> u32 {
    Attach::USUAL_NOTES
}

#[derive(Clone, Debug)]
pub(super) struct LoggedCall {
    /// Its number: see [`CallsFile::calls`].
    pub(super) seq: u64,
    pub(super) capacity: u32,
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) events: Vec<Kevent>,
}

/// The whole file.
#[derive(Debug)]
pub(super) struct CallsFile {
    pub(super) start: Start,
    /// First the registration of the root, as number 0; then those of the file, number N as N + 1, with gaps where lines
    /// are missing.
    pub(super) calls: Vec<LoggedCall>,
    /// When the reader ended, if it wrote that down.
    pub(super) end: Option<u64>,
    pub(super) bad_lines: u64,
}

impl CallsFile {
    pub(super) fn numbered(&self, seq: u64) -> Option<&LoggedCall> {
        let place = self.calls.binary_search_by_key(&seq, |call| call.seq).ok()?;
        self.calls.get(place)
    }

    /// The call before this one, as far as it is in the file.
    pub(super) fn before(&self, call: &LoggedCall) -> Option<&LoggedCall> {
        let place = self.calls.partition_point(|other| other.seq < call.seq);
        self.calls.get(place.checked_sub(1)?)
    }
}

/// The reader had not been running for longer when it registered the root, in nanoseconds.
const REGISTRATION_NS: u64 = 1_000_000_000;

/// Less than 73 years: sums of a few such times cannot overflow.
const fn plausible(ns: u64) -> bool {
    ns < 1 << 61
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CallsLine {
    Batch { batch: u32, cap: u32, before_ns: u64, after_ns: u64, events: Vec<LoggedKevent> },
    Start { start: Start },
    End { end: Clock },
}

/// ident, flags, fflags, data.
#[derive(Deserialize)]
struct LoggedKevent(u64, u32, u32, i64);

impl From<LoggedKevent> for Kevent {
    fn from(LoggedKevent(ident, flags, fflags, data): LoggedKevent) -> Kevent {
        Kevent { ident, flags, fflags, data, udata: TreeId(0).cookie() }
    }
}

/// Reads every line that can be read. `None` without a start line.
pub(super) fn read(text: &[u8]) -> Option<CallsFile> {
    let (mut start, mut end, mut calls, mut bad_lines) = (None, None, Vec::new(), 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        match serde_json::from_slice(line).ok() {
            Some(CallsLine::Start { start: fields }) if start.is_none() => {
                start = Some(fields).filter(|fields: &Start| plausible(fields.clock.mono_ns));
            }
            Some(CallsLine::End { end: clock }) if plausible(clock.mono_ns) => {
                end = Some(clock.mono_ns)
            }
            Some(CallsLine::Batch { batch, cap, before_ns, after_ns, events })
                if before_ns <= after_ns && plausible(after_ns) =>
            {
                calls.push(LoggedCall {
                    seq: u64::from(batch) + 1,
                    capacity: cap,
                    before: before_ns,
                    after: after_ns,
                    events: events.into_iter().map(Kevent::from).collect(),
                });
            }
            _ => bad_lines += 1,
        }
    }
    let start = start?;
    let after = start.clock.mono_ns;
    let before = after.saturating_sub(REGISTRATION_NS);
    calls.insert(0, LoggedCall { seq: 0, capacity: 1, before, after, events: vec![] });
    calls.sort_by_key(|call| call.seq);
    calls.dedup_by_key(|call| call.seq);
    Some(CallsFile { start, calls, end, bad_lines })
}
