//! Recordings as a source: a recording file or a directory, as fast as it can be read or in its own time.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::directory::{self, Directory};
use crate::input::{Batch, Input, Sink};
use crate::model::MonoTime;
use crate::recording::{self, BUNDLED, Meta, Reader};

/// Why something cannot be replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each error's text says what it is")]
pub enum ReplayError {
    #[error("cannot open {path}: {source}; give a recording, or a folder with dtrace.txt")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Recording { path: PathBuf, source: recording::RecordingError },
    #[error(transparent)]
    Directory(#[from] directory::DirectoryError),
}

/// What was opened, ready to be played.
pub enum Replay {
    /// A recording.
    Recording {
        /// Its file.
        path: PathBuf,
        /// Its reader, at the beginning.
        reader: Box<Reader<Box<dyn Read + Send>>>,
    },
    /// A directory.
    Directory(Directory),
}

impl Replay {
    /// Opens a recording file or a directory.
    ///
    /// # Errors
    /// [`ReplayError`], if it is neither or cannot be read.
    pub fn open(path: &Path) -> Result<Replay, ReplayError> {
        Replay::open_through(path, |file| Box::new(file))
    }

    /// As [`Replay::open`]; a file is read through what `through` makes of it.
    ///
    /// # Errors
    /// Those of [`Replay::open`].
    pub(crate) fn open_through(
        path: &Path,
        through: impl FnOnce(File) -> Box<dyn Read + Send>,
    ) -> Result<Replay, ReplayError> {
        if path.is_dir() {
            return Ok(Replay::Directory(Directory::open(path)?));
        }
        let file = File::open(path)
            .map_err(|source| ReplayError::Open { path: path.to_path_buf(), source })?;
        Replay::recording(path, through(file))
    }

    /// The recording that is part of the program.
    ///
    /// # Errors
    /// None, as long as the build is sound.
    pub fn bundled() -> Result<Replay, ReplayError> {
        Replay::embedded("bundled recording", BUNDLED)
    }

    /// A recording that is part of the program, with its name for messages.
    ///
    /// # Errors
    /// None, as long as the build is sound.
    pub(crate) fn embedded(name: &str, bytes: &'static [u8]) -> Result<Replay, ReplayError> {
        Replay::recording(Path::new(&format!("({name})")), Box::new(bytes))
    }

    fn recording(path: &Path, input: Box<dyn Read + Send>) -> Result<Replay, ReplayError> {
        let path = path.to_path_buf();
        match Reader::new(input) {
            Ok(reader) => Ok(Replay::Recording { path, reader: Box::new(reader) }),
            Err(source) => Err(ReplayError::Recording { path, source }),
        }
    }

    /// Where it comes from.
    pub fn meta(&self) -> Meta {
        match self {
            Replay::Recording { reader, .. } => reader.meta().clone(),
            Replay::Directory(directory) => directory.meta(),
        }
    }

    /// What is missing from it that the verdicts need: one line each.
    pub fn remarks(&self) -> Vec<String> {
        match self {
            Replay::Recording { .. } => vec![],
            Replay::Directory(directory) => directory.remarks(),
        }
    }

