//! Integers in as few bytes as they need: LEB128, and zigzag for signed ones.

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// What is left of a block. Every getter yields `None` if the bytes do not suffice or give too large a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    pub(super) fn get(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let low = (byte & 0x7f) as u64;
            if shift == 63 && low > 1 {
                return None;
            }
            value |= low << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    #[inline]
    pub(super) fn get_signed(&mut self) -> Option<i64> {
        let value = self.get()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// An integer that has to fit a narrower type.
    pub(super) fn get_as<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.get()?).ok()
    }

    /// A length of items of which each takes at least `least` bytes: never more than there can be.
    pub(super) fn count(&mut self, least: usize) -> Option<usize> {
        let count = self.get_as::<usize>()?;
        (count <= self.0.len() / least).then_some(count)
    }

    /// A length and so many bytes.
    pub(super) fn slice(&mut self) -> Option<&'a [u8]> {
        let len = self.count(1)?;
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_survive() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX >> 1, u64::MAX] {
            let mut out = vec![];
            put(&mut out, value);
            put_signed(&mut out, value as i64);
            let mut bytes = Bytes(&out);
            assert_eq!((bytes.get(), bytes.get_signed()), (Some(value), Some(value as i64)));
            assert!(bytes.0.is_empty());
        }
    }

    #[test]
    fn a_number_that_is_too_large_is_refused() {
        assert_eq!(Bytes(&[0x80; 20]).get(), None);
        let mut eleven_bits_too_many = [0xff; 10];
        eleven_bits_too_many[9] = 0x02;
        assert_eq!(Bytes(&eleven_bits_too_many).get(), None);
        assert_eq!(Bytes(&[0x05, 1, 2]).slice(), None);
        assert_eq!(Bytes(&[0x03, 1, 2]).count(1), None);
    }
}
