//! A consumer, pid 9, that is written down by hand; times in milliseconds, a while after DTrace's first record.

use kqproc_exporter::check::stats::TreeStats;
pub(super) use kqproc_exporter::model::note::{
    CHILD as NOTE_CHILD, EV_ADD, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_ONESHOT,
    EXIT as NOTE_EXIT, FORK as NOTE_FORK, TRACK as NOTE_TRACK,
};
use kqproc_exporter::model::{Fact, Pid, Verdict};

use super::{Run, verdicts};

/// When they begin, in milliseconds.
const BEGIN: u64 = 2000;

pub(super) fn ns(ms: u64) -> u64 {
    (BEGIN + ms) * 1_000_000
}

/// filter, ident, fflags and data.
pub(super) type Event = (i32, u32, u32, i64);

#[derive(Clone)]
pub(super) struct Script(pub(super) Run);

impl Script {
    /// DTrace sees process 50 begin; then the consumer registers it with kqueue 3.
    pub(super) fn new(notes: u32) -> Script {
        let mut script = Script(Run { pid: Pid::new(9).expect("a pid"), lines: vec![] });
        script.line(format!("B {} 1", 1_000_000));
        script.create(2, 50, 9);
        script.register(10, (3, "a1"), 50, EV_ADD, notes, 0);
        script.call(11, 3, &[]);
        script
    }

    pub(super) fn line(&mut self, line: String) {
        self.0.lines.push(line);
    }

    pub(super) fn create(&mut self, ms: u64, child: u32, forker: u32) {
        self.line(format!("C {} 0 {child} {forker} {forker} 14", ns(ms)));
    }

    pub(super) fn exit(&mut self, ms: u64, pid: u32) {
        self.line(format!("X {} 0 {pid} 1 1 256", ns(ms)));
    }

    pub(super) fn register(
        &mut self,
        ms: u64,
        (fd, kqueue): (i32, &str),
        pid: u32,
        flags: u32,
        notes: u32,
        errno: i32,
    ) {
        let (at, done) = (ns(ms), ns(ms) + 900);
        self.line(format!("A {at} 0 77 1 {fd} {kqueue} {pid} -5 {flags:x} {notes:x} 0 9"));
        self.line(format!("a {done} 0 77 {errno} 9"));
    }

    /// A call with room for 8 events.
    pub(super) fn call(&mut self, ms: u64, fd: i32, events: &[Event]) {
        self.call_with_room(8, ms, fd, events);
    }

    pub(super) fn call_with_room(&mut self, room: u32, ms: u64, fd: i32, events: &[Event]) {
        let (n, at) = (events.len(), ns(ms));
        if n > 0 {
            let mut line = format!("N {} 0 77 {fd} {n}", at - 1000);
            for i in 0..8 {
                let (filter, ident, fflags, data) = events.get(i).copied().unwrap_or_default();
                let flags = if n > i { 0x20 } else { 0 };
                line += &format!(" {ident} {filter} {flags:x} {fflags:x} {data}");
            }
            self.line(line + " 9");
        }
        self.line(format!("M {at} 0 77 {fd} {room} {n} 0 9"));
    }

    /// Idle calls on these kqueues until everything is decided.
    pub(super) fn idle(&mut self, from_ms: u64, fds: &[i32]) {
        for ms in (from_ms..from_ms + 2500).step_by(100) {
            for fd in fds {
                self.call(ms, *fd, &[]);
            }
        }
        self.line(format!("T {} 1", ns(from_ms + 3000)));
        self.line(format!("T {} 1", ns(from_ms + 3100)));
    }

    pub(super) fn births(&self) -> Vec<(Verdict, u64)> {
        verdicts(&self.0.stats(), Fact::Birth)
    }

    pub(super) fn deaths(&self) -> Vec<(Verdict, u64)> {
        verdicts(&self.0.stats(), Fact::Death)
    }
}

pub(super) const LOST: [(Verdict, u64); 1] = [(Verdict::LostSilent, 1)];
pub(super) const AGREED: [(Verdict, u64); 1] = [(Verdict::Agreed, 1)];
pub(super) const NONE: [(Verdict, u64); 0] = [];

/// How many registrations of a consumer kevent(2) refused.
pub(crate) fn refused(tree: &TreeStats) -> u64 {
    tree.consumer.as_ref().map_or(0, |consumer| consumer.refused.iter().sum())
}
