//! Lines of dtrace's stdout into records: no allocation, no panic, and a bad line costs one counted error.

use super::record::{Kind, Mark, Record};
use super::schema::{Field, MAX_FIELDS, SCHEMA};
use crate::model::{KernelTime, Pid, WaitStatus, words};

words! {
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
        /// The same record again.
        Duplicate = "duplicate",
    }
}

/// Decodes one line (without its newline). `Ok(None)` for an empty line: dtrace prints one when it ends.
///
/// ```
/// use kqproc_exporter::model::{KernelTime, Pid, WaitStatus};
/// use kqproc_exporter::wire::decode::{Reason, decode};
/// use kqproc_exporter::wire::record::Record;
///
/// let exit = decode(b"X 13816468975 1 629 16 1 32512")?;
/// let (pid, parent) = (Pid::new(629).expect("a pid"), Pid::new(16).expect("a pid"));
/// let (at, status) = (KernelTime(13_816_468_975), WaitStatus(127 << 8));
/// assert_eq!(exit, Some(Record::Exit { at, pid, parent, status }));
/// assert_eq!(decode(b"X 13816468975 1 629"), Err(Reason::FieldCount));
/// # Ok::<(), Reason>(())
/// ```
///
/// # Errors
/// Why the line is no record; nothing else is lost with it.
pub fn decode(line: &[u8]) -> Result<Option<Record>, Reason> {
    let Some((&letter, mut rest)) = line.split_first() else { return Ok(None) };
    let layout = SCHEMA.layout(letter).ok_or(Reason::UnknownKind)?;
    let mut values = [0u64; MAX_FIELDS];
    for (value, field) in values.iter_mut().zip(layout.fields()) {
        let Some((b' ', digits)) = rest.split_first() else { return Err(end_of_field(rest)) };
        (*value, rest) = number(digits, field)?;
    }
    if !rest.is_empty() {
        return Err(end_of_field(rest));
    }
    record(layout.kind, &values).map(Some)
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
    // 19 decimal and 16 hexadecimal digits cannot overflow; nobody prints more.
    if len > if field.hex { 16 } else { 19 } || value > field.max + u64::from(negative) {
        return Err(Reason::OutOfRange);
    }
    let rest = digits.get(len..).unwrap_or_default();
    Ok((if negative { value.wrapping_neg() } else { value }, rest))
}

fn decimal(text: &[u8]) -> (u64, usize) {
    let (mut value, mut len) = (0u64, 0);
    while let Some(digit) = text.get(len).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        value = value.wrapping_mul(10).wrapping_add(digit as u64);
        len += 1;
    }
    (value, len)
}

fn hex(text: &[u8]) -> (u64, usize) {
    let (mut value, mut len) = (0u64, 0);
    while let Some(digit) = text.get(len).and_then(|b| (*b as char).to_digit(16)) {
        value = value.wrapping_shl(4) | digit as u64;
        len += 1;
    }
    (value, len)
}

/// The record with these fields.
#[inline(always)]
pub(super) fn record(kind: Kind, v: &[u64; MAX_FIELDS]) -> Result<Record, Reason> {
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
            returned: v[4] as i32,
        }),
        Kind::Kevent => Record::Kevent { at, pid: pid(v[2])?, returned: v[3] as i32 },
        Kind::RegFail => {
            Record::RegFail { at, forker: pid(v[1])?, child: pid(v[2])?, errno: v[3] as i32 }
        }
        Kind::Influx => Record::Influx { at, forker: pid(v[1])?, child: pid(v[2])? },
    })
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
            decode(b"X 13816468975 1 629 16 1 32512"),
            Ok(Some(Record::Exit {
                at: KernelTime(13816468975),
                pid: Pid::new(629).unwrap(),
                parent: Pid::new(16).unwrap(),
                status: WaitStatus(32512),
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
        ] {
            assert_eq!(decode(line), Err(reason), "{}", line.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = decode(&line);
        }
    }
}
