//! One input as bytes and back. Times, sequence numbers and idents are stored as differences.

use super::varint::{Bytes, put, put_signed};
use crate::input::{Attach, Batch, Config, Input};
use crate::model::{Kevent, MonoTime, Pid, TreeId};

const TREE: u8 = 0;
const BATCH: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;
const DTRACE_UP: u8 = 4;
const DTRACE_DOWN: u8 = 5;
const BATCHES_LOST: u8 = 6;
const FORKS: u8 = 7;
const TREE_GONE: u8 = 8;
const END: u8 = 9;
const CONSUMER: u8 = 10;
const CONFIG: u8 = 11;

/// An event takes at least a byte for each of its five fields, a registration for each of its four (version 1) or five.
const LEAST_EVENT: usize = 5;
const LEAST_ATTACH: usize = 4;
const MOST_ATTACH: usize = 5;
/// No integer takes more bytes.
const LONGEST: usize = 10;

/// The bits of fflags in use (0..=2 and 29..=31) become the low six: one byte.
const FFLAGS_ROTATION: u32 = 3;

/// No duration of a configuration is longer: a day, in nanoseconds.
const LONGEST_CONFIG_NS: u64 = 86_400_000_000_000;

/// What the next frame of the same block is stored as a difference to. All 0 at the beginning of a block.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Base {
    time: u64,
    seq: u64,
    ident: u64,
    udata: u64,
}

/// Room for the parts of the batch that was read last.
#[derive(Default, Debug)]
pub(super) struct Scratch {
    attached: Vec<Attach>,
    events: Vec<Kevent>,
}

/// No frame of this input is longer.
pub(super) fn longest(input: &Input<'_>) -> usize {
    let payload = match input {
        Input::Tree { name, .. } => name.len(),
        Input::Stdout { bytes, .. } | Input::Stderr { bytes, .. } => bytes.len(),
        Input::Batch(b) => {
            (b.events.len() * LEAST_EVENT + b.attached.len() * MOST_ATTACH) * LONGEST
        }
        _ => 0,
    };
    payload + 1 + 6 * LONGEST
}

fn delta(base: &mut u64, value: u64, out: &mut Vec<u8>) {
    put_signed(out, value.wrapping_sub(*base) as i64);
    *base = value;
}

fn undelta(base: &mut u64, bytes: &mut Bytes<'_>) -> Option<u64> {
    *base = base.wrapping_add(bytes.get_signed()? as u64);
    Some(*base)
}

impl Base {
    /// Appends the frame of `input` to `out`.
    pub(super) fn encode(&mut self, input: &Input<'_>, out: &mut Vec<u8>) {
        match *input {
            Input::Tree { id, name } => {
                out.push(TREE);
                put(out, id.0.into());
                slice(name.as_bytes(), out);
            }
            Input::Batch(ref batch) => self.encode_batch(batch, out),
            Input::Stdout { at, bytes } => {
                self.stamped(STDOUT, at, out);
                slice(bytes, out);
            }
            Input::Stderr { at, bytes } => {
                self.stamped(STDERR, at, out);
                slice(bytes, out);
            }
            Input::DtraceUp { at } => self.stamped(DTRACE_UP, at, out),
            Input::DtraceDown { at } => self.stamped(DTRACE_DOWN, at, out),
            Input::BatchesLost { first, count, from, to } => {
                self.stamped(BATCHES_LOST, from, out);
                delta(&mut self.time, to.0, out);
                put(out, first);
                put(out, count);
            }
            Input::Forks { at, total } => {
                self.stamped(FORKS, at, out);
                put(out, total);
            }
            Input::TreeGone { id } => {
                out.push(TREE_GONE);
                put(out, id.0.into());
            }
            Input::End => out.push(END),
            Input::Consumer { id, pid } => {
                out.push(CONSUMER);
                put(out, id.0.into());
                put(out, pid.map_or(0, |pid| u64::from(pid.get()) + 1));
            }
            Input::Config(Config { settle_ns, reorder_ns, switch_ns, capacity }) => {
                out.push(CONFIG);
                for value in [settle_ns, reorder_ns, switch_ns, capacity as u64] {
                    put(out, value);
                }
            }
        }
    }

    fn stamped(&mut self, tag: u8, at: MonoTime, out: &mut Vec<u8>) {
        out.push(tag);
        delta(&mut self.time, at.0, out);
    }

    fn encode_batch(&mut self, batch: &Batch<'_>, out: &mut Vec<u8>) {
        self.stamped(BATCH, batch.before, out);
        delta(&mut self.time, batch.after.0, out);
        delta(&mut self.seq, batch.seq, out);
        let usual = Batch::capacity_of(batch.seq);
        put_signed(out, batch.capacity.wrapping_sub(usual) as i32 as i64);
        put(out, batch.attached.len() as u64);
        for attach in batch.attached {
            put(out, attach.tree.0.into());
            put(out, attach.pid.get().into());
            put(out, attach.root.into());
            put_signed(out, attach.errno.into());
            put(out, attach.notes.rotate_left(FFLAGS_ROTATION).into());
        }
        put(out, batch.events.len() as u64);
        for event in batch.events {
            delta(&mut self.ident, event.ident, out);
            put(out, event.flags.into());
            put(out, event.fflags.rotate_left(FFLAGS_ROTATION).into());
            put_signed(out, event.data);
            delta(&mut self.udata, event.udata, out);
        }
    }

