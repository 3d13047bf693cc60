//! dtrace's records as typed values.

use crate::model::{KernelTime, Pid, WaitStatus, named_enum};

named_enum! {
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
        /// The program traces the causes.
        Causes = "causes",
        /// getpriority(2) right before or after a kevent(2) call of the reader: names the call by its number.
        CallMark = "callmark",
        /// A registration of a consumer, or of the kernel for one of its tracked processes.
        Register = "register",
        /// What a registration came to.
        RegDone = "regdone",
        /// An event that a consumer got: up to eight of them are one line.
        Copyout = "copyout",
        /// A kevent(2) call of a consumer.
        Call = "call",
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
            Kind::Mark | Kind::Call => b'M',
            Kind::Kevent => b'K',
            Kind::RegFail => b'R',
            Kind::Influx => b'S',
            Kind::Causes => b'c',
            Kind::CallMark => b'm',
            Kind::Register => b'A',
            Kind::RegDone => b'a',
            Kind::Copyout => b'N',
        }
    }

    /// Whether the last field, a consumer's pid, may be left out.
    pub(crate) const fn is_of_consumer(self) -> bool {
        matches!(self, Kind::Register | Kind::RegDone | Kind::Copyout | Kind::Call)
    }
}

/// One line of dtrace's output, decoded. `at` is when it happened. `consumer` is the consumer that it is about; pid 0 is the
/// only one of its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "a field without a comment is what its name and its variant say")]
pub enum Record {
    /// The D program has started. `wall` is the same time in nanoseconds since 1970; coarse (10 ms in a VM) and may step.
    Begin { at: KernelTime, wall: u64 },
    /// Heartbeat, with the same two times.
    Tick { at: KernelTime, wall: u64 },
    /// A process was created (fork, vfork, rfork, pdfork).
    Create {
        /// When the probe fired: after knote_fork of the forker's knotes (13.2 `kern_fork.c:734,741`).
        at: KernelTime,
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
        pid: Pid,
        /// Its parent now.
        parent: Pid,
        /// What NOTE_EXIT's data must be.
        status: WaitStatus,
    },
    /// exec succeeded.
    Exec { at: KernelTime, pid: Pid },
    /// exec failed.
    ExecFail { at: KernelTime, pid: Pid, errno: i32 },
    /// A kevent(2) call of the reader returned.
    Mark(Mark),
    /// A kevent(2) call of some process returned; raw recordings are turned into marks before they are checked.
    Kevent {
        at: KernelTime,
        pid: Pid,
        /// How many events, or -1.
        returned: i32,
    },
    /// kqueue_register failed inside knote_fork.
    RegFail {
        at: KernelTime,
        forker: Pid,
        /// It is not tracked, or half.
        child: Pid,
        /// 12 ENOMEM, 3 ESRCH, 9 EBADF.
        errno: i32,
    },
    /// knote_fork skipped a knote in flux: the child is not tracked.
    Influx { at: KernelTime, forker: Pid, child: Pid },
    /// The program that begins now traces the causes: no registration inside knote_fork fails without a record.
    Causes { at: KernelTime },
    /// The reader is about to call kevent(2); the return is a [`Record::Mark`].
    CallMark {
        at: KernelTime,
        /// The low 32 bits of the call's number.
        seq: u32,
    },
    /// A consumer, or the kernel in knote_fork, registers a knote.
    Register(Register),
    /// The last registration of this thread has come to its end.
    RegDone {
        at: KernelTime,
        tid: u32,
        /// 0, or why it was refused.
        errno: i32,
        consumer: Pid,
    },
    /// A consumer gets an event.
    Copyout(Copyout),
    /// A kevent(2) call of a consumer returns.
    Call {
        at: KernelTime,
        /// The thread that called.
        tid: u32,
        /// The kqueue's descriptor.
        fd: i32,
        nevents: i32,
        /// How many events, or -1.
        returned: i32,
        /// Why it failed, or 0.
        errno: i32,
        consumer: Pid,
    },
}

/// A registration: an entry of a consumer's changelist, or the knote of a child that knote_fork makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    /// When.
    pub at: KernelTime,
    /// The address of struct kqueue in the kernel: names the queue, whose descriptor may change.
    pub kqueue: u64,
    /// What is watched: a pid for EVFILT_PROC.
    pub ident: u64,
    /// The thread in whose context it happens: the consumer's, or the one that forks.
    pub tid: u32,
    /// The kqueue's descriptor; only with `own`.
    pub fd: i32,
    /// EV_* bits.
    pub flags: u16,
    /// What kind of event: `model::filter::PROC` is EVFILT_PROC.
    pub filter: i16,
    /// NOTE_* bits.
    pub fflags: u32,
    /// By the consumer itself, not by the kernel.
    pub own: bool,
    /// The consumer; 0 is the only one of this stream.
    pub consumer: Pid,
}

/// An event as kevent_copyout hands it over to a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copyout {
    /// When: the same for all events of a line.
    pub at: KernelTime,
    /// What it is about: a pid for EVFILT_PROC.
    pub ident: u64,
    /// The forker's pid, the wait(2) status, or what the filter has it mean.
    pub data: i64,
    /// NOTE_* bits.
    pub fflags: u32,
    /// The thread that called.
    pub tid: u32,
    /// The kqueue's descriptor.
    pub fd: i32,
    /// The consumer; 0 is the only one of this stream.
    pub consumer: Pid,
    /// EV_* bits.
    pub flags: u16,
    /// What kind of event.
    pub filter: i16,
    /// Which of the events of its line it is, from 0.
    pub index: u8,
}

/// A kevent(2) call of the reader on DTrace's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// When it returned.
    pub at: KernelTime,
    /// When it began, or a time not later than that; 0 if that is not known.
    pub entered: KernelTime,
    /// Its `nevents`: names the batch; 1024 + `seq` % 1024 if that is known.
    pub capacity: u32,
    /// The low 32 bits of the call's number, if the mark has it: then it names the batch alone.
    pub seq: Option<u32>,
    /// How many events it returned, or -1, if the mark says so.
    pub returned: Option<i32>,
}

impl Mark {
    /// Whether it may be the mark of call number `seq` with this `nevents`.
    pub(crate) fn is_of(&self, seq: u64, capacity: u32) -> bool {
        self.seq.map_or(self.capacity == capacity, |low| low == seq as u32)
    }
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
            Record::Causes { .. } => Kind::Causes,
            Record::CallMark { .. } => Kind::CallMark,
            Record::Register(_) => Kind::Register,
            Record::RegDone { .. } => Kind::RegDone,
            Record::Copyout(_) => Kind::Copyout,
            Record::Call { .. } => Kind::Call,
        }
    }

    /// The consumer that it is about, if it is about one. Pid 0 is the only one of its stream.
    pub const fn consumer(&self) -> Option<Pid> {
        match self {
            Record::Register(Register { consumer, .. })
            | Record::RegDone { consumer, .. }
            | Record::Copyout(Copyout { consumer, .. })
            | Record::Call { consumer, .. } => Some(*consumer),
            _ => None,
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
            | Record::Influx { at, .. }
            | Record::Causes { at }
            | Record::CallMark { at, .. }
            | Record::Register(Register { at, .. })
            | Record::RegDone { at, .. }
            | Record::Copyout(Copyout { at, .. })
            | Record::Call { at, .. } => *at,
        }
    }
}
