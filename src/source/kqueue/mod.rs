//! The mirror: a kqueue of the exporter's own that tracks processes with NOTE_TRACK. One thread reads it and does
//! nothing else. The system calls are behind [`KqueueApi`], so the reader is tested without FreeBSD.

mod family;
#[cfg(target_os = "freebsd")]
mod freebsd;
mod reader;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

pub(crate) use reader::{BATCH_BUFFERS, IdlePace, KqueueReader, RootEvent, RootRequest};

use crate::input::Attach;
use crate::model::{Kevent, Pid, note};
use crate::wire::decode::{AFTER_CALL, BEFORE_CALL};

/// Which notes to ask for beside NOTE_TRACK and NOTE_EXIT. Either makes the kernel deliver some events out of order:
/// without them, NOTE_CHILD always comes before its forker's NOTE_EXIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Notes {
    /// NOTE_FORK.
    pub fork: bool,
    /// NOTE_EXEC.
    pub exec: bool,
}

impl Notes {
    /// The bits for kevent.fflags.
    pub fn fflags(self) -> u32 {
        let bit = |on, bit| if on { bit } else { 0 };
        note::TRACK | note::EXIT | bit(self.fork, note::FORK) | bit(self.exec, note::EXEC)
    }
}

/// One row of the list of processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessRow {
    /// The process.
    pub pid: Pid,
    /// Its parent now.
    pub parent: Pid,
    /// It has ended and waits to be reaped.
    pub(crate) zombie: bool,
}

/// What the reader needs of a kernel.
pub trait KqueueApi: Send {
    /// One kevent(2) call: makes the registrations `changes`, waits, and puts what it returned into `events`, `capacity` of
    /// them at most. A registration is EV_ADD|EV_CLEAR with the cookie of its tree and no other flag: tracked children inherit
    /// them (13.2 `kern_event.c:581`). If registrations fail, the call returns at once with nothing but them, each with
    /// EV_ERROR, as FreeBSD does (13.2 `kern_event.c`, `kqueue_kevent`: any error, and the queue is not scanned).
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`], after every change was registered; anything else is the queue's end.
    fn kevent(
        &mut self,
        changes: &[Attach],
        capacity: u32,
        timeout: Duration,
        events: &mut Vec<Kevent>,
    ) -> io::Result<()>;

    /// Puts all processes that exist into `list`.
    ///
    /// # Errors
    /// The error of sysctl(3).
    fn processes(&mut self, list: &mut Vec<ProcessRow>) -> io::Result<()>;

    /// Leaves a mark in DTrace's stream by a system call that does nothing else. A kernel without DTrace needs none.
    fn mark(&mut self, place: MarkPlace, call: u32) {
        let _ = (place, call);
    }
}

/// Where a mark is: getpriority(2)'s first argument, which no process uses otherwise. It is no PRIO_*, so that the call
/// fails with EINVAL (13.2 `kern_resource.c`, `kern_getpriority`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum MarkPlace {
    /// Right before a kevent(2) call.
    Before = BEFORE_CALL,
    /// Right after it.
    After = AFTER_CALL,
}

/// What opens the kernel to watch: [`open`], and in tests a stand-in.
pub type Open = fn() -> io::Result<Box<dyn KqueueApi>>;

/// This system's kqueue.
///
/// # Errors
/// Where kqueue(2) fails, and always on systems other than FreeBSD.
pub fn open() -> io::Result<Box<dyn KqueueApi>> {
    #[cfg(target_os = "freebsd")]
    return Ok(Box::new(freebsd::Queue::new()?));
    #[cfg(not(target_os = "freebsd"))]
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this is not FreeBSD; here, serve and replay judge recordings, and simulate a simulated kernel",
    ))
}
