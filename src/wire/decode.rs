//! Lines of dtrace's stdout into records: no allocation, no panic, and a bad line costs one counted error.

use super::record::{Copyout, Kind, Mark, Record, Register};
use super::schema::{COPYOUT_FIELDS, EVENT_FIELDS, EVENTS, Field, MAX_FIELDS, SCHEMA};
use crate::model::{KernelTime, Pid, WaitStatus, named_enum};

named_enum! {
    /// Why a line of stdout is not a record.
    pub enum Reason {
        /// No record begins like this.
        UnknownKind = "unknown_kind",
        /// Too few or too many fields.
        FieldCount = "field_count",
        /// A field is not a number.
        BadNumber = "bad_number",
        /// A number that the field's type or a pid cannot have.
        OutOfRange = "out_of_range",
        /// Longer than any record.
        TooLong = "too_long",
        /// The stream ended in the middle of the line.
        CutShort = "cut_short",
        /// A time stamp that fits neither what came before nor what came after.
        Implausible = "implausible_time",
        /// A record from before the reorder horizon: its place in the order is gone.
        Late = "late",
        /// The same record again, or the same fork or exit with a second time stamp.
        Duplicate = "duplicate",
    }
}

/// The numbers of a line, in the order of its fields; those that are not there are 0.
pub(super) type Values = [u64; MAX_FIELDS];

/// getpriority's first argument right before and right after a kevent(2) call: `kp` and `kq`, and no user's id.
pub(crate) const BEFORE_CALL: i32 = 0x6b70;
/// See [`BEFORE_CALL`].
pub(crate) const AFTER_CALL: i32 = 0x6b71;

/// Decodes one line (without its newline): `each` gets its record, or its records, of which a line with events has one for
/// each. None for an empty line: dtrace prints one when it ends.
///
/// ```
/// use kqproc_exporter::model::{KernelTime, Pid, WaitStatus};
/// use kqproc_exporter::wire::decode::{Reason, decode};
/// use kqproc_exporter::wire::record::Record;
///
/// let mut exit = None;
/// decode(b"X 13816468975 1 629 16 1 32512", |record| exit = Some(record))?;
/// let (pid, parent) = (Pid::new(629).expect("a pid"), Pid::new(16).expect("a pid"));
/// let (at, status) = (KernelTime(13_816_468_975), WaitStatus(127 << 8));
/// assert_eq!(exit, Some(Record::Exit { at, pid, parent, status }));
/// assert_eq!(decode(b"X 13816468975 1 629", |_| ()), Err(Reason::FieldCount));
/// # Ok::<(), Reason>(())
/// ```
///
/// # Errors
/// Why the line is no record; nothing else is lost with it.
pub fn decode(line: &[u8], mut each: impl FnMut(Record)) -> Result<(), Reason> {
    let Some((&letter, mut rest)) = line.split_first() else { return Ok(()) };
    let layouts = SCHEMA.layouts(letter);
    let count = rest.iter().filter(|byte| **byte == b' ').count();
    let layout = layouts.iter().find(|layout| layout.takes(count)).or(layouts.first());
    let layout = layout.ok_or(Reason::UnknownKind)?;
    let mut values = [0u64; COPYOUT_FIELDS];
    let least = layout.fields.len() - usize::from(layout.kind.is_of_consumer());
    for (i, (value, field)) in values.iter_mut().zip(&layout.fields).enumerate() {
        let digits = match rest.split_first() {
            Some((b' ', digits)) => digits,
            None if i == least => break,
            _ => return Err(end_of_field(rest)),
        };
        (*value, rest) = number(digits, field)?;
    }
    if !rest.is_empty() {
        return Err(end_of_field(rest));
    }
    if layout.kind == Kind::Copyout {
        return copyout(&values, each);
    }
    let values = values.first_chunk().ok_or(Reason::FieldCount)?;
    each(record(layout.kind, values)?);
    Ok(())
}

