//! Recordings as a source: a recording file or a raw directory, as fast as it can be read or in its own time.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Sink;
use super::raw::{self, Raw};
use crate::input::{Batch, Input};
use crate::model::MonoTime;
use crate::recording::{self, BUNDLED, Meta, Reader};

/// Why something cannot be replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is wrong with the recording.
    #[error("{path}: {source}")]
    Recording {
        /// Which file.
        path: PathBuf,
        /// What.
        source: recording::Error,
    },
    /// Something is wrong with the raw directory.
    #[error(transparent)]
    Raw(#[from] raw::Error),
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
    /// A raw directory.
    Raw(Raw),
}

impl Replay {
    /// Opens a recording file or a raw directory.
    ///
    /// # Errors
    /// [`Error`], where it is neither or cannot be read.
    pub fn open(path: &Path) -> Result<Replay, Error> {
        if path.is_dir() {
            return Ok(Replay::Raw(Raw::open(path)?));
        }
        let file =
            File::open(path).map_err(|source| Error::Open { path: path.to_path_buf(), source })?;
        Replay::recording(path, Box::new(file))
    }

    /// The recording that is part of the program.
    ///
    /// # Errors
    /// None, as long as the build is sound.
    pub fn bundled() -> Result<Replay, Error> {
        Replay::recording(Path::new("(bundled recording)"), Box::new(BUNDLED))
    }

    fn recording(path: &Path, input: Box<dyn Read + Send>) -> Result<Replay, Error> {
        let path = path.to_path_buf();
        match Reader::new(input) {
            Ok(reader) => Ok(Replay::Recording { path, reader: Box::new(reader) }),
            Err(source) => Err(Error::Recording { path, source }),
        }
    }

    /// Where it comes from.
    pub fn meta(&self) -> Meta {
        match self {
            Replay::Recording { reader, .. } => reader.meta().clone(),
            Replay::Raw(raw) => raw.meta(),
        }
    }

    /// Pushes everything into `sink`, [`Input::End`] always as the last, unless `sink` breaks off.
    ///
    /// # Errors
    /// [`Error::Recording`] where the file is damaged or cut, after everything before that was pushed.
    pub fn play(self, sink: &mut impl Sink) -> Result<(), Error> {
        match self {
            Replay::Recording { path, mut reader } => {
                play(&mut reader, sink).map_err(|source| Error::Recording { path, source })
            }
            Replay::Raw(raw) => {
                let _ = raw.play(sink);
                Ok(())
            }
        }
    }
}

fn play<R: Read>(reader: &mut Reader<R>, sink: &mut impl Sink) -> Result<(), recording::Error> {
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

/// Waits until so long after the first call; `Break` ends the replay.
pub trait Wait {
    /// Waits.
    fn until(&mut self, since_start: Duration) -> ControlFlow<()>;
}

impl<F: FnMut(Duration) -> ControlFlow<()>> Wait for F {
    fn until(&mut self, since_start: Duration) -> ControlFlow<()> {
        self(since_start)
    }
}

/// [`Wait`] by sleeping.
#[derive(Default, Debug)]
pub struct Sleep(Option<Instant>);

impl Wait for Sleep {
    fn until(&mut self, since_start: Duration) -> ControlFlow<()> {
        let elapsed = self.0.get_or_insert_with(Instant::now).elapsed();
        std::thread::sleep(since_start.saturating_sub(elapsed));
        ControlFlow::Continue(())
    }
}

/// A sink that passes inputs on in their own time.
#[derive(Debug)]
pub struct Paced<S, W> {
    sink: S,
    wait: W,
    speed: f64,
    start: Option<MonoTime>,
}

impl<S: Sink, W: Wait> Paced<S, W> {
    /// Plays `speed` times as fast as it was recorded. 0, infinite or less than 0: without any wait.
    pub fn new(sink: S, speed: f64, wait: W) -> Paced<S, W> {
        Paced { sink, wait, speed, start: None }
    }
}

impl<S: Sink, W: Wait> Sink for Paced<S, W> {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        // Time 0 means that nobody knows when it was.
        if let Some(at) = time(&input).filter(|at| *at != MonoTime(0)) {
            let start = *self.start.get_or_insert(at);
            let seconds = at.0.saturating_sub(start.0) as f64 / 1e9 / self.speed;
            if self.speed > 0.0
                && let Ok(since_start) = Duration::try_from_secs_f64(seconds)
            {
                self.wait.until(since_start)?;
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
        Input::Tree { .. } | Input::TreeGone { .. } | Input::End => None,
    }
}
