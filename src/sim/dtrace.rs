//! The simulated DTrace: per-CPU buffers, their switches and drops, and the lines that dtrace(1) prints.

use std::collections::VecDeque;
use std::fmt::Write;

use super::consumers::ConsumerRecord;
use super::options::Options;
use super::rng::Rng;
use super::truth::{Fault, LifeId, Truth};
use crate::model::{Fact, Pid};
use crate::wire::decode::{AFTER_CALL, BEFORE_CALL};

/// stdout's buffer, for a pipe (`sys_pipe.c`: st_blksize is PAGE_SIZE).
const STDIO_BUFFER: usize = 4096;

/// What a probe traces; the time and the CPU come with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Traced {
    Begin,
    Tick,
    Create {
        child: Pid,
        forker: Pid,
        parent: Pid,
        flags: u32,
    },
    Exit {
        pid: Pid,
        parent: Pid,
        status: u32,
    },
    Exec {
        pid: Pid,
    },
    ExecFail {
        pid: Pid,
        errno: i32,
    },
    /// getpriority(2) right before or right after a kevent(2) call of the reader.
    CallMark {
        returned: bool,
        seq: u64,
    },
    /// The causes are traced.
    Causes,
    RegFail {
        forker: Pid,
        child: Pid,
        errno: i32,
    },
    Influx {
        forker: Pid,
        child: Pid,
    },
    Consumer(Box<ConsumerRecord>),
}

impl Traced {
    /// Bytes in the buffer: a header of 12 (dtrace.h:1105) and 8 for each integer.
    fn size(&self) -> usize {
        let integers = match self {
            Traced::Causes => 1,
            Traced::Begin | Traced::Tick => 2,
            Traced::Exec { .. } | Traced::Influx { .. } => 3,
            Traced::ExecFail { .. } | Traced::RegFail { .. } | Traced::CallMark { .. } => 4,
            Traced::Create { .. } | Traced::Exit { .. } => 6,
            Traced::Consumer(traced) => traced.integers(),
        };
        12 + 8 * integers
    }

    /// The process that a fork or an exit is about; 0 for the others.
    pub(super) const fn pid(&self) -> u32 {
        match self {
            Traced::Create { child: pid, .. } | Traced::Exit { pid, .. } => pid.get(),
            _ => 0,
        }
    }
}

/// CLD_EXITED, CLD_KILLED or CLD_DUMPED, as proc:::exit has it.
const fn how_it_ended(status: u32) -> u32 {
    match status & 0xff {
        0 => 1,
        signal if signal & 0x80 != 0 => 3,
        _ => 2,
    }
}

#[derive(Clone, Debug)]
struct BufferedRecord {
    stamp: u64,
    /// When that really was.
    at: u64,
    cpu: u32,
    traced: Traced,
    /// The fact that it tells.
    fact: Option<(LifeId, Fact)>,
}

/// The active buffer of one CPU.
#[derive(Clone, Debug, Default)]
struct Cpu {
    /// How far its clock is off.
    skew: i64,
    records: Vec<BufferedRecord>,
    used: usize,
    drops: u64,
    /// When it began to drop.
    full_since: u64,
}

/// dtrace(1) and its buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Dtrace {
    running: bool,
    capacity: usize,
    cpus: Vec<Cpu>,
    /// The buffers are printed one after the other.
    in_turn: bool,
    /// How far the clock has jumped.
    step: i64,
    /// Records that have been taken out of the buffers and wait for the next pass.
    taken: Vec<BufferedRecord>,
    /// Those of this pass that have not been printed yet.
    printing: VecDeque<BufferedRecord>,
    /// What has been printed and is in stdout's buffer.
    unflushed: String,
    /// Drops to be reported at the end of this pass.
    dropped: Vec<(u32, u64)>,
    /// When the first buffer of this pass was switched.
    cut: u64,
    /// stdout that was not read yet.
    pub(super) stdout: Vec<u8>,
    /// stderr that was not read yet.
    pub(super) stderr: Vec<u8>,
    /// What was printed of consumers, and when that happened.
    pub(super) shown: Vec<(u64, ConsumerRecord)>,
}

