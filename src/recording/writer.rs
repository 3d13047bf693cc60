//! The writer of recordings: inputs go into blocks, which are compressed and checked one by one.

use std::io::{self, Write};

use crc32fast::Hasher;
use zstd::bulk::Compressor;

use super::frame::{Base, longest};
use super::{BLOCK, MAGIC, MAX_BLOCK, Meta, VERSION};
use crate::input::Input;

/// zstd's own default: fast enough for a live recording by far.
const LEVEL: i32 = 3;

/// Writes a recording. Without [`Writer::finish`] the file counts as cut short, and is readable up to the last block;
/// so it is after an error of the underlying writer, and nothing more can be appended then.
///
/// ```
/// use kqproc_exporter::input::Input;
/// use kqproc_exporter::model::MonoTime;
/// use kqproc_exporter::recording::{Meta, Reader, Writer};
///
/// let meta = Meta { note: "a fork bomb".to_owned(), ..Meta::default() };
/// let input = Input::Stdout { at: MonoTime(7), bytes: b"B 1000 1\n" };
/// let mut writer = Writer::new(Vec::new(), &meta)?;
/// writer.append(&input)?;
/// let file = writer.finish()?;
///
/// let mut reader = Reader::new(&file[..])?;
/// assert_eq!(reader.meta(), &meta);
/// assert_eq!(reader.next()?, Some(input));
/// assert_eq!(reader.next()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer<W> {
    out: W,
    base: Base,
    block: Vec<u8>,
    packed: Vec<u8>,
    compressor: Compressor<'static>,
    crc: Hasher,
}

impl<W: Write> Writer<W> {
    /// Begins a recording: writes its header and `meta`.
    ///
    /// # Errors
    /// `out` fails, or `meta` is longer than [`MAX_BLOCK`].
    pub fn new(out: W, meta: &Meta) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            out,
            base: Base::default(),
            block: serde_json::to_vec(meta)?,
            packed: Vec::new(),
            compressor: Compressor::new(LEVEL)?,
            crc: Hasher::new(),
        };
        if writer.block.len() > MAX_BLOCK {
            return Err(too_long("the D program or the note"));
        }
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        writer.crc.update(&header);
        writer.out.write_all(&header)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Appends one input. It is in the file once its block is full, or after [`Writer::flush`].
    ///
    /// # Errors
    /// Those of the underlying writer; `InvalidInput`, and nothing is written, for an input of some megabytes.
    pub fn append(&mut self, input: &Input<'_>) -> io::Result<()> {
        if longest(input) > MAX_BLOCK - BLOCK {
            return Err(too_long("one input"));
        }
        self.base.encode(input, &mut self.block);
        if self.block.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    /// Writes what has been appended, as a block of its own. Often means larger files.
    ///
    /// # Errors
    /// The underlying writer fails.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        self.out.flush()
    }

    /// Writes the rest and the end mark, and gives the underlying writer back.
    ///
    /// # Errors
    /// The underlying writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        self.write_block()?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// A block of any bytes: what only a faulty program would write.
    #[cfg(test)]
    pub(super) fn put_block_for_test(&mut self, block: &[u8]) {
        self.block.extend_from_slice(block);
    }

    /// An empty block is the end mark.
    fn write_block(&mut self) -> io::Result<()> {
        self.packed.clear();
        if !self.block.is_empty() {
            self.packed.reserve(zstd::zstd_safe::compress_bound(self.block.len()));
            self.compressor.compress_to_buffer(&self.block, &mut self.packed)?;
        }
        let mut lengths = [0; 8];
        lengths[..4].copy_from_slice(&(self.block.len() as u32).to_le_bytes());
        lengths[4..].copy_from_slice(&(self.packed.len() as u32).to_le_bytes());
        self.crc.update(&lengths);
        self.crc.update(&self.packed);
        self.out.write_all(&lengths)?;
        self.out.write_all(&self.packed)?;
        self.out.write_all(&self.crc.clone().finalize().to_le_bytes())?;
        self.block.clear();
        self.base = Base::default();
        Ok(())
    }
}

fn too_long(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is too long for a recording"))
}
