//! Findings: a decided fact, its verdict, and the evidence of both witnesses for it. An incarnation is a life of a pid, `Life`
//! in `check/lives/`.

use serde::{Deserialize, Serialize};

use super::Call;
use super::stats::Stats;
use crate::input::Input;
use crate::model::{Fact, KernelTime, Kevent, Pid, TreeId, Verdict, WaitStatus};
use crate::wire::decode::Reason;
use crate::wire::drops::StderrMessage;
use crate::wire::record::Record;

/// One fact with its verdict and the evidence of both witnesses.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Finding {
    /// The tree that the process belongs to.
    pub tree: TreeId,
    /// The process. With [`DtraceEvidence::created`] it names the incarnation.
    pub pid: Pid,
    /// The consumer's own process, if the tree is one.
    pub consumer: Option<Pid>,
    /// Which of its two facts.
    pub fact: Fact,
    /// What became of the fact.
    pub verdict: Verdict,
    /// What DTrace reported of this incarnation.
    pub dtrace: DtraceEvidence,
    /// What kqueue reported of this incarnation.
    pub kqueue: KqueueEvidence,
    /// What else was known of this incarnation.
    pub clues: Clues,
    /// Where the input had got to, on DTrace's clock, when the verdict fell.
    pub decided: KernelTime,
}

/// DTrace's evidence of one incarnation; `None`: it has reported nothing (yet).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DtraceEvidence {
    /// proc:::create fired.
    pub created: Option<KernelTime>,
    /// Who forked it.
    pub forker: Option<Pid>,
    /// proc:::exit fired.
    pub exited: Option<KernelTime>,
    /// Its wait(2) status.
    pub status: Option<WaitStatus>,
}

/// kqueue's evidence of one incarnation; `None`: it has reported nothing (yet).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct KqueueEvidence {
    /// The kevent with NOTE_CHILD, and when it was delivered.
    pub child: Option<Delivered>,
    /// The kevent with NOTE_EXIT, and when it was delivered.
    pub exit: Option<Delivered>,
    /// The forker's knote carried NOTE_TRACKERR when this process should have been announced.
    pub trackerr: bool,
}

/// A kevent and the batch that delivered it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Delivered {
    /// The event.
    pub event: Kevent,
    /// The kevent(2) call.
    pub batch: u64,
    /// When that call returned, on DTrace's clock (estimated if its mark is missing).
    pub at: KernelTime,
}

/// What is known of an incarnation beyond the evidence for its own facts: it tells apart ways through the kernel that lose
/// the same notes. Looked up only for a fact that was lost. The default knows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Clues {
    /// When NOTE_CHILD of one of its children was first delivered, which named it as the forker: it had a knote, and that
    /// was tracked.
    pub named_forker: Option<KernelTime>,
    /// A kevent(2) call of the reader was in the kernel when it ended.
    pub scanned_at_exit: bool,
    /// A cause probe saw knote_fork skip its forker's knote.
    pub influx: bool,
    /// With which errno kqueue_register failed for it inside knote_fork (cause probes).
    pub errno: Option<i32>,
}

impl Clues {
    /// What is known with both.
    fn and(self, other: Clues) -> Clues {
        Clues {
            named_forker: self.named_forker.or(other.named_forker),
            scanned_at_exit: self.scanned_at_exit || other.scanned_at_exit,
            influx: self.influx || other.influx,
            errno: self.errno.or(other.errno),
        }
    }
}

impl Finding {
    /// When the fact happened: DTrace's time, else that of the call that delivered its note.
    pub fn happened(&self) -> Option<KernelTime> {
        let (dtrace, note) = match self.fact {
            Fact::Birth => (self.dtrace.created, self.kqueue.child),
            Fact::Death => (self.dtrace.exited, self.kqueue.exit),
        };
        dtrace.or(note.map(|note| note.at))
    }

    /// Whether it may know something of a process that kqueue never announced: news for the finding on its other fact.
    pub(crate) fn has_news(&self) -> bool {
        self.kqueue.child.is_none() && self.clues != Clues::default()
    }

    /// If these are the two facts of one incarnation, what was known when either got its verdict is known of both.
    pub fn share(&mut self, other: &mut Finding) {
        let name = |f: &Finding| (f.tree, f.pid, f.dtrace.created);
        if self.dtrace.created.is_some() && name(self) == name(other) && self.fact != other.fact {
            let both = self.clues.and(other.clues);
            (self.clues, other.clues) = (both, both);
        }
    }
}

/// What follows a run through the pipeline. It is called in passing and is never waited for.
pub trait Observer {
    /// A fact got its verdict: once for each fact.
    fn finding(&mut self, finding: &Finding);

    /// A kevent(2) call has its place in DTrace's order.
    fn call(&mut self, _: &Call) {}

    /// The source's next input, before anything is made of it.
    fn input(&mut self, _: &Input<'_>) {}

    /// The next line of dtrace's stdout: a record, or why it is none.
    fn record(&mut self, _: &Result<Record, Reason>) {}

    /// The next line of dtrace's stderr, and what it means: nothing for an empty one.
    fn message(&mut self, _line: &[u8], _: Option<&StderrMessage<'_>>) {}

    /// The counters after an input.
    fn counted(&mut self, _: &Stats) {}
}

/// For a run of which only the counters are needed.
impl Observer for () {
    fn finding(&mut self, _: &Finding) {}
}

impl Observer for Vec<Finding> {
    fn finding(&mut self, finding: &Finding) {
        self.push(*finding);
    }
}
