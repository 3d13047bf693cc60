//! A stand-in for a FreeBSD kernel: it runs in real time behind `KqueueApi`, and writes what DTrace would see of it to a file,
//! which the stand-in for dtrace(1), `tests/fixtures/stand-in-dtrace.sh`, prints.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use kqproc_exporter::input::Attach;
use kqproc_exporter::model::{Kevent, note};
use kqproc_exporter::source::kqueue::{KqueueApi, MarkPlace, ProcessRow};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// DTrace's clock has an origin of its own.
const ORIGIN: u64 = 77_000_000_000;

/// How often the D program prints a tick.
const TICK: Duration = Duration::from_secs(5);

/// The wait(2) status of every child.
const STATUS: i64 = 32512;

/// The load of a command begins after so many calls of the reader with marks.
const CALLS_FIRST: u32 = 2;

/// What the stand-in does with the notes and records of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// As FreeBSD 12.3 and later: nothing is lost.
    Split,
    /// As FreeBSD 10.1: NOTE_CHILD and NOTE_EXIT come in one kevent, whose data is the wait status.
    #[allow(dead_code, reason = "not every test needs it")]
    Merged,
    /// As [`Behaviour::Split`], but DTrace drops the records of the children, and reports the drops.
    #[allow(dead_code, reason = "not every test needs it")]
    Drops,
    /// No load and no trace: a call touches no file and is one system call, as on FreeBSD.
    #[allow(dead_code, reason = "not every test needs it")]
    Idle,
}

impl FromStr for Behaviour {
    type Err = String;

    fn from_str(text: &str) -> Result<Behaviour, String> {
        match text {
            "split" => Ok(Behaviour::Split),
            "merged" => Ok(Behaviour::Merged),
            "drops" => Ok(Behaviour::Drops),
            "idle" => Ok(Behaviour::Idle),
            other => Err(format!("no such behaviour: {other}")),
        }
    }
}

/// A kernel with one load: the roots in turn fork a child that exits at once, `rounds` times, one each `period`.
///
/// The load begins as soon as a root is tracked and dtrace traces. The roots are real processes, and end when those do. A
/// load that is `running` began before that, and never ends.
pub struct StandInKernel {
    folder: PathBuf,
    log: File,
    behaviour: Behaviour,
    roots: Vec<Root>,
    queue: VecDeque<Kevent>,
    rounds: u32,
    period: Duration,
    next: Option<Instant>,
    forked: u32,
    running: bool,
    /// Calls of the reader that DTrace has seen since a root is tracked.
    calls: u32,
    /// The kernel loses one of so many forks.
    loses: Option<u32>,
    ticked: Instant,
}

struct Root {
    pid: u32,
    udata: u64,
    ended: bool,
}

impl StandInKernel {
    pub fn new(folder: &Path, rounds: u32, period: Duration, running: bool) -> StandInKernel {
        let log = File::create(folder.join("trace")).expect("a file");
        StandInKernel {
            folder: folder.to_owned(),
            log,
            behaviour: Behaviour::Split,
            roots: Vec::new(),
            queue: VecDeque::new(),
            rounds,
            period,
            next: None,
            forked: 0,
            running,
            calls: 0,
            loses: None,
            ticked: Instant::now(),
        }
    }

    /// Loses one of `every` forks: neither its birth nor its death is queued.
    #[allow(dead_code, reason = "not every test loses something")]
    pub fn losing(self, every: u32) -> StandInKernel {
        StandInKernel { loses: Some(every), ..self }
    }

    #[allow(dead_code, reason = "not every test needs another one")]
    pub fn behaving(self, behaviour: Behaviour) -> StandInKernel {
        StandInKernel { behaviour, ..self }
    }

    fn now() -> u64 {
        let mono = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
        mono.tv_sec() as u64 * 1_000_000_000 + mono.tv_nsec() as u64 + ORIGIN
    }

    fn is_traced(&self) -> bool {
        self.folder.join("tracing").exists()
    }

    /// Writes a line that a probe prints, if tracing has begun.
    fn trace(&mut self, line: &str) {
        if self.is_traced() {
            let mut text = String::new();
            if self.log.metadata().expect("a file").len() == 0 {
                text += &format!("B {} 1\n", Self::now());
                text += &format!("T {} 1\n", Self::now());
            }
            text += line;
            text.push('\n');
            self.log.write_all(text.as_bytes()).expect("written");
        }
    }

