//! DTrace's evidence: each create and each exit, joined to the life that it is about.

use super::life::{FactState, Life};
use super::waiting::Evidence;
use super::{Basis, Context, Lives};
use crate::check::judge::UNORDERED_NS;
use crate::check::stats::Order;
use crate::model::{Fact, KernelTime, Pid, WaitStatus};
use crate::wire::decode::Reason;

impl Lives {
    pub(super) fn create(
        &mut self,
        cx: &mut Context,
        at: KernelTime,
        newest_stamp: KernelTime,
        child: Pid,
        forker: Pid,
    ) {
        if self.is_known_create(at, child, forker) {
            cx.verdicts.stats.bad_lines[Reason::Duplicate.index()] += 1;
            return;
        }
        let early = self.announced_early(cx, child, at, forker);
        let slot = early.unwrap_or_else(|| self.begin(cx, child, at));
        // Its exit may be stamped before the fork.
        let living = self.table.newest(forker).filter(|f| self.table[*f].may_run_at(at));
        let forker_life = living.map(|f| self.table.pin(f));
        let calls = self.placed_calls;
        let inherited = living.and_then(|forker| self.inherited(cx, forker, at));
        let life = &mut self.table[slot];
        (life.created, life.forker, life.forker_life) = (Some(at), Some(forker), forker_life);
        life.asked = life.asked.or(inherited);
        life.calls_at_create = calls;
        self.wait(slot, Evidence::ChildNote, Fact::Birth, newest_stamp);
        match (self.table[slot].child_note, self.table[slot].birth) {
            (None, _) => {}
            // The probe fired later than the settle time after knote_fork, or its record came late: the verdict stands.
            (Some(_), FactState::Decided(_)) => self.violation(cx, slot, Order::Late),
            (Some(_), _) => self.judge(cx, slot, Fact::Birth, Basis::Complete),
        }
    }

    /// Whether this life of the pid has begun already: the probe was printed twice (two enablings, or two dtraces that write to
    /// one file), each time with a time stamp of its own. A pid is not used again so soon.
    fn is_known_create(&self, at: KernelTime, child: Pid, forker: Pid) -> bool {
        let newest = self.table.newest(child).map(|slot| &self.table[slot]);
        newest.is_some_and(|life| {
            let soon = life.created.is_some_and(|created| at.since(created) <= UNORDERED_NS);
            soon && life.forker == Some(forker)
        })
    }

    /// Whether DTrace has printed the exit of this life of the pid already.
    fn is_known_exit(&self, at: KernelTime, pid: Pid, status: WaitStatus) -> bool {
        let newest = self.table.newest(pid).map(|slot| &self.table[slot]);
        newest.is_some_and(|life| {
            let soon = life.exited.is_some_and(|exited| at.since(exited) <= UNORDERED_NS);
            soon && life.status == Some(status)
        })
    }

    /// The life that this create belongs to, if other evidence of it came first: NOTE_CHILD while the forker was held up
    /// between knote_fork and the probe; on old kernels even its exit.
    fn announced_early(
        &self,
        cx: &Context,
        pid: Pid,
        at: KernelTime,
        forker: Pid,
    ) -> Option<usize> {
        let slot = self.table.newest(pid)?;
        let life = &self.table[slot];
        if life.created.is_some() {
            return None;
        }
        if life.registered.is_some() {
            // Registered before dtrace could tell when that was, or a clock has stepped back.
            let is_it = at < life.proven || !cx.sight.pids_came_round(life.proven, at);
            return (life.exited.is_none() && is_it).then_some(slot);
        }
        let ended = [life.exited, life.exit_note.map(|e| e.at)].into_iter().flatten().min();
        match ended {
            Some(end) => {
                (at.since(end) <= UNORDERED_NS && !life.birth.is_decided()).then_some(slot)
            }
            // Long ago, and by another forker: it was a life of before, whose end DTrace has missed.
            None => life
                .child_note
                .filter(|child| !life.birth.is_decided() || child.data == i64::from(forker.get()))
                .map(|_| slot),
        }
    }

    /// A new life of `pid`, in a table with room for it.
    pub(super) fn begin(&mut self, cx: &mut Context, pid: Pid, at: KernelTime) -> usize {
        // A pid is used again: its last owner is dead and reaped, even if DTrace's record of that is missing.
        if let Some(old) = self.table.newest(pid)
            && self.table[old].exited.is_none()
            && self.table[old].exit_note.is_none()
        {
            // Its NOTE_EXIT was queued before the pid was free: wait for the next drain.
            self.wait(old, Evidence::ExitNote, Fact::Death, at);
        }
        let shares_pid = self.table.newest(pid).is_some_and(|old| {
            let is_open = self.table[old].is_open() || self.may_be_reported_again(&self.table[old]);
            let old = &mut self.table[old];
            old.shares_pid |= is_open;
            old.shares_pid
        });
        self.make_room(cx);
        let slot = self.table.begin(pid, at);
        self.table[slot].shares_pid = shares_pid;
        slot
    }

    /// Whether one of several kqueues of a consumer may still report this life, which another one has reported.
    fn may_be_reported_again(&self, life: &Life) -> bool {
        let over = life.exited.unwrap_or(life.proven).plus(self.patience_ns);
        life.is_known_to_kqueue()
            && self.queues.len() > 1
            && self.queues.iter().any(|queue| queue.drained < over)
    }

    pub(super) fn exit(&mut self, cx: &mut Context, at: KernelTime, pid: Pid, status: WaitStatus) {
        if self.is_known_exit(at, pid, status) {
            cx.verdicts.stats.bad_lines[Reason::Duplicate.index()] += 1;
            return;
        }
        // A NOTE_EXIT that came long before may have been about the life before this one.
        let is_it = |life: &Life| {
            let delivered = life.exit_note.map_or(at, |note| note.at);
            let soon = at.since(delivered) <= UNORDERED_NS;
            life.exited.is_none() && (soon || !cx.sight.pids_may_have_come_round(delivered, at))
        };
        let living = self.table.newest(pid).filter(|slot| is_it(&self.table[*slot]));
        let slot = living.unwrap_or_else(|| self.begin(cx, pid, at));
        self.change(cx, slot, |life| (life.exited, life.status) = (Some(at), Some(status)));
        self.wait(slot, Evidence::ExitNote, Fact::Death, at);
        if self.table[slot].exit_note.is_some() && !self.table[slot].death.is_decided() {
            self.judge(cx, slot, Fact::Death, Basis::Complete);
        }
    }
}
