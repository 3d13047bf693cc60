//! What DTrace traces of consumers: the records A, a, N and M, as d-scripts/consumer.d prints them.

use std::fmt::{self, Write};

use crate::model::{Kevent, Pid, filter};
use crate::sim::arena::Id;
use crate::sim::truth::LifeId;

/// The kernel copies out at most so many events at a time.
pub(in crate::sim) const KQ_NEVENTS: usize = 8;

/// An event that a consumer gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) struct CopiedEvent {
    pub(in crate::sim) event: Kevent,
    pub(in crate::sim) filter: i16,
    pub(in crate::sim) life: Option<LifeId>,
}

/// A record of a consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) struct ConsumerRecord {
    /// The consumer's number, and its process.
    pub(in crate::sim) consumer: usize,
    pub(in crate::sim) pid: Pid,
    /// The thread: in the arena, and as the kernel numbers it.
    pub(in crate::sim) caller: Id,
    pub(in crate::sim) tid: u32,
    pub(in crate::sim) what: ConsumerProbe,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) enum ConsumerProbe {
    Register { fd: i32, kqueue: u64, ident: u64, filter: i16, flags: u32, fflags: u32 },
    RegDone { errno: i32 },
    Copyout { fd: i32, events: Vec<CopiedEvent> },
    Call { fd: i32, nevents: usize, returned: i32, errno: i32 },
}

impl ConsumerRecord {
    /// How many integers it has.
    pub(in crate::sim) fn integers(&self) -> usize {
        match self.what {
            ConsumerProbe::Register { .. } => 12,
            ConsumerProbe::RegDone { .. } => 5,
            ConsumerProbe::Copyout { .. } => 6 + 5 * KQ_NEVENTS,
            ConsumerProbe::Call { .. } => 8,
        }
    }

    /// One line, of this time and CPU.
    pub(in crate::sim) fn print(&self, out: &mut String, at: u64, cpu: u32) -> fmt::Result {
        let (tid, pid) = (self.tid, self.pid);
        match &self.what {
            ConsumerProbe::Register { fd, kqueue, ident, filter, flags, fflags } => writeln!(
                out,
                "A {at} {cpu} {tid} 1 {fd} {kqueue:x} {ident} {filter} {flags:x} {fflags:x} 0 {pid}"
            ),
            ConsumerProbe::RegDone { errno } => writeln!(out, "a {at} {cpu} {tid} {errno} {pid}"),
            ConsumerProbe::Copyout { fd, events } => {
                write!(out, "N {at} {cpu} {tid} {fd} {}", events.len())?;
                for CopiedEvent { event, filter, .. } in events {
                    let Kevent { ident, flags, fflags, data, .. } = event;
                    write!(out, " {ident} {filter} {flags:x} {fflags:x} {data}")?;
                }
                for _ in events.len()..KQ_NEVENTS {
                    write!(out, " 0 0 0 0 0")?;
                }
                writeln!(out, " {pid}")
            }
            ConsumerProbe::Call { fd, nevents, returned, errno } => {
                writeln!(out, "M {at} {cpu} {tid} {fd} {nevents} {returned} {errno} {pid}")
            }
        }
    }
}

impl CopiedEvent {
    /// An event of EVFILT_PROC.
    pub(in crate::sim) fn of_process(event: Kevent, life: Option<LifeId>) -> CopiedEvent {
        CopiedEvent { event, filter: filter::PROC, life }
    }
}
