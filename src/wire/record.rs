//! dtrace's records as typed values.

use crate::model::{KernelTime, Pid, WaitStatus, words};

words! {
    /// The kinds of record, as `d-scripts/wire.d` defines them.
    pub enum Kind {
        /// The D program has started.
        Begin = "begin",
        /// Heartbeat.
        Tick = "tick",
        /// proc:::create.
        Create = "create",
        /// proc:::exit.
        Exit = "exit",
        /// proc:::exec-success.
        Exec = "exec",
        /// proc:::exec-failure.
        ExecFail = "execfail",
        /// A kevent(2) call of the reader, named by its capacity.
        Mark = "mark",
        /// A kevent(2) call of the reader, from a program that does not trace the capacity.
        Kevent = "kevent",
        /// kqueue_register failed inside knote_fork: the cause of a NOTE_TRACKERR.
        RegFail = "regfail",
        /// knote_fork skipped a knote that was in flux: the cause of a silent loss.
        Influx = "influx",
    }
}

impl Kind {
    /// The letter that begins the line.
    pub const fn letter(self) -> u8 {
        match self {
            Kind::Begin => b'B',
            Kind::Tick => b'T',
            Kind::Create => b'C',
            Kind::Exit => b'X',
            Kind::Exec => b'E',
            Kind::ExecFail => b'F',
            Kind::Mark => b'M',
            Kind::Kevent => b'K',
            Kind::RegFail => b'R',
            Kind::Influx => b'S',
        }
    }
}

/// One line of dtrace's output, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// The D program has started.
    Begin {
        /// When.
        at: KernelTime,
        /// The same in nanoseconds since 1970; coarse (10 ms in a VM) and may step.
        wall: u64,
    },
    /// Heartbeat.
    Tick {
        /// When.
        at: KernelTime,
        /// The same in nanoseconds since 1970.
        wall: u64,
    },
    /// A process was created (fork, vfork, rfork, pdfork).
    Create {
        /// When the probe fired: after knote_fork of the forker's knotes (13.2 `kern_fork.c:734,741`).
        at: KernelTime,
        /// The new process.
        child: Pid,
        /// The process that forked it: what NOTE_CHILD's data must be.
        forker: Pid,
        /// Its parent: the forker, or the reaper with RFNOWAIT.
        parent: Pid,
        /// rfork(2) flags.
        flags: u32,
    },
    /// A process ended.
    Exit {
        /// When the probe fired: on 13.2 before KNOTE(NOTE_EXIT), on 12.3 and older after it.
        at: KernelTime,
        /// The process.
        pid: Pid,
        /// Its parent now.
        parent: Pid,
        /// What NOTE_EXIT's data must be.
        status: WaitStatus,
    },
    /// exec succeeded.
    Exec {
        /// When.
        at: KernelTime,
        /// The process.
        pid: Pid,
    },
    /// exec failed.
    ExecFail {
        /// When.
        at: KernelTime,
        /// The process.
        pid: Pid,
        /// Why.
        errno: i32,
    },
    /// A kevent(2) call of the reader returned.
    Mark(Mark),
    /// A kevent(2) call of some process returned; raw recordings are turned into marks before they are checked.
    Kevent {
        /// When it returned.
        at: KernelTime,
        /// Who called.
        pid: Pid,
        /// How many events it returned, or -1.
        returned: i32,
    },
    /// kqueue_register failed inside knote_fork.
    RegFail {
        /// When.
        at: KernelTime,
        /// The process that forked.
        forker: Pid,
        /// The child that is not tracked, or half.
        child: Pid,
        /// Why: 12 ENOMEM, 3 ESRCH, 9 EBADF.
        errno: i32,
    },
    /// knote_fork skipped a knote in flux.
    Influx {
        /// When.
        at: KernelTime,
        /// The process that forked.
        forker: Pid,
        /// The child that is not tracked.
        child: Pid,
    },
}

/// A kevent(2) call of the reader on DTrace's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// When it returned.
    pub at: KernelTime,
    /// When it began, or a time not later than that.
    pub entered: KernelTime,
    /// Its `nevents`: names the batch.
    pub capacity: u32,
    /// How many events it returned, or -1.
    pub returned: i32,
}

impl Record {
    /// Which kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Record::Begin { .. } => Kind::Begin,
            Record::Tick { .. } => Kind::Tick,
            Record::Create { .. } => Kind::Create,
            Record::Exit { .. } => Kind::Exit,
            Record::Exec { .. } => Kind::Exec,
            Record::ExecFail { .. } => Kind::ExecFail,
            Record::Mark(_) => Kind::Mark,
            Record::Kevent { .. } => Kind::Kevent,
            Record::RegFail { .. } => Kind::RegFail,
            Record::Influx { .. } => Kind::Influx,
        }
    }

    /// When it happened.
    pub const fn at(&self) -> KernelTime {
        match self {
            Record::Begin { at, .. }
            | Record::Tick { at, .. }
            | Record::Create { at, .. }
            | Record::Exit { at, .. }
            | Record::Exec { at, .. }
            | Record::ExecFail { at, .. }
            | Record::Mark(Mark { at, .. })
            | Record::Kevent { at, .. }
            | Record::RegFail { at, .. }
            | Record::Influx { at, .. } => *at,
        }
    }
}
