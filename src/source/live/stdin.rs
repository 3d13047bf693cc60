//! The source of `--source stdin`: consumers whose dtrace(1) prints to stdin, from a pipe or a file, without a
//! supervisor of ours.

use std::io::{ErrorKind, PipeReader, Read, pipe};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use super::LiveError;
use super::remote::{NamedPid, named_pids, push_consumers};
use crate::input::{Input, Sink};
use crate::source::clock;
use crate::source::dtrace::link::Banner;
use crate::source::dtrace::readable;
use crate::source::stop::Stop;
use crate::source::target::Target;

/// The consumers of a stream that comes on stdin.
pub struct Stdin {
    consumers: Vec<NamedPid>,
    stop: Stop,
}

impl Stdin {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// [`LiveError::Targets`]: there is no consumer, or one is not named by its pid.
    pub(crate) fn new(consumers: &[Target]) -> Result<Stdin, LiveError> {
        Ok(Stdin { consumers: named_pids("", consumers)?, stop: Stop::default() })
    }

    /// Ends [`Stdin::run`], from any thread.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Pushes what comes into `sink`, on this thread, until stdin ends, it is stopped, or `sink` breaks off. Nothing is
    /// dropped: a slow sink makes the writer wait.
    ///
    /// # Errors
    /// Stdin cannot be read.
    pub(crate) fn run(self, sink: &mut impl Sink) -> Result<(), LiveError> {
        let Stdin { consumers, stop } = self;
        if push_consumers(sink, &consumers).is_break() {
            return Ok(());
        }
        let (wake, waker) = pipe().map_err(LiveError::Stdin)?;
        let waker = std::sync::Mutex::new(Some(waker));
        // Closed, it can be read.
        stop.on_request(move |_| drop(waker.lock().map(|mut waker| waker.take())));
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(LiveError::Stdin)?;
        // It breaks off if the sink does.
        let _ = push_all(PipeReader::from(input), &wake, sink);
        Ok(())
    }
}

/// Pushes a run of dtrace(1), whose output comes `from` there, and its end.
fn push_all(from: PipeReader, wake: &PipeReader, sink: &mut impl Sink) -> ControlFlow<()> {
    sink.push(Input::DtraceUp { at: clock::now() })?;
    follow(from, wake, sink)?;
    sink.push(Input::DtraceDown { at: clock::now() })?;
    sink.push(Input::End)
}

/// Reads to the end, or until `wake` can be read.
fn follow(mut from: PipeReader, wake: &PipeReader, sink: &mut impl Sink) -> ControlFlow<()> {
    let mut banner = Banner::new("");
    let mut buffer = vec![0; 64 << 10];
    loop {
        let patience = sink.idle().unwrap_or(Duration::MAX);
        let [is_readable, is_over] = readable([Some(&from), Some(wake)], patience);
        if is_over {
            return ControlFlow::Continue(());
        }
        let read = match is_readable.then(|| from.read(&mut buffer)) {
            Some(Ok(0)) => {
                tracing::warn!(
                    "stdin has ended: what happens from here on is not seen, and the figures stay"
                );
                return ControlFlow::Continue(());
            }
            Some(Ok(read)) => read,
            Some(Err(error)) if error.kind() != ErrorKind::Interrupted => {
                tracing::error!("cannot read stdin: {error}");
                return ControlFlow::Continue(());
            }
            _ => continue,
        };
        let at = clock::now();
        let (first, rest) = banner.strip(&buffer[..read]);
        for bytes in [first.as_slice(), rest].into_iter().filter(|bytes| !bytes.is_empty()) {
            sink.push(Input::Stdout { at, bytes })?;
        }
    }
}