/// The events of a copyout, in their order.
fn copyout(values: &[u64; COPYOUT_FIELDS], mut each: impl FnMut(Record)) -> Result<(), Reason> {
    let [at, _cpu, tid, fd, count, events @ .., consumer] = values;
    let count = usize::try_from(*count).ok().filter(|n| *n <= EVENTS).ok_or(Reason::OutOfRange)?;
    let consumer = Pid::new(*consumer).ok_or(Reason::OutOfRange)?;
    let events = events.as_chunks::<EVENT_FIELDS>().0.iter().take(count);
    for (index, &[ident, filter, flags, fflags, data]) in (0u8..).zip(events) {
        each(Record::Copyout(Copyout {
            at: KernelTime(*at),
            ident,
            data: data as i64,
            fflags: fflags as u32,
            tid: *tid as u32,
            fd: *fd as i32,
            consumer,
            flags: flags as u16,
            filter: filter as i16,
            index,
        }));
    }
    Ok(())
}

/// What is wrong where a field ended and neither a blank nor the end of the line follows as it should.
fn end_of_field(rest: &[u8]) -> Reason {
    match rest.first() {
        None | Some(b' ') => Reason::FieldCount,
        Some(_) => Reason::BadNumber,
    }
}

/// The number at the beginning of `text` and what follows it. Negative ones in two's complement.
fn number<'a>(text: &'a [u8], field: &Field) -> Result<(u64, &'a [u8]), Reason> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) if field.signed => (true, digits),
        _ => (false, text),
    };
    let (value, len) = if field.hex { hex(digits) } else { decimal(digits) };
    if len == 0 {
        return Err(if text.is_empty() { Reason::FieldCount } else { Reason::BadNumber });
    }
    if value > u128::from(field.max) + u128::from(negative) {
        return Err(Reason::OutOfRange);
    }
    let (value, rest) = (value as u64, digits.get(len..).unwrap_or_default());
    Ok((if negative { value.wrapping_neg() } else { value }, rest))
}

/// The value, at most `u128::MAX`, and the number of its digits.
fn decimal(text: &[u8]) -> (u128, usize) {
    let (mut value, mut len) = (0u128, 0);
    while let Some(digit) = text.get(len).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        value = value.saturating_mul(10).saturating_add(digit.into());
        len += 1;
    }
    (value, len)
}

fn hex(text: &[u8]) -> (u128, usize) {
    let (mut value, mut len) = (0u128, 0);
    while let Some(digit) = text.get(len).and_then(|b| (*b as char).to_digit(16)) {
        value = value.saturating_mul(16).saturating_add(digit.into());
        len += 1;
    }
    (value, len)
}

/// The record with these fields.
#[inline(always)]
pub(super) fn record(kind: Kind, v: &Values) -> Result<Record, Reason> {
    let at = KernelTime(v[0]);
    let pid = |number: u64| Pid::new(number).ok_or(Reason::OutOfRange);
    Ok(match kind {
        Kind::Begin => Record::Begin { at, wall: v[1] },
        Kind::Tick => Record::Tick { at, wall: v[1] },
        Kind::Create => Record::Create {
            at,
            child: pid(v[2])?,
            forker: pid(v[3])?,
            parent: pid(v[4])?,
            flags: v[5] as u32,
        },
        Kind::Exit => {
            let status = status(v[4] as i32, v[5] as u32).ok_or(Reason::OutOfRange)?;
            Record::Exit { at, pid: pid(v[2])?, parent: pid(v[3])?, status }
        }
        Kind::Exec => Record::Exec { at, pid: pid(v[2])? },
        Kind::ExecFail => Record::ExecFail { at, pid: pid(v[2])?, errno: v[3] as i32 },
        Kind::Mark => Record::Mark(Mark {
            at,
            entered: KernelTime(v[2]),
            capacity: v[3] as u32,
            seq: None,
            returned: Some(v[4] as i32),
        }),
        Kind::Kevent => Record::Kevent { at, pid: pid(v[2])?, returned: v[3] as i32 },
        Kind::RegFail => {
            Record::RegFail { at, forker: pid(v[1])?, child: pid(v[2])?, errno: v[3] as i32 }
        }
        Kind::Influx => Record::Influx { at, forker: pid(v[1])?, child: pid(v[2])? },
        Kind::Causes => Record::Causes { at },
        Kind::CallMark => call_mark(at, v[2] as i32, v[3] as u32)?,
        Kind::Register => Record::Register(Register {
            at,
            kqueue: v[5],
            ident: v[6],
            tid: v[2] as u32,
            fd: v[4] as i32,
            flags: v[8] as u16,
            filter: v[7] as i16,
            fflags: v[9] as u32,
            own: v[3] != 0,
            consumer: pid(v[11])?,
        }),
        Kind::RegDone => {
            Record::RegDone { at, tid: v[2] as u32, errno: v[3] as i32, consumer: pid(v[4])? }
        }
        Kind::Call => Record::Call {
            at,
            tid: v[2] as u32,
            fd: v[3] as i32,
            nevents: v[4] as i32,
            returned: v[5] as i32,
            errno: v[6] as i32,
            consumer: pid(v[7])?,
        },
        // Its line has more fields than any other, and several records.
        Kind::Copyout => return Err(Reason::FieldCount),
    })
}

