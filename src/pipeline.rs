//! The pipeline: raw inputs go in, decoded records and messages go to the cross-checker.

use std::ops::ControlFlow;

use crate::check::finding::Observer;
use crate::check::stats::Stats;
use crate::check::{Checker, Config};
use crate::input::{Input, Sink};
use crate::model::MonoTime;
use crate::wire::decode::Reason;
use crate::wire::drops::{StderrMessage, message};
use crate::wire::lines::{Line, Lines};
use crate::wire::records::{Printed, Records};

/// Decodes both of dtrace's streams and feeds the cross-checker. Pure: it reads no clock and does no IO.
///
/// A fork that DTrace saw, and that kqueue did not report although its queue was drained after it:
///
/// ```
/// use kqproc_exporter::check::Config;
/// use kqproc_exporter::input::{Attach, Batch, Input};
/// use kqproc_exporter::model::{MonoTime, Pid, TreeId, Verdict};
/// use kqproc_exporter::pipeline::Pipeline;
///
/// let mut pipeline = Pipeline::new(Config::default(), ());
/// pipeline.push(Input::Tree { id: TreeId(0), name: "shell" });
/// pipeline.push(Input::DtraceUp { at: MonoTime(0) });
/// let pid = Pid::new(100).expect("a pid");
/// let root = [Attach { tree: TreeId(0), pid, root: true, errno: 0, notes: Attach::USUAL_NOTES }];
/// for (seq, attached) in [(0, &root[..]), (1, &[])] {
///     let (capacity, at) = (Batch::capacity_of(seq), MonoTime(seq * 1_000_000_000));
///     let batch = Batch { seq, capacity, before: at, after: at, attached, events: &[] };
///     pipeline.push(Input::Batch(batch));
/// }
/// let bytes = b"B 1000 1\nM 2000 0 1500 1024 0 0\nC 500000000 0 101 100 100 0\n\
///     M 1000002000 0 1000001000 1025 0 0\nT 4000000000 1\n";
/// pipeline.push(Input::Stdout { at: MonoTime(4_000_000_000), bytes });
/// assert_eq!(pipeline.stats().trees[0].births[Verdict::LostSilent.index()], 1);
/// ```
pub struct Pipeline<O> {
    stdout: Records,
    stderr: Lines,
    stderr_at: MonoTime,
    checker: Checker,
    /// No input has come yet.
    fresh: bool,
    observer: O,
}

impl<O: Observer> Pipeline<O> {
    /// A pipeline without any input yet. `observer` gets every finding.
    pub fn new(config: Config, observer: O) -> Pipeline<O> {
        Pipeline {
            stdout: Records::default(),
            stderr: Lines::default(),
            stderr_at: MonoTime(0),
            checker: Checker::new(config),
            fresh: true,
            observer,
        }
    }

    /// Takes the next input.
    pub fn push(&mut self, input: Input<'_>) {
        let fresh = std::mem::take(&mut self.fresh);
        self.observer.input(&input);
        match input {
            // Later ones begin the further parts of a recording, and are the same.
            Input::Config(config) if fresh => self.checker = Checker::new(config),
            Input::Config(_) => {}
            Input::Consumer { id, pid } => self.checker.consumer(id, pid),
            Input::Tree { id, name } => self.checker.tree(id, name),
            Input::TreeGone { id } => self.checker.tree_gone(id),
            Input::Batch(batch) => self.checker.batch(&batch, &mut self.observer),
            Input::Stdout { at, bytes } => self.stdout(at, bytes),
            Input::Stderr { at, bytes } => self.stderr(at, bytes),
            Input::DtraceUp { .. } => self.checker.dtrace_up(),
            Input::DtraceDown { .. } => {
                self.cut_streams();
                self.checker.dtrace_down(&mut self.observer);
            }
            Input::BatchesLost { first, count, .. } => self.checker.batches_lost(first, count),
            Input::Forks { at, total } => self.checker.forks(at, total),
            Input::End => {
                self.cut_streams();
                self.checker.end(&mut self.observer);
            }
        }
        self.checker.publish();
        self.observer.counted(self.checker.stats());
    }

    fn stdout(&mut self, at: MonoTime, bytes: &[u8]) {
        let Pipeline { stdout, checker, observer, .. } = self;
        stdout.feed(bytes, |printed| match printed {
            Printed::Record(record) => {
                observer.record(&Ok(record));
                checker.record(record, at, observer);
            }
            Printed::Message(text) => stderr_line(checker, observer, at, text),
            Printed::Bad(reason) => {
                observer.record(&Err(reason));
                checker.bad_line(reason);
            }
        });
    }

    fn stderr(&mut self, at: MonoTime, bytes: &[u8]) {
        self.stderr_at = at;
        let Pipeline { stderr, checker, observer, .. } = self;
        stderr.feed(bytes, |line| match line {
            Line::Whole(text) => stderr_line(checker, observer, at, text),
            Line::TooLong => {
                observer.message(b"a line that was too long", Some(&StderrMessage::Unknown));
                checker.unknown_message(at);
            }
        });
    }

    /// dtrace has gone: a line that was not complete is cut short.
    fn cut_streams(&mut self) {
        if self.stdout.finish() {
            self.checker.bad_line(Reason::CutShort);
        }
        if self.stderr.finish() {
            self.checker.unknown_message(self.stderr_at);
        }
    }

    /// What has been counted so far.
    pub fn stats(&self) -> &Stats {
        self.checker.stats()
    }

    /// What observes the run.
    pub fn observer(&self) -> &O {
        &self.observer
    }

    /// What observes the run.
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }
}

/// A source can play straight into a pipeline.
impl<O: Observer> Sink for Pipeline<O> {
    fn push(&mut self, input: Input<'_>) -> ControlFlow<()> {
        Pipeline::push(self, input);
        ControlFlow::Continue(())
    }
}

/// A message of dtrace's, read at `at`.
fn stderr_line(checker: &mut Checker, observer: &mut impl Observer, at: MonoTime, text: &[u8]) {
    let message = message(text);
    observer.message(text, message.as_ref());
    match message {
        Some(StderrMessage::Drop { kind, count }) => checker.drops(kind, count, at),
        Some(StderrMessage::Unknown) => checker.unknown_message(at),
        // The supervisor ends the run of a dtrace that gives up; that is the blind window.
        Some(StderrMessage::Failure | StderrMessage::Notice(_)) | None => {}
    }
}
