//! A recording as two streams, dtrace's lines and the reader's calls, which a test changes and plays in any order.

use std::ops::ControlFlow;

use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::input::{Attach, Batch, Input};
use kqproc_exporter::model::{Kevent, MonoTime, TreeId};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::source::replay::Replay;

use super::recording;

/// One kevent(2) call.
#[derive(Clone, Debug)]
pub struct Call {
    pub seq: u64,
    pub before: MonoTime,
    pub after: MonoTime,
    pub attached: Vec<Attach>,
    pub events: Vec<Kevent>,
}

/// What dtrace printed and what kevent(2) returned, each in its own order.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    pub stderr: Vec<u8>,
    pub lines: Vec<String>,
    pub calls: Vec<Call>,
    /// The checker's configuration.
    pub config: Config,
}

impl Streams {
    /// The streams of one of the project's recordings.
    pub fn of(name: &str) -> Streams {
        let mut streams = Streams::default();
        let mut stdout = Vec::new();
        let replay = Replay::open(&recording(name)).expect("a recording");
        replay
            .play(&mut |input: Input<'_>| {
                match input {
                    Input::Stdout { bytes, .. } => stdout.extend_from_slice(bytes),
                    Input::Stderr { bytes, .. } => streams.stderr.extend_from_slice(bytes),
                    Input::Batch(b) => streams.calls.push(Call {
                        seq: b.seq,
                        before: b.before,
                        after: b.after,
                        attached: b.attached.to_vec(),
                        events: b.events.to_vec(),
                    }),
                    _ => {}
                }
                ControlFlow::Continue(())
            })
            .expect("an undamaged recording");
        let stdout = String::from_utf8(stdout).expect("text");
        streams.lines = stdout.lines().map(str::to_owned).collect();
        streams
    }

    /// Plays the two streams. `order` says which is next (`true`: a line of stdout) until one of them ends; then the rest
    /// of the other follows. The law of conservation is checked after every input.
    pub fn play(&self, order: impl IntoIterator<Item = bool>) -> Stats {
        let mut pipeline = Pipeline::new(self.config, ());
        let mut push = |input: Input<'_>| {
            pipeline.push(input);
            pipeline.stats().assert_conserved();
        };
        push(Input::Tree { id: TreeId(0), name: "default" });
        push(Input::Stderr { at: MonoTime(0), bytes: &self.stderr });
        let (mut lines, mut calls) = (self.lines.iter(), self.calls.iter());
        let mut order = order.into_iter();
        loop {
            let turn = order.next().unwrap_or(lines.len() > 0);
            if turn && let Some(line) = lines.next() {
                push(Input::Stdout { at: MonoTime(0), bytes: format!("{line}\n").as_bytes() });
            } else if let Some(call) = calls.next() {
                push(Input::Batch(call.as_batch()));
            } else if lines.len() == 0 {
                break;
            }
        }
        push(Input::End);
        let stats = pipeline.stats().clone();
        assert!(stats.trees.iter().all(|t| t.pending() == 0), "undecided at the end");
        stats
    }

    /// Plays both in the order of their times, as a reader without delays would.
    pub fn play_in_time(&self) -> Stats {
        self.play(self.order_with_lag(|_| 0))
    }

    /// The order of reading if item number `i` is read `lag(i)` nanoseconds after it happened.
    pub fn order_with_lag(&self, lag: impl Fn(usize) -> u64) -> Vec<bool> {
        let offset = self.offset();
        let mut reads: Vec<(u64, bool)> = Vec::new();
        let mut latest = 0;
        for (i, line) in self.lines.iter().enumerate() {
            let at = line.split(' ').nth(1).and_then(|f| f.parse::<u64>().ok()).unwrap_or(latest);
            latest = latest.max(at + lag(i));
            reads.push((latest, true));
        }
        latest = 0;
        for (i, call) in self.calls.iter().enumerate() {
            latest = latest.max(call.after.0.saturating_add_signed(offset) + lag(i + 7));
            reads.push((latest, false));
        }
        reads.sort_by_key(|(at, _)| *at);
        reads.into_iter().map(|(_, line)| line).collect()
    }

    /// DTrace's clock minus the reader's, in nanoseconds, by the first mark.
    fn offset(&self) -> i64 {
        let mark = self.lines.iter().find(|l| l.starts_with("M ")).expect("a mark");
        let field = |n: usize| mark.split(' ').nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap();
        let call = self
            .calls
            .iter()
            .find(|c| u64::from(Batch::capacity_of(c.seq)) == field(4))
            .expect("its call");
        field(1) as i64 - call.after.0 as i64
    }
}

impl Call {
    pub fn as_batch(&self) -> Batch<'_> {
        Batch {
            seq: self.seq,
            capacity: Batch::capacity_of(self.seq),
            before: self.before,
            after: self.after,
            attached: &self.attached,
            events: &self.events,
        }
    }
}
