//! CRC-32 as zip, PNG and Ethernet have it (reflected polynomial 0xEDB88320).

/// `TABLES[k][b]`: what byte `b` does to the checksum when `k` more bytes follow. Eight bytes are taken at once.
const TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut value, mut bit) = (i as u32, 0);
        while bit < 8 {
            value = (value >> 1) ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        tables[0][i] = value;
        i += 1;
    }
    let mut i = 256;
    while i < 8 * 256 {
        let shorter = tables[i / 256 - 1][i % 256];
        tables[i / 256][i % 256] = (shorter >> 8) ^ tables[0][(shorter & 0xff) as usize];
        i += 1;
    }
    tables
};

/// A checksum that goes on from block to block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc(u32);

impl Crc {
    pub(super) const fn new() -> Crc {
        Crc(!0)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let mixed = (u64::from_le_bytes(*eight) ^ u64::from(self.0)).to_le_bytes();
            self.0 = (0..8).fold(0, |crc, i| crc ^ TABLES[7 - i][usize::from(mixed[i])]);
        }
        for byte in rest {
            self.0 = (self.0 >> 8) ^ TABLES[0][((self.0 ^ u32::from(*byte)) & 0xff) as usize];
        }
    }

    pub(super) const fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_check_value() {
        let mut crc = Crc::new();
        crc.update(b"1234");
        crc.update(b"56789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }

    #[test]
    fn eight_bytes_at_once_are_as_good_as_one_by_one() {
        let bytes: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37)).collect();
        let (mut whole, mut single) = (Crc::new(), Crc::new());
        whole.update(&bytes);
        bytes.iter().for_each(|byte| single.update(&[*byte]));
        assert_eq!(whole.value(), single.value());
    }
}
