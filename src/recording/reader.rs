//! The reader of recordings: block by block, up to the first damage.

use std::io::{self, Read};

use crc32fast::Hasher;
use zstd::bulk::Decompressor;

use super::frame::{Base, Scratch};
use super::varint::Bytes;
use super::{MAGIC, MAX_BLOCK, MAX_STORED, Meta, RecordingError, VERSION};
use crate::input::Input;

/// Reads a recording: first everything that is whole, then, once, what is wrong with the rest.
pub struct Reader<R> {
    input: R,
    version: u32,
    meta: Meta,
    /// Where the current block begins, and where the next one does.
    offset: u64,
    next_offset: u64,
    base: Base,
    block: Vec<u8>,
    pos: usize,
    scratch: Scratch,
    packed: Vec<u8>,
    decompressor: Decompressor<'static>,
    crc: Hasher,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`RecordingError`], if it is not a recording or even its header is damaged.
    pub fn new(mut input: R) -> Result<Reader<R>, RecordingError> {
        let unreadable = |source| RecordingError::Io { offset: 0, source };
        let mut header = Vec::new();
        fill(&mut input, 12, &mut header).map_err(unreadable)?;
        let mut reader = Reader {
            version: version(&header)?,
            input,
            meta: Meta::default(),
            offset: 0,
            next_offset: 12,
            base: Base::default(),
            block: Vec::new(),
            pos: 0,
            scratch: Scratch::default(),
            packed: Vec::new(),
            decompressor: Decompressor::new().map_err(unreadable)?,
            crc: Hasher::new(),
            done: false,
        };
        reader.crc.update(&header);
        reader.read_block()?;
        reader.meta = serde_json::from_slice(&reader.block)
            .map_err(|_| reader.malformed("a header without its fields"))?;
        reader.pos = reader.block.len();
        Ok(reader)
    }

    /// Where the recording comes from.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The next input, `None` at the end.
    ///
    /// # Errors
    /// [`RecordingError`], once, if the file is damaged or cut: nothing can be read behind that.
    #[allow(
        clippy::should_implement_trait,
        reason = "an input borrows from the reader: no Iterator can do that"
    )]
    pub fn next(&mut self) -> Result<Option<Input<'_>>, RecordingError> {
        if self.pos == self.block.len() && !self.done {
            self.read_block().inspect_err(|_| self.done = true)?;
        }
        if self.done {
            return Ok(None);
        }
        let mut bytes = Bytes(self.block.get(self.pos..).unwrap_or_default());
        let decoded = self.base.decode(self.version, &mut bytes, &mut self.scratch);
        self.pos = self.block.len() - bytes.0.len();
        match decoded {
            Ok(input) => Ok(Some(input)),
            Err(what) => {
                self.done = true;
                Err(RecordingError::Malformed { offset: self.offset, what })
            }
        }
    }

    /// Reads and checks the next block. At the end mark there is none: done.
    fn read_block(&mut self) -> Result<(), RecordingError> {
        self.offset = self.next_offset;
        let offset = self.offset;
        let (len, stored) = self.lengths()?;
        self.take(stored + 4)?;
        let (packed, sum) = self.packed.split_at(stored);
        self.crc.update(packed);
        if sum != self.crc.clone().finalize().to_le_bytes() {
            return Err(RecordingError::Damaged { offset, what: "the checksum differs" });
        }
        self.next_offset += (8 + stored + 4) as u64;
        self.base = Base::default();
        self.pos = 0;
        self.block.clear();
        if len == 0 {
            self.done = true;
            return self.expect_nothing_more();
        }
        self.block.reserve(len);
        let unpacked = self.decompressor.decompress_to_buffer(packed, &mut self.block);
        if unpacked.ok() != Some(len) {
            self.block.clear();
            return Err(self.malformed("not zstd, or not of the length it says"));
        }
        Ok(())
    }

    /// The block's two lengths, within their bounds.
    fn lengths(&mut self) -> Result<(usize, usize), RecordingError> {
        self.take(8)?;
        self.crc.update(&self.packed);
        let mut numbers = self.packed.as_chunks().0.iter().map(|n| u32::from_le_bytes(*n) as usize);
        let (len, stored) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if len > MAX_BLOCK || stored > MAX_STORED || (len == 0) != (stored == 0) {
            return Err(RecordingError::Damaged {
                offset: self.offset,
                what: "impossible lengths",
            });
        }
        Ok((len, stored))
    }

    /// The next `len` bytes of the file into `packed`.
    fn take(&mut self, len: usize) -> Result<(), RecordingError> {
        let offset = self.offset;
        self.packed.clear();
        fill(&mut self.input, len, &mut self.packed)
            .map_err(|source| RecordingError::Io { offset, source })?;
        if self.packed.len() == len { Ok(()) } else { Err(RecordingError::Cut { offset }) }
    }

    fn expect_nothing_more(&mut self) -> Result<(), RecordingError> {
        self.packed.clear();
        match fill(&mut self.input, 1, &mut self.packed) {
            Ok(()) if self.packed.is_empty() => Ok(()),
            Ok(()) => Err(RecordingError::Damaged {
                offset: self.next_offset,
                what: "bytes after the end",
            }),
            Err(source) => Err(RecordingError::Io { offset: self.next_offset, source }),
        }
    }

    fn malformed(&self, what: &'static str) -> RecordingError {
        RecordingError::Malformed { offset: self.offset, what }
    }
}

/// Appends up to `len` bytes, fewer at the end of the file. Grows with what is there, not with what was promised.
fn fill(input: &mut impl Read, len: usize, to: &mut Vec<u8>) -> io::Result<()> {
    input.take(len as u64).read_to_end(to).map(|_| ())
}

fn version(header: &[u8]) -> Result<u32, RecordingError> {
    if header.is_empty() {
        return Err(RecordingError::Empty);
    }
    let Some(version) = header.strip_prefix(&MAGIC) else {
        let cut = MAGIC.starts_with(header);
        return Err(if cut {
            RecordingError::Cut { offset: 0 }
        } else {
            RecordingError::NotARecording
        });
    };
    match version.try_into().map(u32::from_le_bytes) {
        Err(_) => Err(RecordingError::Cut { offset: 0 }),
        Ok(version @ 1..=VERSION) => Ok(version),
        Ok(version) => Err(RecordingError::Version(version)),
    }
}
