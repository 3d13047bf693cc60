//! The usual line, decoded in one pass over its bytes and the newline.
//!
//! It follows the same table as [`decode`](super::decode::decode), takes good lines only, and leaves every other one to
//! that: what is wrong with a line is said in one place.

use super::decode::record;
use super::record::Record;
use super::schema::{MAX_FIELDS, Schema};

/// No usual number has more digits: none of so many overflows.
const DIGITS: usize = 19;

/// The record whose whole line is the beginning of `text`, and what follows its newline.
#[inline(always)]
pub(super) fn usual_line<'a>(schema: &Schema, text: &'a [u8]) -> Option<(Record, &'a [u8])> {
    let layout = schema.layout(*text.first()?)?;
    let mut values = [0u64; MAX_FIELDS];
    let mut at = 1;
    for (value, field) in values.iter_mut().zip(layout.fields()) {
        if *text.get(at)? != b' ' {
            return None;
        }
        let start = at + 1;
        (*value, at) =
            if field.hex { hex(text, start)? } else { decimal(text, start, field.is_long())? };
        if at - start > DIGITS || at == start || *value > field.max {
            return None;
        }
    }
    let (b'\n', rest) = text.get(at..)?.split_first()? else { return None };
    Some((record(layout.kind, &values).ok()?, rest))
}

/// The decimal number at `at` and where it ends; where it is `long`, eight digits at a time.
#[inline(always)]
fn decimal(text: &[u8], mut at: usize, long: bool) -> Option<(u64, usize)> {
    let mut value = 0u64;
    if long {
        while let Some(eight) = text.get(at..)?.first_chunk().and_then(eight_digits) {
            value = value.wrapping_mul(100_000_000).wrapping_add(eight);
            at += 8;
        }
    }
    loop {
        let digit = text.get(at)?.wrapping_sub(b'0');
        if digit > 9 {
            return Some((value, at));
        }
        value = value.wrapping_mul(10).wrapping_add(digit.into());
        at += 1;
    }
}

/// The hexadecimal number at `at` and where it ends.
#[inline(always)]
fn hex(text: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    while let Some(digit) = char::from(*text.get(at)?).to_digit(16) {
        value = value.wrapping_shl(4) | u64::from(digit);
        at += 1;
    }
    Some((value, at))
}

/// The value of eight digits, in parallel within one word; `None` where one of them is none.
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