/// What dtrace(1) printed at once.
pub(super) struct PrintedRecords {
    pub(super) records: u64,
    pub(super) pass_is_over: bool,
}

impl Dtrace {
    pub(super) fn new(options: &Options, rng: &mut Rng) -> Dtrace {
        let skew = options.skew_us * 1000;
        let cpus = (0..options.cpus.max(1))
            .map(|_| Cpu { skew: rng.below(2 * skew + 1) as i64 - skew as i64, ..Cpu::default() })
            .collect();
        let (capacity, in_turn) = (options.buffer as usize, options.in_turn);
        Dtrace { capacity, cpus, in_turn, ..Dtrace::default() }
    }

    pub(super) fn cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    pub(super) fn running(&self) -> bool {
        self.running
    }

    /// What `timestamp` reads on this CPU.
    pub(super) fn stamp(&self, now: u64, cpu: u32) -> u64 {
        let skew = self.cpus.get(cpu as usize).map_or(0, |c| c.skew);
        now.saturating_add_signed(skew + self.step)
    }

    /// The clock jumps so far from where it started.
    pub(super) fn step(&mut self, by: i64) {
        self.step = by;
    }

    pub(super) fn start(&mut self) {
        self.running = true;
    }

    pub(super) fn fire(
        &mut self,
        now: u64,
        cpu: u32,
        traced: Traced,
        fact: Option<(LifeId, Fact)>,
        truth: &mut Truth,
    ) {
        let stamp = self.stamp(now, cpu);
        if !self.running {
            return;
        }
        let Some(buffer) = self.cpus.get_mut(cpu as usize) else { return };
        if buffer.used + traced.size() > self.capacity {
            if buffer.drops == 0 {
                buffer.full_since = stamp;
            }
            buffer.drops += 1;
            truth.fault(stamp, Fault::Drop, cpu);
            return;
        }
        buffer.used += traced.size();
        buffer.records.push(BufferedRecord { stamp, at: now, cpu, traced, fact });
    }

    /// dtrace takes the buffer of this CPU and leaves an empty one.
    pub(super) fn switch(&mut self, now: u64, cpu: u32, truth: &mut Truth) {
        let stamp = self.stamp(now, cpu);
        if cpu == 0 {
            self.cut = stamp;
        }
        let Some(buffer) = self.cpus.get_mut(cpu as usize) else { return };
        self.taken.append(&mut buffer.records);
        buffer.used = 0;
        if buffer.drops > 0 {
            self.dropped.push((cpu, buffer.drops));
            truth.blinded(buffer.full_since, stamp);
            buffer.drops = 0;
        }
    }

    /// Every buffer has been taken: a pass begins. What was traced after the first switch waits for the next one, so that
    /// the records of a pass can be printed in the order of their time (libdtrace `dt_consume.c:2986`). Without the option
    /// `temporal` every buffer is printed as it was taken.
    pub(super) fn begin_pass(&mut self) {
        if self.in_turn {
            return self.printing.extend(self.taken.drain(..));
        }
        self.taken.sort_by_key(|r| (r.stamp, r.cpu));
        let due = self.taken.partition_point(|r| r.stamp <= self.cut);
        self.printing.extend(self.taken.drain(..due));
    }