    /// Takes one frame of a file of this version off `bytes`. `Err` is what is wrong with it.
    pub(super) fn decode<'a>(
        &mut self,
        version: u32,
        bytes: &mut Bytes<'a>,
        scratch: &'a mut Scratch,
    ) -> Result<Input<'a>, &'static str> {
        let (&tag, rest) = bytes.0.split_first().ok_or("a frame without its tag")?;
        bytes.0 = rest;
        let input = match tag {
            TREE => self.tree(bytes),
            BATCH => self.batch(version, bytes, scratch),
            STDOUT => self.text(bytes).map(|(at, bytes)| Input::Stdout { at, bytes }),
            STDERR => self.text(bytes).map(|(at, bytes)| Input::Stderr { at, bytes }),
            DTRACE_UP => self.time(bytes).map(|at| Input::DtraceUp { at }),
            DTRACE_DOWN => self.time(bytes).map(|at| Input::DtraceDown { at }),
            BATCHES_LOST => self.batches_lost(bytes),
            FORKS => self.forks(bytes),
            TREE_GONE => bytes.get_as().map(|id| Input::TreeGone { id: TreeId(id) }),
            END => Some(Input::End),
            CONSUMER if version > 1 => consumer(bytes),
            CONFIG if version > 1 => config(bytes).map(Input::Config),
            _ => return Err("a frame of an unknown kind"),
        };
        input.ok_or("a frame with a field cut short or out of range")
    }

    fn time(&mut self, bytes: &mut Bytes<'_>) -> Option<MonoTime> {
        undelta(&mut self.time, bytes).map(MonoTime)
    }

    fn text<'a>(&mut self, bytes: &mut Bytes<'a>) -> Option<(MonoTime, &'a [u8])> {
        Some((self.time(bytes)?, bytes.slice()?))
    }

    fn tree<'a>(&mut self, bytes: &mut Bytes<'a>) -> Option<Input<'a>> {
        let id = TreeId(bytes.get_as()?);
        Some(Input::Tree { id, name: std::str::from_utf8(bytes.slice()?).ok()? })
    }

    fn batches_lost(&mut self, bytes: &mut Bytes<'_>) -> Option<Input<'static>> {
        let (from, to) = (self.time(bytes)?, self.time(bytes)?);
        Some(Input::BatchesLost { first: bytes.get()?, count: bytes.get()?, from, to })
    }

    fn forks(&mut self, bytes: &mut Bytes<'_>) -> Option<Input<'static>> {
        Some(Input::Forks { at: self.time(bytes)?, total: bytes.get()? })
    }

    fn batch<'a>(
        &mut self,
        version: u32,
        bytes: &mut Bytes<'_>,
        scratch: &'a mut Scratch,
    ) -> Option<Input<'a>> {
        let (before, after) = (self.time(bytes)?, self.time(bytes)?);
        let seq = undelta(&mut self.seq, bytes)?;
        let unusual = i32::try_from(bytes.get_signed()?).ok()?;
        let capacity = Batch::capacity_of(seq).wrapping_add(unusual as u32);
        let Scratch { attached, events } = scratch;
        attached.clear();
        for _ in 0..bytes.count(LEAST_ATTACH)? {
            attached.push(attach(version, bytes)?);
        }
        events.clear();
        let count = bytes.count(LEAST_EVENT)?;
        events.reserve(count);
        for _ in 0..count {
            events.push(self.event(bytes)?);
        }
        Some(Input::Batch(Batch { seq, capacity, before, after, attached, events }))
    }

    #[inline]
    fn event(&mut self, bytes: &mut Bytes<'_>) -> Option<Kevent> {
        Some(Kevent {
            ident: undelta(&mut self.ident, bytes)?,
            flags: bytes.get_as()?,
            fflags: bytes.get_as::<u32>()?.rotate_right(FFLAGS_ROTATION),
            data: bytes.get_signed()?,
            udata: undelta(&mut self.udata, bytes)?,
        })
    }
}

fn slice(bytes: &[u8], out: &mut Vec<u8>) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn consumer(bytes: &mut Bytes<'_>) -> Option<Input<'static>> {
    let id = TreeId(bytes.get_as()?);
    let pid = match bytes.get()?.checked_sub(1) {
        None => None,
        Some(number) => Some(Pid::new(number)?),
    };
    Some(Input::Consumer { id, pid })
}

/// A configuration that a checker can have: durations of at most a day, a capacity within its bounds.
fn config(bytes: &mut Bytes<'_>) -> Option<Config> {
    let mut duration = || bytes.get().filter(|ns| (1..=LONGEST_CONFIG_NS).contains(ns));
    let (settle_ns, reorder_ns, switch_ns) = (duration()?, duration()?, duration()?);
    let capacity = bytes.get_as().filter(|entries| Config::CAPACITY.contains(entries))?;
    Some(Config { settle_ns, reorder_ns, switch_ns, capacity })
}

fn attach(version: u32, bytes: &mut Bytes<'_>) -> Option<Attach> {
    Some(Attach {
        tree: TreeId(bytes.get_as()?),
        pid: Pid::new(bytes.get()?)?,
        root: match bytes.get()? {
            0 => false,
            1 => true,
            _ => return None,
        },
        errno: i32::try_from(bytes.get_signed()?).ok()?,
        notes: match version {
            1 => Attach::USUAL_NOTES,
            _ => bytes.get_as::<u32>()?.rotate_right(FFLAGS_ROTATION),
        },
    })
}
