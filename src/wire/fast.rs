//! The usual line, decoded in one pass over its bytes and the newline.
//!
//! It follows the same table as [`decode`](super::decode::decode), takes good lines only, and leaves every other one to
//! that: what is wrong with a line is found in one place.

use super::decode::record;
use super::record::Record;
use super::schema::{Field, MAX_FIELDS, Schema};

/// So many decimal, and so many hexadecimal digits cannot overflow.
const DECIMAL: usize = 19;
const HEXADECIMAL: usize = 16;

/// The record whose whole line is the beginning of `text`, and what follows its newline.
#[inline(always)]
pub(super) fn usual_line<'a>(schema: &Schema, text: &'a [u8]) -> Option<(Record, &'a [u8])> {
    let layout = schema.layouts(*text.first()?).first()?;
    if layout.fields.len() > MAX_FIELDS {
        return None;
    }
    let mut values = [0u64; MAX_FIELDS];
    let mut at = 1;
    for (value, field) in values.iter_mut().zip(&layout.fields) {
        if *text.get(at)? != b' ' {
            return None;
        }
        (*value, at) = match field {
            Field { hex: true, .. } => hex(text, at + 1)?,
            field if field.is_long() => long(text, at + 1)?,
            _ => short(text, at + 1)?,
        };
        if *value > field.max {
            return None;
        }
    }
    let (b'\n', rest) = text.get(at..)?.split_first()? else { return None };
    Some((record(layout.kind, &values).ok()?, rest))
}

/// The decimal number at `start` and where it ends: one of up to seven digits.
#[inline(always)]
fn short(text: &[u8], start: usize) -> Option<(u64, usize)> {
    let (value, len) = few_digits(0, text.get(start..)?.first_chunk()?)?;
    (len > 0).then_some((value, start + len))
}

/// The decimal number at `start` and where it ends, eight digits at a time.
#[inline(always)]
fn long(text: &[u8], start: usize) -> Option<(u64, usize)> {
    let (mut value, mut at) = (0u64, start);
    loop {
        let eight = text.get(at..)?.first_chunk()?;
        let Some(digits) = eight_digits(eight) else {
            let (value, len) = few_digits(value, eight)?;
            let end = at + len;
            return (1..=DECIMAL).contains(&(end - start)).then_some((value, end));
        };
        value = value.wrapping_mul(100_000_000).wrapping_add(digits);
        at += 8;
    }
}

/// `value` with the digits appended that `text` begins with, and how many they are: less than eight. None of them needs
/// a look at where the text ends.
#[inline(always)]
fn few_digits(mut value: u64, text: &[u8; 8]) -> Option<(u64, usize)> {
    for (len, byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Some((value, len));
        }
        value = value.wrapping_mul(10).wrapping_add(digit.into());
    }
    None
}

/// The hexadecimal number at `start` and where it ends.
#[inline(always)]
fn hex(text: &[u8], start: usize) -> Option<(u64, usize)> {
    let (mut value, mut at) = (0u64, start);
    while let Some(digit) = char::from(*text.get(at)?).to_digit(16) {
        value = value.wrapping_shl(4) | u64::from(digit);
        at += 1;
    }
    (1..=HEXADECIMAL).contains(&(at - start)).then_some((value, at))
}

/// The value of eight digits, in parallel within one word; `None` if one of them is none.
#[inline(always)]
fn eight_digits(text: &[u8; 8]) -> Option<u64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let digits = u64::from_le_bytes(*text) ^ (EACH * b'0' as u64);
    // Above 9, adding 0x76 sets the high bit; a byte that had it set keeps it.
    if (digits.wrapping_add(EACH * 0x76) | digits) & (EACH * 0x80) != 0 {
        return None;
    }
    // Digits to pairs, pairs to fours, fours to eight. The first digit is in the lowest byte.
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}