/// What getpriority(2) marks: the return of a call is a mark whose beginning is not known yet.
fn call_mark(at: KernelTime, which: i32, seq: u32) -> Result<Record, Reason> {
    // As the call's own `nevents` was, while that was its name: `Batch::capacity_of`.
    let capacity = 1024 + seq % 1024;
    let entered = KernelTime(0);
    match which {
        BEFORE_CALL => Ok(Record::CallMark { at, seq }),
        AFTER_CALL => {
            Ok(Record::Mark(Mark { at, entered, capacity, seq: Some(seq), returned: None }))
        }
        _ => Err(Reason::OutOfRange),
    }
}

/// The wait status, if it is one that this CLD_* reason can have (13.2 `kern_exit.c:600`): a number that was cut short
/// hardly ever is.
fn status(reason: i32, status: u32) -> Option<WaitStatus> {
    const CLD_EXITED: i32 = 1;
    let signalled = status & 0x7f != 0;
    (status <= 0xffff && signalled == (reason != CLD_EXITED)).then_some(WaitStatus(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record of a line that has at most one.
    fn decode(line: &[u8]) -> Result<Option<Record>, Reason> {
        let mut records = vec![];
        super::decode(line, |record| records.push(record))?;
        assert!(records.len() <= 1, "{records:?}");
        Ok(records.pop())
    }

    #[test]
    fn records_of_a_real_kernel_decode() {
        assert_eq!(
            decode(b"C 10446144367 1 25 16 16 14"),
            Ok(Some(Record::Create {
                at: KernelTime(10446144367),
                child: Pid::new(25).unwrap(),
                forker: Pid::new(16).unwrap(),
                parent: Pid::new(16).unwrap(),
                flags: 0x14,
            }))
        );
        assert_eq!(
            decode(b"K 5 0 80 -1"),
            Ok(Some(Record::Kevent {
                at: KernelTime(5),
                pid: Pid::new(80).unwrap(),
                returned: -1
            }))
        );
        assert_eq!(decode(b""), Ok(None));
    }

    #[test]
    fn a_bad_line_has_its_reason() {
        for (line, reason) in [
            (&b"Z 1 2"[..], Reason::UnknownKind),
            (b"\0", Reason::UnknownKind),
            (b"\xff\xfe", Reason::UnknownKind),
            (b"C", Reason::FieldCount),
            (b"C ", Reason::FieldCount),
            (b"C 1 2 3", Reason::FieldCount),
            (b"T 1 2 3", Reason::FieldCount),
            (b"T 1 2 ", Reason::FieldCount),
            (b"T 1 ", Reason::FieldCount),
            (b"T 1  2", Reason::BadNumber),
            (b"T 1 x", Reason::BadNumber),
            (b"T 1 2\0", Reason::BadNumber),
            (b"T 1 -2", Reason::BadNumber),
            (b"TT 1 2", Reason::BadNumber),
            (b"T 1 99999999999999999999", Reason::OutOfRange),
            (b"E 1 0 4294967296", Reason::OutOfRange),
            (b"E 1 0 100000", Reason::OutOfRange),
            (b"E 1 0 -1", Reason::OutOfRange),
            (b"C 1 0 2 1 1 100000000", Reason::OutOfRange),
            (b"X 1 0 2 1 1 3251", Reason::OutOfRange),
            (b"X 1 0 2 1 2 0", Reason::OutOfRange),
            (b"X 1 0 2 1 1 65536", Reason::OutOfRange),
            (b"m 1 0 27506 1", Reason::OutOfRange),
            (b"M 1 0 2 3 4 5 6 7 8", Reason::FieldCount),
            (b"M 1 0 2 3 4", Reason::FieldCount),
            (b"A 1 0 2 1 3 ff 5 -5 11 80000000 0 99 1", Reason::FieldCount),
            (b"A 1 0 2 1 3 ff 5 -5 11 80000000 0 100000", Reason::OutOfRange),
            (b"N 1 0 2 3 1 5 -5 8030 80000000 0", Reason::FieldCount),
        ] {
            assert_eq!(decode(line), Err(reason), "{}", line.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = super::decode(&line, |_| ());
        }
    }

    fn copied(count: i32, pid: &str) -> Result<Vec<Copyout>, Reason> {
        let unused = " 0 0 0 0 0".repeat(6);
        let line = format!(
            "N 17014197551 1 100069 3 {count} 1217 -5 8030 80000000 1280 1220 -5 20 4 46{unused}{pid}"
        );
        let mut copied = vec![];
        super::decode(line.as_bytes(), |record| match record {
            Record::Copyout(event) => copied.push(event),
            other => panic!("{other:?}"),
        })?;
        Ok(copied)
    }

    #[test]
    fn a_copyout_is_a_record_for_each_event() {
        let copied = copied(2, " 46").unwrap();
        let facts: Vec<_> =
            copied.iter().map(|e| (e.index, e.ident, e.flags, e.fflags, e.data)).collect();
        assert_eq!(facts, [(0, 1217, 0x8030, 0x8000_0000, 1280), (1, 1220, 0x20, 4, 46)]);
        for event in &copied {
            assert_eq!(
                (event.at.0, event.tid, event.fd, event.filter),
                (17014197551, 100069, 3, -5)
            );
            assert_eq!(event.consumer.get(), 46);
        }
    }

    #[test]
    fn what_lies_beyond_the_count_of_a_copyout_is_no_event() {
        assert_eq!(copied(1, " 46").map(|events| events.len()), Ok(1));
        assert_eq!(copied(0, "").map(|events| events.len()), Ok(0));
        for count in [9, -1] {
            assert_eq!(copied(count, " 46"), Err(Reason::OutOfRange));
        }
    }

    #[test]
    fn a_consumer_is_not_named_in_a_stream_of_one() {
        assert_eq!(copied(1, "").unwrap()[0].consumer.get(), 0);
        for (alone, named) in [
            ("A 1 0 2 1 3 ff 5 -5 11 80000000 0", "A 1 0 2 1 3 ff 5 -5 11 80000000 0 46"),
            ("a 1 0 2 3", "a 1 0 2 3 46"),
            ("M 1 0 2 3 64 1 0", "M 1 0 2 3 64 1 0 46"),
        ] {
            let consumer = |line: &str| match decode(line.as_bytes()) {
                Ok(Some(Record::Register(Register { consumer, .. })))
                | Ok(Some(Record::RegDone { consumer, .. } | Record::Call { consumer, .. })) => {
                    consumer.get()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!((consumer(alone), consumer(named)), (0, 46));
        }
    }

    #[test]
    fn a_call_of_a_consumer_and_a_mark_differ_in_their_fields() {
        let kind = |line: &[u8]| decode(line).unwrap().unwrap().kind();
        assert_eq!(kind(b"M 5 0 4 1024 2 0"), Kind::Mark);
        assert_eq!(kind(b"M 5 0 100069 3 64 -1 4"), Kind::Call);
        assert_eq!(kind(b"M 5 0 100069 3 64 13 0 46"), Kind::Call);
    }

    #[test]
    fn a_registration_has_what_was_asked_for() {
        let line = b"A 42793105118 0 100086 1 4 fffff80004f51d00 638 -5 11 80000000 0";
        let Ok(Some(Record::Register(register))) = decode(line) else { panic!() };
        let Register { kqueue, ident, filter, flags, fflags, own, fd, .. } = register;
        assert_eq!((kqueue, ident, own, fd), (0xffff_f800_04f5_1d00, 638, true, 4));
        assert_eq!((filter, flags, fflags), (-5, 0x11, 0x8000_0000));
    }
}