    /// Prints until stdout's buffer is full, or the pass is over: then drops go to stderr at once, and stdout is flushed
    /// (12.3 `dt_consume.c:3034,3066`, 13.2 `dtrace.c:2007`).
    pub(super) fn print(&mut self, truth: &mut Truth) -> PrintedRecords {
        let mut records = 0;
        while let Some(record) = self.printing.pop_front() {
            records += 1;
            print_record(&mut self.unflushed, &record);
            if let Some((id, fact)) = record.fact
                && let Some(life) = truth.life(id)
            {
                life.of_mut(fact).printed = true;
            }
            if let Traced::Consumer(traced) = record.traced {
                self.shown.push((record.stamp, *traced));
            }
            if self.unflushed.len() >= STDIO_BUFFER {
                let rest = self.unflushed.split_off(STDIO_BUFFER);
                self.stdout.append(&mut std::mem::replace(&mut self.unflushed, rest).into_bytes());
                return PrintedRecords { records, pass_is_over: false };
            }
        }
        for (cpu, count) in self.dropped.drain(..) {
            let plural = if count == 1 { "" } else { "s" };
            self.stderr.extend_from_slice(
                format!("dtrace: {count} drop{plural} on CPU {cpu}\n").as_bytes(),
            );
        }
        self.flush();
        PrintedRecords { records, pass_is_over: true }
    }

    fn flush(&mut self) {
        self.stdout.append(&mut std::mem::take(&mut self.unflushed).into_bytes());
    }

    /// SIGTERM: everything is drained, and an empty line ends the output.
    pub(super) fn finish(&mut self, now: u64, truth: &mut Truth) {
        for cpu in 0..self.cpus() {
            self.switch(now, cpu, truth);
        }
        self.cut = u64::MAX;
        self.begin_pass();
        while !self.print(truth).pass_is_over {}
        self.stdout.push(b'\n');
        self.running = false;
    }

    /// The kernel killed the session: what is in the buffers is gone. Returns since when DTrace has been blind.
    pub(super) fn abort(&mut self) -> u64 {
        self.running = false;
        self.stderr.extend_from_slice(
            b"dtrace: processing aborted: Abort due to systemic unresponsiveness\n",
        );
        self.flush();
        let since = self.printing.front().map_or(self.cut, |record| record.stamp);
        self.printing.clear();
        self.taken.clear();
        self.dropped.clear();
        for cpu in &mut self.cpus {
            cpu.records.clear();
            (cpu.used, cpu.drops) = (0, 0);
        }
        since
    }
}

/// Nanoseconds since 1970 at the origin of the true clock.
const WALL_AT_ORIGIN: u64 = 1_795_500_000_000_000_000;

/// walltimestamp is as coarse as the tick of a virtual machine.
const fn wall(at: u64) -> u64 {
    WALL_AT_ORIGIN + at / 10_000_000 * 10_000_000
}

/// One line, as the D program prints it: the layout is `d-scripts/wire.d`'s.
fn print_record(out: &mut String, record: &BufferedRecord) {
    let (at, cpu) = (record.stamp, record.cpu);
    let written = match &record.traced {
        Traced::Begin => writeln!(out, "B {at} {}", wall(record.at)),
        Traced::Tick => writeln!(out, "T {at} {}", wall(record.at)),
        Traced::Create { child, forker, parent, flags } => {
            writeln!(out, "C {at} {cpu} {child} {forker} {parent} {flags:x}")
        }
        Traced::Exit { pid, parent, status } => {
            writeln!(out, "X {at} {cpu} {pid} {parent} {} {status}", how_it_ended(*status))
        }
        Traced::Exec { pid } => writeln!(out, "E {at} {cpu} {pid}"),
        Traced::ExecFail { pid, errno } => writeln!(out, "F {at} {cpu} {pid} {errno}"),
        Traced::CallMark { returned, seq } => {
            let place = if *returned { AFTER_CALL } else { BEFORE_CALL };
            writeln!(out, "m {at} {cpu} {place} {seq}")
        }
        Traced::Causes => writeln!(out, "c {at}"),
        Traced::RegFail { forker, child, errno } => {
            writeln!(out, "R {at} {forker} {child} {errno}")
        }
        Traced::Influx { forker, child } => writeln!(out, "S {at} {forker} {child}"),
        Traced::Consumer(traced) => traced.print(out, at, cpu),
    };
    debug_assert!(written.is_ok(), "a String takes everything");
}

#[cfg(test)]
mod tests;