    fn queue(&mut self, pid: u32, udata: u64, flags: u32, fflags: u32, data: i64) {
        self.queue.push_back(Kevent { ident: pid.into(), flags, fflags, data, udata });
    }

    /// Does what is due.
    fn happen(&mut self) {
        let may_begin = self.running || self.calls >= CALLS_FIRST;
        if self.next.is_none() && may_begin {
            self.next = Some(Instant::now());
        }
        while let Some(at) =
            self.next.filter(|at| *at <= Instant::now() && self.forked < self.rounds)
        {
            self.next = Some(at + self.period);
            self.fork();
        }
        if self.forked == self.rounds && !self.running {
            if !self.folder.join("done").exists() {
                fs::write(self.folder.join("done"), "").expect("written");
            }
            self.end_roots();
        }
    }

    /// A child is born and exits.
    fn fork(&mut self) {
        // The root of a running load before a root is tracked.
        let (root, udata) = match self.roots.len() {
            0 => (12345, None),
            n => {
                let root = &self.roots[self.forked as usize % n];
                (root.pid, Some(root.udata))
            }
        };
        // The roots are processes of this host. The pids of their children are made up: one sequence for all, behind the roots.
        let last = self.roots.iter().map(|root| root.pid).max().unwrap_or(root);
        let pid = 1 + (last + self.forked % 60_000) % 90_000;
        self.forked += 1;
        let is_lost = self.loses.is_some_and(|every| self.forked.is_multiple_of(every));
        let udata = udata.filter(|_| !is_lost);
        let merged = self.behaviour == Behaviour::Merged;
        if let Some(udata) = udata.filter(|_| !merged) {
            self.queue(pid, udata, 0x30, note::CHILD, root.into());
        }
        if self.behaviour != Behaviour::Drops {
            self.trace(&format!("C {} 0 {pid} {root} {root} 14", Self::now()));
            self.trace(&format!("X {} 1 {pid} {root} 1 {STATUS}", Self::now()));
        } else if self.forked == self.rounds {
            let drops = format!("dtrace: {} drops on CPU 0\n", 2 * self.rounds);
            fs::write(self.folder.join("drops"), drops).expect("written");
        }
        if let Some(udata) = udata {
            let child = if merged { note::CHILD } else { 0 };
            self.queue(pid, udata, 0x8030, note::EXIT | child, STATUS);
        }
    }

    fn end_roots(&mut self) {
        for i in 0..self.roots.len() {
            let Root { pid, udata, ended } = self.roots[i];
            if !ended && kill(Pid::from_raw(pid as i32), None) == Err(Errno::ESRCH) {
                self.roots[i].ended = true;
                self.trace(&format!("X {} 1 {pid} 1 1 0", Self::now()));
                self.queue(pid, udata, 0x8030, note::EXIT, 0);
            }
        }
    }
}

impl KqueueApi for StandInKernel {
    fn kevent(
        &mut self,
        changes: &[Attach],
        capacity: u32,
        timeout: Duration,
        events: &mut Vec<Kevent>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        let root = |c: &Attach| Root { pid: c.pid.get(), udata: c.tree.cookie(), ended: false };
        self.roots.extend(changes.iter().map(root));
        if self.behaviour == Behaviour::Idle {
            std::thread::sleep(timeout);
            return Ok(());
        }
        loop {
            self.happen();
            if !self.queue.is_empty() || Instant::now() >= deadline {
                break;
            }
            let nap = self.next.filter(|_| self.forked < self.rounds);
            let nap = nap.map_or(Duration::from_millis(1), |at| {
                at.saturating_duration_since(Instant::now()).min(Duration::from_millis(1))
            });
            std::thread::sleep(nap.max(Duration::from_micros(50)));
            if self.ticked.elapsed() >= TICK {
                self.ticked = Instant::now();
                self.trace(&format!("T {} 1", Self::now()));
            }
        }
        let n = self.queue.len().min(capacity as usize);
        events.extend(self.queue.drain(..n));
        if !self.roots.is_empty() && self.is_traced() {
            self.calls += 1;
        }
        Ok(())
    }

    fn processes(&mut self, _: &mut Vec<ProcessRow>) -> io::Result<()> {
        Ok(())
    }

    fn mark(&mut self, place: MarkPlace, call: u32) {
        if self.behaviour == Behaviour::Idle {
            // One system call, as on FreeBSD.
            nix::unistd::getppid();
        } else {
            self.trace(&format!("m {} 0 {} {}", Self::now(), place as i32, call as i32));
        }
    }
}
