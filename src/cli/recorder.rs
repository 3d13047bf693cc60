//! Writes inputs to a recording, and begins another part of it when one is long enough.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::exit::{IOERR, OrExit};
use super::output;
use crate::input::{Config, Input, Sink};
use crate::model::{Pid, TreeId};
use crate::recording::{Meta, Writer};

/// When a recording begins another part, and how many parts are kept.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    /// Bytes of input in a part, before compression.
    pub(super) limit: u64,
    /// The newest so many parts are kept; 0: all.
    pub(super) keep: usize,
}

impl Rotation {
    /// One part.
    pub(super) const NONE: Rotation = Rotation { limit: u64::MAX, keep: 0 };
}

/// A sink that writes a recording until it cannot. Each part is a whole recording by itself: run.kqr, run.1.kqr ...
pub(super) struct Recorder {
    output: PathBuf,
    meta: Meta,
    check: Option<Config>,
    rotation: Rotation,
    trees: Vec<(TreeId, String)>,
    consumers: BTreeMap<TreeId, Option<Pid>>,
    /// Of the part, from 0.
    number: usize,
    /// Bytes of input in this part, before compression.
    size: u64,
    part: Option<Writer<Box<dyn Write>>>,
    written: io::Result<()>,
}

impl Recorder {
    /// Creates the first part. `check` is how the run is to be judged, if that is known.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn begin(
        output: &Path,
        meta: Meta,
        check: Option<Config>,
        rotation: Rotation,
    ) -> anyhow::Result<Recorder> {
        let mut recorder = Recorder {
            output: output.to_owned(),
            meta,
            check,
            rotation,
            trees: Vec::new(),
            consumers: BTreeMap::new(),
            number: 0,
            size: 0,
            part: None,
            written: Ok(()),
        };
        let begun = File::create(output).and_then(|file| recorder.open(BufWriter::new(file)));
        begun.with_context(|| output::unwritable(output)).or_exit(IOERR)?;
        Ok(recorder)
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// The first one of writing, also of before.
    pub(super) fn end(mut self) -> io::Result<()> {
        std::mem::replace(&mut self.written, Ok(())).and_then(|()| self.finish())
    }

    fn append(&mut self, input: &Input<'_>) -> io::Result<()> {
        match input {
            Input::Tree { id, name } => self.trees.push((*id, (*name).to_owned())),
            Input::Consumer { id, pid } => drop(self.consumers.insert(*id, *pid)),
            _ => {}
        }
        let weight = weight(input);
        if self.size + weight > self.rotation.limit {
            self.rotate()?;
        }
        self.size += weight;
        self.part.as_mut().map_or(Ok(()), |part| part.append(input))
    }

    /// Ends this part and begins the next one.
    fn rotate(&mut self) -> io::Result<()> {
        self.finish()?;
        self.number += 1;
        self.size = 0;
        self.open(BufWriter::new(File::create(self.path(self.number))?))?;
        let keep = self.rotation.keep;
        if keep == 0 || self.number < keep {
            return Ok(());
        }
        match std::fs::remove_file(self.path(self.number - keep)) {
            // It was moved away already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Begins a part with the configuration and, in a later one, the trees and consumers of those before.
    fn open(&mut self, out: impl Write + 'static) -> io::Result<()> {
        let out: Box<dyn Write> = Box::new(out);
        let mut part = Writer::new(out, &self.meta)?;
        if let Some(check) = self.check {
            part.append(&Input::Config(check))?;
        }
        for (id, name) in &self.trees {
            part.append(&Input::Tree { id: *id, name })?;
        }
        for (&id, &pid) in &self.consumers {
            part.append(&Input::Consumer { id, pid })?;
        }
        self.part = Some(part);
        Ok(())
    }

    /// `run.kqr`, `run.1.kqr`, `run.2.kqr`...
    fn path(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.output.clone();
        }
        let mut name = OsString::from(self.output.file_stem().unwrap_or_default());
        name.push(format!(".{number}"));
        if let Some(ending) = self.output.extension() {
            name.push(".");
            name.push(ending);
        }
        self.output.with_file_name(name)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.part.take().map_or(Ok(()), |part| part.finish()?.flush())
    }
}

impl Sink for Recorder {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        if self.written.is_ok() {
            self.written = self.append(&input);
        }
        // Nothing is recorded behind an end: another host's, if that was booted, is another recording.
        match &self.written {
            Ok(()) if input != Input::End => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

/// About how many bytes an input takes before compression.
fn weight(input: &Input<'_>) -> u64 {
    let bytes = match input {
        Input::Stdout { bytes, .. } | Input::Stderr { bytes, .. } => bytes.len(),
        Input::Batch(batch) => 16 + 8 * batch.events.len(),
        _ => 16,
    };
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MonoTime;
    use crate::sim::rng::Rng;
    use crate::source::replay::Replay;

    fn begin(folder: &Path, rotation: Rotation) -> Recorder {
        let (output, check) = (folder.join("run.kqr"), Some(Config::default()));
        Recorder::begin(&output, Meta::default(), check, rotation).unwrap()
    }

    /// A disk with room for so many bytes more.
    struct Disk(File, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1 == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = self.0.write(&bytes[..bytes.len().min(self.1)])?;
            self.1 -= written;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    /// Lines that no compression makes much smaller.
    fn lines(n: u64) -> Vec<u8> {
        let mut rng = Rng::new(n);
        (0..10_000).map(|_| rng.bits() as u8).collect()
    }

    #[test]
    fn a_disk_that_fills_ends_a_recording_and_what_was_written_before_replays() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path(), Rotation::NONE);
        let disk = Disk(File::create(&recorder.output).unwrap(), 1_000_000);
        recorder.open(BufWriter::new(disk)).unwrap();
        let input = |n: u64| (MonoTime(n), lines(n));
        let pushed = (0..1000).find(|n| {
            let (at, bytes) = input(*n);
            recorder.push(Input::Stdout { at, bytes: &bytes }).is_break()
        });
        assert!(recorder.push(Input::End).is_break(), "it does not go on behind what is missing");
        assert_eq!(recorder.end().unwrap_err().kind(), io::ErrorKind::StorageFull);

        let mut seen = vec![];
        let replay = Replay::open(&folder.path().join("run.kqr")).unwrap();
        let played = replay.play(&mut |input: Input<'_>| {
            if let Input::Stdout { at, bytes } = input {
                seen.push((at, bytes.to_vec()));
            }
            ControlFlow::Continue(())
        });
        assert!(played.is_err(), "it is cut short");
        let (seen_count, pushed) = (seen.len() as u64, pushed.expect("it fills"));
        assert!(
            seen_count > 0 && pushed - seen_count < 27,
            "{seen_count} of {pushed}: more than the block at hand"
        );
        assert!(seen.into_iter().eq((0..seen_count).map(input)));
    }

    fn lines_at(n: u64) -> Input<'static> {
        Input::Stdout { at: MonoTime(n), bytes: &[b'\n'; 60] }
    }

    #[test]
    fn an_old_part_that_was_moved_away_ends_no_recording() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path(), Rotation { limit: 100, keep: 1 });
        assert!(recorder.push(lines_at(1)).is_continue());
        std::fs::rename(folder.path().join("run.kqr"), folder.path().join("kept.kqr")).unwrap();
        assert!(recorder.push(lines_at(2)).is_continue());
        recorder.end().unwrap();
    }

    #[test]
    fn parts_are_recordings_that_declare_their_trees_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path(), Rotation { limit: 100, keep: 2 });
        assert!(recorder.push(Input::Tree { id: TreeId(0), name: "pg" }).is_continue());
        for n in 0..5u64 {
            assert!(recorder.push(lines_at(n)).is_continue());
        }
        assert!(recorder.push(Input::End).is_break());
        recorder.end().unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["run.3.kqr", "run.4.kqr"]);
        let mut seen = vec![];
        let replay = Replay::open(&folder.path().join("run.4.kqr")).unwrap();
        replay
            .play(&mut |input: Input<'_>| {
                seen.push(format!("{input:?}").split([' ', '(']).next().unwrap().to_owned());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, ["Config", "Tree", "Stdout", "End"]);
    }
}
