//! Reads the pipes of one running dtrace(1), stderr before stdout, and the pipe that reports its end. The order
//! matters: dtrace(1) reports drops on stderr before it prints anything of its next pass (`dt_consume.c`), and a report
//! that was passed on late would come when what was dropped has been missed already.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::model::MonoTime;
use crate::source::clock;
use crate::source::keeper::Started;

/// How often the pipes are looked at if they cannot be waited for together.
const ONE_BY_ONE: Duration = Duration::from_millis(50);

/// So many reads empty a pipe of the largest size: 1 MiB (Linux; FreeBSD has 64 KiB).
const REST_READS: usize = 32;

/// Takes what comes out of a pipe. It must not wait: dtrace(1) blocked on a full pipe for 30 s is killed by the kernel's
/// deadman (13.2 `dtrace.c:205`, `dtrace_deadman_user`).
pub(crate) trait PipeSink: Send {
    /// Bytes as they were read at `at`, cut anywhere. Whether they are a sign of life of dtrace's.
    fn take(&mut self, at: MonoTime, bytes: &[u8]) -> bool;
    fn end(&mut self, at: MonoTime);
}

/// A pipe, as long as it has not ended, and what takes its bytes.
struct Output {
    pipe: Option<PipeReader>,
    to: Box<dyn PipeSink>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    With(ExitStatus),
    /// Its keeper ended before it could report that.
    Unknown,
}

/// A dtrace(1) that was started. Dropped, its pipes are closed.
pub(super) struct DtraceProcess {
    stdout: Output,
    stderr: Output,
    status: PipeReader,
    last_output: Option<MonoTime>,
    ended: Option<End>,
}

impl DtraceProcess {
    pub(super) fn new(
        started: Started,
        out: Box<dyn PipeSink>,
        err: Box<dyn PipeSink>,
    ) -> DtraceProcess {
        let Started { stdout, stderr, end, .. } = started;
        let output = |pipe, to| Output { pipe: Some(pipe), to, buffer: vec![0; 64 << 10] };
        let (stdout, stderr) = (output(stdout, out), output(stderr, err));
        DtraceProcess { stdout, stderr, status: end, last_output: None, ended: None }
    }

    /// When it last gave a sign of life on stdout, if it ever did.
    pub(super) fn last_output(&self) -> Option<MonoTime> {
        self.last_output
    }

    pub(super) fn ended(&self) -> Option<End> {
        self.ended
    }

    /// Waits for `timeout` at most until it writes, ends, or `wake` can be read, and passes on what it wrote. Whether `wake`
    /// can be read.
    pub(super) fn attend(&mut self, wake: &PipeReader, timeout: Duration) -> bool {
        let DtraceProcess { stdout, stderr, status, .. } = self;
        let pipes = [stdout.pipe.as_ref(), stderr.pipe.as_ref(), Some(&*status), Some(wake)];
        let [out, err, ended, woken] = readable(pipes, timeout);
        if out || err {
            self.pass_on(out, err);
        }
        if ended {
            self.pass_on_rest();
            self.stdout.end();
            self.stderr.end();
            let mut status = [0; 4];
            let read = self.status.read_exact(&mut status);
            let of = |()| End::With(ExitStatus::from_raw(i32::from_le_bytes(status)));
            self.ended = Some(read.map_or(End::Unknown, of));
        }
        woken
    }

    /// Reads stdout once, and before it passes that on, everything that has been written to stderr by then.
    fn pass_on(&mut self, out: bool, err: bool) {
        let written = if out { self.stdout.read() } else { None };
        let at = clock::now();
        let mut more = err || written.is_some();
        while more {
            more = self.stderr.is_readable();
            if more && let Some(written) = self.stderr.read() {
                self.stderr.pass(clock::now(), written);
            }
        }
        if let Some(written) = written
            && self.stdout.pass(at, written)
        {
            self.last_output = Some(at);
        }
    }

