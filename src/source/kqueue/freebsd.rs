//! FreeBSD's kevent(2) and kern.proc: nothing but the calls and their types.

use std::io;
use std::mem::offset_of;
use std::time::Duration;

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

use super::reader::CAPACITY;
use super::{KqueueApi, MarkPlace, ProcessRow};
use crate::input::Attach;
use crate::model::{Kevent, Pid};
use crate::source::sysctl;

/// SZOMB (13.2 `sys/proc.h`).
const ZOMBIE: u8 = 5;

/// A kqueue and the memory for what it returns.
pub(super) struct Queue {
    kqueue: Kqueue,
    returned: Vec<KEvent>,
    changes: Vec<KEvent>,
    rows: Vec<u8>,
}

impl Queue {
    pub(super) fn new() -> io::Result<Queue> {
        let empty =
            KEvent::new(0, EventFilter::EVFILT_PROC, EvFlags::empty(), FilterFlag::empty(), 0, 0);
        let returned = vec![empty; CAPACITY as usize];
        Ok(Queue { kqueue: Kqueue::new()?, returned, changes: Vec::new(), rows: Vec::new() })
    }
}

impl KqueueApi for Queue {
    fn kevent(
        &mut self,
        changes: &[Attach],
        capacity: u32,
        timeout: Duration,
        events: &mut Vec<Kevent>,
    ) -> io::Result<()> {
        self.changes.clear();
        self.changes.extend(changes.iter().map(registration));
        let room = self.returned.len().min(capacity as usize);
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as libc::c_long,
        };
        let n = self.kqueue.kevent(&self.changes, &mut self.returned[..room], Some(timeout))?;
        events.extend(self.returned[..n].iter().map(event));
        Ok(())
    }

    fn processes(&mut self, list: &mut Vec<ProcessRow>) -> io::Result<()> {
        sysctl::table(c"kern.proc.proc", &mut self.rows)?;
        list.extend(rows(&self.rows).filter_map(process));
        Ok(())
    }

    fn mark(&mut self, place: MarkPlace, call: u32) {
        // SAFETY: it takes two numbers. That it fails is meant.
        unsafe { libc::getpriority(place as libc::c_int, call as libc::c_int) };
    }
}

fn registration(attach: &Attach) -> KEvent {
    KEvent::new(
        attach.pid.get() as usize,
        EventFilter::EVFILT_PROC,
        EvFlags::EV_ADD | EvFlags::EV_CLEAR,
        FilterFlag::from_bits_retain(attach.notes),
        0,
        attach.tree.cookie() as isize,
    )
}

fn event(event: &KEvent) -> Kevent {
    Kevent {
        ident: event.ident() as u64,
        flags: u32::from(event.flags().bits()),
        fflags: event.fflags().bits(),
        data: event.data() as i64,
        udata: event.udata() as u64,
    }
}

/// The rows of a table of struct kinfo_proc; each begins with its own size (`ki_structsize`).
fn rows(mut table: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let size =
            usize::try_from(int(table, offset_of!(libc::kinfo_proc, ki_structsize))?).ok()?;
        let row = table.get(..size).filter(|row| !row.is_empty())?;
        table = &table[size..];
        Some(row)
    })
}

fn process(row: &[u8]) -> Option<ProcessRow> {
    let pid = |offset| Pid::new(u64::try_from(int(row, offset)?).ok()?);
    Some(ProcessRow {
        pid: pid(offset_of!(libc::kinfo_proc, ki_pid))?,
        parent: pid(offset_of!(libc::kinfo_proc, ki_ppid))?,
        zombie: row.get(offset_of!(libc::kinfo_proc, ki_stat)) == Some(&ZOMBIE),
    })
}

fn int(bytes: &[u8], offset: usize) -> Option<i32> {
    let bytes = bytes.get(offset..offset + size_of::<i32>())?;
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}
