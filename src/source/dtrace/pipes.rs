//! Both pipes of one dtrace(1), read by one thread, in the order in which they were written: dtrace tells of drops on
//! stderr before it prints anything of its next pass (`dt_consume.c`), and a message that was passed on late would come
//! when what was dropped has been missed already.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::model::MonoTime;
use crate::source::clock;
use crate::source::keeper::Started;

/// How long a pipe is waited for, before the thread looks whether it is still wanted.
const PATIENCE: u16 = 500;

/// Whoever takes what comes out of a pipe. It must not wait: dtrace(1) blocked on a full pipe for 30 s is killed by
/// the kernel's deadman (13.2 `dtrace.c:205`, `dtrace_deadman_user`).
pub(crate) trait Drain: Send {
    /// Bytes as they were read at `at`, cut anywhere.
    fn take(&mut self, at: MonoTime, bytes: &[u8]);
    /// The pipe has ended.
    fn end(&mut self, at: MonoTime);
}

/// What the thread at the pipes and the supervisor tell each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// When dtrace last wrote to stdout, in nanoseconds of CLOCK_MONOTONIC; 0 for never.
    pub(super) heard: Arc<AtomicU64>,
    /// Nobody waits for the rest.
    pub(super) abandoned: Arc<AtomicBool>,
}

/// A pipe, as long as it has not ended, and whoever takes what comes.
struct End {
    pipe: Option<PipeReader>,
    to: Box<dyn Drain>,
    buffer: Vec<u8>,
}

/// The two pipes.
pub(super) struct Pipes {
    stdout: End,
    stderr: End,
    watch: Watch,
}

impl Pipes {
    pub(super) fn new(
        started: Started,
        out: Box<dyn Drain>,
        err: Box<dyn Drain>,
        watch: Watch,
    ) -> Pipes {
        let end = |pipe, to| End { pipe: Some(pipe), to, buffer: vec![0; 64 << 10] };
        Pipes { stdout: end(started.stdout, out), stderr: end(started.stderr, err), watch }
    }

    /// Reads until both have ended.
    pub(super) fn run(mut self) {
        while self.stdout.is_open() || self.stderr.is_open() {
            if self.watch.abandoned.load(Ordering::Relaxed) {
                break;
            }
            let (out, err) = self.readable(PATIENCE);
            let written = if out { self.stdout.read() } else { None };
            let at = clock::now();
            if written.is_some() {
                self.watch.heard.store(at.0, Ordering::Relaxed);
            }
            if err || written.is_some() {
                self.pass_messages();
            }
            if let Some(written) = written {
                self.stdout.pass(at, written);
            }
        }
        self.stdout.end();
        self.stderr.end();
    }

    /// Everything that has been written to stderr by now.
    fn pass_messages(&mut self) {
        while self.readable(PollTimeout::ZERO).1 {
            if let Some(written) = self.stderr.read() {
                self.stderr.pass(clock::now(), written);
            }
        }
    }

    /// Whether stdout, and whether stderr, has something to be read, its end included.
    fn readable(&self, timeout: impl Into<PollTimeout>) -> (bool, bool) {
        let ends = [&self.stdout, &self.stderr];
        let pipes = ends.iter().filter_map(|end| end.pipe.as_ref());
        let mut asked: Vec<PollFd<'_>> =
            pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut asked, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return (false, false),
            // Then read(2) will say what is wrong with it.
            Err(_) => return (self.stdout.is_open(), self.stderr.is_open()),
        }
        let mut answers = asked.iter().map(|asked| asked.any().unwrap_or(true));
        let [out, err] = ends.map(|end| end.is_open() && answers.next().unwrap_or(false));
        (out, err)
    }
}

impl End {
    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// How much was read; `None` where it has ended, and is closed.
    fn read(&mut self) -> Option<usize> {
        let pipe = self.pipe.as_mut()?;
        match pipe.read(&mut self.buffer) {
            Ok(0) => self.end(),
            Ok(n) => return Some(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!("cannot read dtrace's output: {error}");
                self.end();
            }
        }
        None
    }

    fn pass(&mut self, at: MonoTime, written: usize) {
        self.to.take(at, &self.buffer[..written]);
    }

    fn end(&mut self) {
        if self.pipe.take().is_some() {
            self.to.end(clock::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::sync::Mutex;

    use super::*;

    /// Writes down what came, and under which name.
    struct Note(&'static str, Arc<Mutex<Vec<String>>>);

    impl Drain for Note {
        fn take(&mut self, _: MonoTime, bytes: &[u8]) {
            let text = format!("{} {}", self.0, String::from_utf8_lossy(bytes));
            self.1.lock().expect("a list").push(text);
        }

        fn end(&mut self, _: MonoTime) {
            self.1.lock().expect("a list").push(format!("{} ends", self.0));
        }
    }

    #[test]
    fn a_message_is_passed_on_before_the_records_that_were_written_after_it() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (stdout, mut out) = pipe().expect("a pipe");
        let (stderr, mut err) = pipe().expect("a pipe");
        err.write_all(b"dtrace: 9 drops on CPU 0\n").expect("written");
        out.write_all(b"T 1 1\n").expect("written");
        drop((out, err));
        let note = |name| Box::new(Note(name, Arc::clone(&said)));
        let started = Started { pid: 1, stdout, stderr };
        Pipes::new(started, note("out"), note("err"), Watch::default()).run();
        let said = said.lock().expect("a list");
        assert_eq!(said[0], "err dtrace: 9 drops on CPU 0\n");
        assert!(said.contains(&"out T 1 1\n".to_owned()), "{said:?}");
        assert_eq!(said.len(), 4, "both end once: {said:?}");
    }
}
