//! The simulated dtrace(1) process: its switches and ticks, its two pipes, its death and its restart.

use super::dtrace::{PrintedRecords, Traced};
use super::kernel::{COMPILE, Kernel, KernelEvent, MS, SECOND, US};
use super::truth::Fault;
use crate::input::Input;

/// The time between two heartbeats: that of the D programs for consumers (`tick-10hz`). The one for a mirror prints one every
/// five seconds, and most simulated runs are over by then.
const HEARTBEAT: u64 = 100 * MS;

impl Kernel<'_> {
    pub(super) fn begin(&mut self) {
        self.dtrace.start();
        let cpu = self.any_cpu();
        let stamp = self.dtrace.stamp(self.now, cpu);
        self.truth.blinded(self.blind_since, stamp);
        if self.options.causes {
            self.trace(cpu, Traced::Causes, None);
        }
        self.trace(cpu, Traced::Begin, None);
        self.after(HEARTBEAT, KernelEvent::Tick);
        self.after(self.switch_interval(), KernelEvent::Switch(0));
    }

    fn switch_interval(&self) -> u64 {
        SECOND / u64::from(self.options.switch_hz.max(1))
    }

    pub(super) fn tick(&mut self) {
        if self.dtrace.running() {
            self.trace(0, Traced::Tick, None);
            self.after(HEARTBEAT, KernelEvent::Tick);
        }
    }

    /// Buffers are switched one CPU after the other; after the last one everything is printed.
    pub(super) fn switch(&mut self, cpu: u32) {
        if !self.dtrace.running() {
            return;
        }
        self.dtrace.switch(self.now, cpu, &mut self.truth);
        if cpu + 1 < self.dtrace.cpus() {
            let delay = self.rng.around(20 * US);
            return self.after(delay, KernelEvent::Switch(cpu + 1));
        }
        self.pass_began = self.now;
        self.dtrace.begin_pass();
        self.print();
    }

    /// dtrace prints what its stdout's buffer holds, and goes on; or sleeps, when that was all.
    pub(super) fn print(&mut self) {
        if !self.dtrace.running() {
            return;
        }
        let PrintedRecords { records, pass_is_over } = self.dtrace.print(&mut self.truth);
        self.consumers_shown();
        self.deliver();
        let took = records * self.options.print_us * US;
        if pass_is_over {
            let next = self.pass_began + self.switch_interval();
            self.after(took.max(next.saturating_sub(self.now)), KernelEvent::Switch(0));
        } else {
            self.after(took, KernelEvent::Print);
        }
    }

    /// One thread reads both pipes.
    fn deliver(&mut self) {
        if !self.dtrace.stderr.is_empty() {
            let late = self.rng.below(16) == 0;
            let delay = self.rng.around(if late { 5 * MS } else { 50 * US });
            self.after(delay, KernelEvent::ReadStderr);
        }
        let delay = self.rng.latency(200 * US);
        self.after(delay, KernelEvent::ReadStdout);
    }

    pub(super) fn read_stdout(&mut self) {
        // What was reported before this was written is passed on before it.
        self.read_stderr();
        let some = 1 + self.rng.below(16 << 10) as usize;
        let rest = self.dtrace.stdout.split_off(some.min(self.dtrace.stdout.len()));
        let bytes = std::mem::replace(&mut self.dtrace.stdout, rest);
        if bytes.is_empty() {
            return;
        }
        self.push(Input::Stdout { at: self.mono(), bytes: &bytes });
        if !self.dtrace.stdout.is_empty() {
            let delay = self.rng.around(20 * US);
            self.after(delay, KernelEvent::ReadStdout);
        }
    }

    pub(super) fn read_stderr(&mut self) {
        let bytes = std::mem::take(&mut self.dtrace.stderr);
        if !bytes.is_empty() {
            self.push(Input::Stderr { at: self.mono(), bytes: &bytes });
        }
    }

    pub(super) fn abort(&mut self) {
        if !self.dtrace.running() {
            return;
        }
        self.truth.fault(self.now, Fault::Abort, 0);
        self.blind_since = self.dtrace.abort();
        self.dtrace_down();
    }

    /// dtrace(1) is ended, to be started again with a program for other consumers.
    pub(super) fn restart_dtrace(&mut self) {
        if self.dtrace.running() {
            self.blind_since = self.dtrace.stamp(self.now, 0);
            self.dtrace.finish(self.now, &mut self.truth);
            self.dtrace_down();
        }
    }

    fn dtrace_down(&mut self) {
        self.consumers_shown();
        self.consumers_forgotten();
        self.read_stderr();
        while !self.dtrace.stdout.is_empty() {
            self.read_stdout();
        }
        self.push(Input::DtraceDown { at: self.mono() });
        self.after(SECOND, KernelEvent::Restart);
    }

    pub(super) fn restart(&mut self) {
        self.push(Input::DtraceUp { at: self.mono() });
        self.after(COMPILE, KernelEvent::Begin);
    }
}