    /// Pushes everything into `sink`, [`Input::End`] always as the last, unless `sink` breaks off.
    ///
    /// # Errors
    /// [`ReplayError::Recording`] if the file is damaged or cut, after everything before that was pushed.
    pub fn play(self, sink: &mut impl Sink) -> Result<(), ReplayError> {
        match self {
            Replay::Recording { path, mut reader } => {
                play(&mut reader, sink).map_err(|source| ReplayError::Recording { path, source })
            }
            Replay::Directory(directory) => {
                let _ = directory.play(sink);
                Ok(())
            }
        }
    }
}

fn play<R: Read>(
    reader: &mut Reader<R>,
    sink: &mut impl Sink,
) -> Result<(), recording::RecordingError> {
    let mut ended = false;
    let result = loop {
        match reader.next() {
            Ok(Some(input)) => {
                ended = input == Input::End;
                if sink.push(input).is_break() {
                    return Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if !ended {
        let _ = sink.push(Input::End);
    }
    result
}

/// A sink that passes inputs on in their own time: `wait` waits until so long after the first one; its `Break` ends the replay.
#[derive(Debug)]
pub(crate) struct Paced<S, W> {
    sink: S,
    wait: W,
    speed: f64,
    start: Option<MonoTime>,
}

impl<S: Sink, W: FnMut(Duration) -> ControlFlow<()>> Paced<S, W> {
    /// Plays `speed` times as fast as it was recorded. 0, infinite or less than 0: without any wait.
    pub(crate) fn new(sink: S, speed: f64, wait: W) -> Paced<S, W> {
        Paced { sink, wait, speed, start: None }
    }
}

impl<S: Sink, W: FnMut(Duration) -> ControlFlow<()>> Sink for Paced<S, W> {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        if let Some(at) = time(&input).filter(|at| at.is_known()) {
            let start = *self.start.get_or_insert(at);
            let seconds = at.0.saturating_sub(start.0) as f64 / 1e9 / self.speed;
            if self.speed > 0.0
                && let Ok(since_start) = Duration::try_from_secs_f64(seconds)
            {
                (self.wait)(since_start)?;
            }
        }
        self.sink.push(input)
    }
}

/// When an input came to be known.
fn time(input: &Input<'_>) -> Option<MonoTime> {
    match *input {
        Input::Batch(Batch { after: at, .. })
        | Input::BatchesLost { to: at, .. }
        | Input::Stdout { at, .. }
        | Input::Stderr { at, .. }
        | Input::DtraceUp { at }
        | Input::DtraceDown { at }
        | Input::Forks { at, .. } => Some(at),
        Input::Config(_)
        | Input::Tree { .. }
        | Input::TreeGone { .. }
        | Input::Consumer { .. }
        | Input::End => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Writer;

    /// What kinds of input a replay gives, and how it ends.
    fn kinds(replay: Replay) -> (Vec<String>, Result<(), ReplayError>) {
        let mut kinds: Vec<String> = vec![];
        let result = replay.play(&mut |input: Input<'_>| {
            let text = format!("{input:?}");
            let kind = text.split([' ', '(']).next().unwrap_or_default();
            kinds.push(kind.to_string());
            ControlFlow::Continue(())
        });
        (kinds, result)
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn every_recording_of_the_project_is_whole() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
        let mut played = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "kqr") {
                let (kinds, result) = kinds(Replay::open(&path).unwrap());
                assert!(result.is_ok(), "{}: {result:?}", path.display());
                assert!(kinds.iter().any(|kind| kind == "Stdout"));
                assert_eq!(kinds.last().map(String::as_str), Some("End"));
                played += 1;
            }
        }
        assert_eq!(played, 11);
    }

    #[test]
    fn what_is_left_of_a_cut_recording_is_played_and_ended() {
        let cut = file(&BUNDLED[..BUNDLED.len() - 5]);
        let (kinds, result) = kinds(Replay::open(cut.path()).unwrap());
        assert_eq!(kinds.last().map(String::as_str), Some("End"));
        assert_eq!(kinds.iter().filter(|kind| *kind == "End").count(), 1);
        let message = result.unwrap_err().to_string();
        assert!(message.contains(&*cut.path().to_string_lossy()), "{message}");
        assert!(message.contains("cut short"), "{message}");
    }

    #[test]
    fn what_cannot_be_played_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nothing");
        let (empty, text) = (file(b""), file(b"B 1 2\nC 3 4\n"));
        for (path, expected) in [
            (missing.as_path(), "cannot open"),
            (dir.path(), "neither kevents.jsonl nor pid.txt"),
            (empty.path(), "empty"),
            (text.path(), "not a recording"),
        ] {
            let message = Replay::open(path).err().unwrap().to_string();
            assert!(message.contains(expected) && message.contains(&*path.to_string_lossy()));
        }
    }

    #[test]
    fn a_sink_that_breaks_off_gets_no_more() {
        let mut pushed = 0;
        let mut sink = |_: Input<'_>| {
            pushed += 1;
            if pushed == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        Replay::bundled().unwrap().play(&mut sink).unwrap();
        assert_eq!(pushed, 3);
    }

    /// Inputs at 0 (no clock), 5 s, 7 s and 6 s: when each is pushed at this speed.
    fn waits(speed: f64) -> Vec<Duration> {
        let mut waits = vec![];
        let wait = |since_start| {
            waits.push(since_start);
            ControlFlow::Continue(())
        };
        let mut paced = Paced::new(|_: Input<'_>| ControlFlow::Continue(()), speed, wait);
        for seconds in [0, 5, 7, 6] {
            let at = MonoTime(seconds * 1_000_000_000);
            assert!(paced.push(Input::Stdout { at, bytes: b"" }).is_continue());
        }
        assert!(paced.push(Input::End).is_continue());
        waits
    }

    #[test]
    fn inputs_come_in_their_own_time() {
        let seconds = |s: &[f64]| s.iter().map(|s| Duration::from_secs_f64(*s)).collect::<Vec<_>>();
        assert_eq!(waits(1.0), seconds(&[0.0, 2.0, 1.0]));
        assert_eq!(waits(4.0), seconds(&[0.0, 0.5, 0.25]));
        assert_eq!(waits(f64::INFINITY), seconds(&[0.0, 0.0, 0.0]));
        for none in [0.0, -1.0, f64::NAN] {
            assert!(waits(none).is_empty());
        }
    }

    #[test]
    fn a_wait_that_breaks_off_ends_the_replay() {
        let mut pushed = 0;
        let sink = |_: Input<'_>| {
            pushed += 1;
            ControlFlow::Continue(())
        };
        let mut paced = Paced::new(sink, 1.0, |_| ControlFlow::Break(()));
        assert!(paced.push(Input::Forks { at: MonoTime(1), total: 1 }).is_break());
        assert_eq!(pushed, 0);
    }

    #[test]
    fn times_that_no_clock_has_do_not_stop_a_replay() {
        let mut writer = Writer::new(vec![], &Meta::default()).unwrap();
        for at in [u64::MAX, 1, u64::MAX] {
            writer.append(&Input::DtraceUp { at: MonoTime(at) }).unwrap();
        }
        let file = file(&writer.finish().unwrap());
        let mut longest = Duration::ZERO;
        let sink = |_: Input<'_>| ControlFlow::Continue(());
        let mut paced = Paced::new(sink, 1e-300, |wait: Duration| {
            longest = longest.max(wait);
            ControlFlow::Continue(())
        });
        Replay::open(file.path()).unwrap().play(&mut paced).unwrap();
        assert_eq!(longest, Duration::ZERO);
    }
}
