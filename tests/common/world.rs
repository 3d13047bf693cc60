//! A split kernel whose dtrace(1) agrees with it, in real time: whatever is judged otherwise is our own mistake.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kqproc_exporter::model::{Kevent, note};
use kqproc_exporter::source::kqueue::{Change, Kernel, Process};
use nix::time::{ClockId, clock_gettime};

/// DTrace's clock has an origin of its own.
const ORIGIN: u64 = 77_000_000_000;

/// A split kernel with one load: the root forks a child that exits, `rounds` times, one each `period`.
pub struct World {
    folder: PathBuf,
    log: File,
    root: Option<(u32, u64)>,
    queue: VecDeque<Kevent>,
    rounds: u32,
    period: Duration,
    next: Option<Instant>,
    forked: u32,
    over: Option<Instant>,
    /// The load runs before anybody tracks it, and goes on until the test has seen enough.
    running: bool,
    /// Of so many forks, one is kept from the queue.
    loses: Option<u32>,
}

impl World {
    pub fn new(folder: &Path, rounds: u32, period: Duration, running: bool) -> World {
        let log = File::create(folder.join("trace")).expect("a file");
        World {
            folder: folder.to_owned(),
            log,
            root: None,
            queue: VecDeque::new(),
            rounds,
            period,
            next: None,
            forked: 0,
            over: None,
            running,
            loses: None,
        }
    }

    /// Of every so many forks, the queue is not told of the last: neither of its birth nor of its death.
    #[allow(dead_code, reason = "not every test loses something")]
    pub fn losing(self, every: u32) -> World {
        World { loses: Some(every), ..self }
    }

    fn now() -> u64 {
        let mono = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
        mono.tv_sec() as u64 * 1_000_000_000 + mono.tv_nsec() as u64 + ORIGIN
    }

    /// What a probe prints, once tracing has begun.
    fn trace(&mut self, line: &str) {
        if self.folder.join("tracing").exists() {
            let mut text = String::new();
            if self.log.metadata().expect("a file").len() == 0 {
                text += &format!("B {} 1\n", World::now());
                text += &format!("T {} 1\n", World::now());
            }
            text += line;
            text.push('\n');
            self.log.write_all(text.as_bytes()).expect("written");
        }
    }

    fn queue(&mut self, pid: u32, flags: u32, fflags: u32, data: i64) {
        if let Some((_, udata)) = self.root {
            self.queue.push_back(Kevent { ident: pid.into(), flags, fflags, data, udata });
        }
    }

    /// Everything that is due happens.
    fn happen(&mut self) {
        let root = self.root.map_or(12345, |(pid, _)| pid);
        if self.next.is_none() && (self.running || self.folder.join("ran").exists()) {
            self.next = Some(Instant::now());
        }
        while let Some(at) =
            self.next.filter(|at| *at <= Instant::now() && self.forked < self.rounds)
        {
            self.next = Some(at + self.period);
            // The root has a pid of this host: the children take others.
            let pid = 1 + (root + self.forked % 60_000) % 90_000;
            self.forked += 1;
            let is_told = self.loses.is_none_or(|every| !self.forked.is_multiple_of(every));
            if is_told {
                self.queue(pid, 0x30, note::CHILD, root.into());
            }
            self.trace(&format!("C {} 0 {pid} {root} {root} 14", World::now()));
            self.trace(&format!("X {} 1 {pid} {root} 1 32512", World::now()));
            if is_told {
                self.queue(pid, 0x8030, note::EXIT, 32512);
            }
        }
        if self.forked == self.rounds && self.over.is_none() && !self.running {
            self.over = Some(Instant::now());
            self.trace(&format!("X {} 1 {root} 1 1 0", World::now()));
            self.queue(root, 0x8030, note::EXIT, 0);
            fs::write(self.folder.join("done"), "").expect("written");
        }
    }
}

impl Kernel for World {
    fn kevent(
        &mut self,
        changes: &[Change],
        capacity: u32,
        timeout: Duration,
        events: &mut Vec<Kevent>,
    ) -> io::Result<()> {
        let (entered, deadline) = (World::now(), Instant::now() + timeout);
        if let Some(change) = changes.first() {
            self.root = Some((change.pid.get(), change.udata));
        }
        loop {
            self.happen();
            if !self.queue.is_empty() || Instant::now() >= deadline {
                break;
            }
            let nap = self.next.map_or(Duration::from_millis(1), |at| {
                at.saturating_duration_since(Instant::now()).min(Duration::from_millis(1))
            });
            std::thread::sleep(nap.max(Duration::from_micros(50)));
            self.trace(&format!("T {} 1", World::now()));
        }
        let n = self.queue.len().min(capacity as usize);
        events.extend(self.queue.drain(..n));
        self.trace(&format!("M {} 0 {entered} {capacity} {n} 0", World::now()));
        Ok(())
    }

    fn processes(&mut self, _: &mut Vec<Process>) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> RawFd {
        42
    }
}