    /// What it wrote before it ended is in the pipes by now. They need not end themselves: a child that it left behind may
    /// hold them, and write to them.
    fn pass_on_rest(&mut self) {
        for _ in 0..REST_READS {
            match (self.stdout.is_readable(), self.stderr.is_readable()) {
                (false, false) => return,
                (out, err) => self.pass_on(out, err),
            }
        }
    }
}

/// Which of these pipes has something to be read, its end included, after `timeout` at most.
pub(crate) fn readable<const N: usize>(
    pipes: [Option<&PipeReader>; N],
    timeout: Duration,
) -> [bool; N] {
    let open = pipes.iter().copied().flatten();
    let mut asked: Vec<PollFd<'_>> =
        open.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded up: it must not wake before the time has come.
    let timeout = match timeout {
        Duration::ZERO => PollTimeout::ZERO,
        longer => PollTimeout::try_from(longer.saturating_add(Duration::from_millis(1)))
            .unwrap_or(PollTimeout::NONE),
    };
    match poll(&mut asked, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return [false; N],
        // EINVAL: they are more than the limit of open files, which was lowered. One after the other they are not.
        Err(_) => {
            std::thread::sleep(ONE_BY_ONE);
            let alone = |pipe: &PipeReader| {
                let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
                poll(&mut asked, PollTimeout::ZERO).is_ok_and(|found| found > 0)
            };
            return pipes.map(|pipe| pipe.is_some_and(alone));
        }
    }
    let mut answers = asked.iter().map(|asked| asked.any().unwrap_or(true));
    pipes.map(|pipe| pipe.is_some() && answers.next().unwrap_or(false))
}

impl Output {
    fn is_readable(&self) -> bool {
        let [readable] = readable([self.pipe.as_ref()], Duration::ZERO);
        readable
    }

    /// How much was read; `None` if it has ended, and is closed.
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

    fn pass(&mut self, at: MonoTime, written: usize) -> bool {
        self.to.take(at, &self.buffer[..written])
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
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes down what came, and under which name.
    struct Note(&'static str, Arc<Mutex<Vec<String>>>);

    impl PipeSink for Note {
        fn take(&mut self, _: MonoTime, bytes: &[u8]) -> bool {
            let text = format!("{} {}", self.0, String::from_utf8_lossy(bytes));
            self.1.lock().expect("a list").push(text);
            true
        }

        fn end(&mut self, _: MonoTime) {
            self.1.lock().expect("a list").push(format!("{} ends", self.0));
        }
    }

    /// A dtrace that has written this and ended, with a status if its keeper lives.
    fn ended(out: &[u8], err: &[u8], status: Option<i32>) -> (Vec<String>, End) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let written = |bytes: &[u8]| {
            let (reader, mut writer) = pipe().expect("a pipe");
            writer.write_all(bytes).expect("written");
            // It stays open, as in a child that dtrace(1) has left behind.
            std::mem::forget(writer);
            reader
        };
        let (end, mut keeper) = pipe().expect("a pipe");
        if let Some(status) = status {
            keeper.write_all(&status.to_le_bytes()).expect("written");
        }
        drop(keeper);
        let started = Started { pid: 1, stdout: written(out), stderr: written(err), end };
        let note = |name| Box::new(Note(name, Arc::clone(&taken)));
        let mut process = DtraceProcess::new(started, note("out"), note("err"));
        let (wake, _writer) = pipe().expect("a pipe");
        process.attend(&wake, Duration::from_secs(60));
        let taken = taken.lock().expect("a list").clone();
        (taken, process.ended().expect("it has ended"))
    }

    #[test]
    fn a_message_is_passed_on_before_the_records_that_were_written_after_it() {
        let (taken, end) = ended(b"T 1 1\n", b"dtrace: 9 drops on CPU 0\n", Some(256));
        assert_eq!(
            taken,
            ["err dtrace: 9 drops on CPU 0\n", "out T 1 1\n", "out ends", "err ends"]
        );
        assert_eq!(end, End::With(ExitStatus::from_raw(256)));
    }

    #[test]
    fn an_end_without_a_status_is_that_of_the_keeper() {
        assert_eq!(ended(b"", b"", None).1, End::Unknown);
    }
}
