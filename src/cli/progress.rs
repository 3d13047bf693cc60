//! A progress bar on stderr, only if that is a terminal and the work takes long; it is gone when the work is done.
//!
//! The working thread stores a number and goes on; a thread of its own draws.

use std::io::{self, IsTerminal, Read, Write, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::format::printable;

/// What is done sooner shows nothing.
const PATIENCE: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(100);

/// The bar that is on the terminal: the log goes around it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows how far something has come, until it is dropped. Drop it before anything is printed.
#[derive(Debug)]
pub(super) struct ProgressLine {
    done: Arc<AtomicU64>,
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl ProgressLine {
    /// `what` is being done, "replaying run.kqr"; it is done at `total`, if that is known.
    pub(super) fn new(what: &str, total: Option<u64>) -> ProgressLine {
        let done = Arc::new(AtomicU64::new(0));
        let drawing = stderr().is_terminal().then(|| {
            let (end, ended) = channel();
            let (what, done) = (printable(what), done.clone());
            let draw = thread::Builder::new().name("progress".to_owned());
            draw.spawn(move || draw_until(&ended, what, total, &done)).ok().map(|t| (end, t))
        });
        ProgressLine { done, drawing: drawing.flatten() }
    }

    /// So much is done.
    pub(super) fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// `input`; what is read from it is done.
    pub(super) fn reading<R: Read>(&self, input: R) -> impl Read + use<R> {
        Counted { input, done: self.done.clone() }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.drawing.take() {
            drop(end);
            // If it panicked there is nothing on the terminal that could be taken away.
            let _ = thread.join();
        }
    }
}

fn draw_until(ended: &Receiver<()>, what: String, total: Option<u64>, done: &AtomicU64) {
    if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let template = match total {
        Some(_) => "{msg} {bar:30} {percent:>3} %, {elapsed}",
        None => "{spinner} {msg}, {elapsed}",
    };
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
        .with_elapsed(PATIENCE);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    *shown() = Some(bar.clone());
    loop {
        bar.set_position(done.load(Ordering::Relaxed));
        bar.tick();
        if ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    *shown() = None;
    bar.finish_and_clear();
}

fn shown() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Counted<R> {
    input: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// stderr for log lines: a bar that is shown makes room for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct AroundTheBar;

impl Write for AroundTheBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &*shown() {
            Some(bar) => bar.suspend(|| stderr().write(line)),
            None => stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}
