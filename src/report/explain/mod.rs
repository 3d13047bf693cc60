//! The lives of one pid: what both witnesses reported, when, the verdicts, and the kernel path behind them.

pub mod collect;
pub mod life;
mod list;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::evidence::dto::TimelineRow;
use super::evidence::event::{TimelineEntry, TimelineEvent};
use super::format::{Hue, Paint, count_of, printable};
use super::kernel::KernelVersion;
use super::paths::{DUPLICATE_CHILD, path};
use crate::check::finding::Finding;
use crate::check::judge::UNORDERED_NS;
use crate::model::{KernelTime, Pid, Regime, note};
use collect::Collector;
use life::{Duplicates, Judged, ProcessLife};

/// All that is known of one pid.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Explanation {
    pub pid: Pid,
    pub source: String,
    pub kernel: KernelVersion,
    /// What its kevents have shown of it.
    pub regime: Regime,
    /// Its lives, oldest first.
    pub lives: Vec<ProcessLife>,
    /// Entries that found no room.
    pub(crate) left_out: u64,
}

impl Explanation {
    /// Puts together what was collected. There is no life if neither witness reported this pid.
    pub(crate) fn of(
        pid: Pid,
        collected: &Collector,
        regime: Regime,
        kernel: KernelVersion,
        source: String,
    ) -> Explanation {
        let mut lives = lives(collected);
        for entry in &collected.entries {
            if let Some(life) = owner(&lives, entry) {
                lives[life].entries.push(entry.clone());
            }
        }
        lives.retain(|life| {
            life.entries.iter().any(|entry| !matches!(entry.event, TimelineEvent::Gap(_)))
        });
        let lives = lives.into_iter().map(|life| life.finish(pid, collected, regime)).collect();
        Explanation { pid, source, kernel, regime, lives, left_out: collected.left_out }
    }

    /// For a person: the time line of each life, and under it why it went as it did.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}\n{}, regime {}",
            paint.dye(Hue::Title, &format!("pid {} in {}", self.pid, printable(&self.source))),
            printable(&self.kernel.uname),
            self.regime
        );
        for (i, life) in self.lives.iter().enumerate() {
            let tree = life.tree.as_deref().map(printable);
            let tree = tree.map_or("not in a watched tree".to_owned(), |t| format!("tree {t}"));
            let title = format!("life {} of {}, {tree}", i + 1, self.lives.len());
            let _ = writeln!(out, "\n{}", paint.dye(Hue::Title, &title));
            life.text(&mut out, paint);
        }
        if self.left_out > 0 {
            let _ = writeln!(out, "\n{} left out", count_of(self.left_out, "further event"));
        }
        out
    }
}

/// A life while it is put together.
#[derive(Default)]
struct Draft {
    /// When its entries begin.
    since: Option<KernelTime>,
    findings: Vec<Finding>,
    entries: Vec<TimelineEntry>,
}

/// One for each create and for each finding without one, and one for what came before the first.
fn lives(collected: &Collector) -> Vec<Draft> {
    let mut lives: Vec<Draft> = vec![Draft::default()];
    let created = |entry: &TimelineEntry| {
        matches!(entry.event, TimelineEvent::Created { .. }).then_some(entry.at)
    };
    let mut starts: Vec<KernelTime> = collected.entries.iter().filter_map(created).collect();
    starts.extend(
        collected
            .findings
            .iter()
            .filter(|f| f.dtrace.created.is_none())
            .filter_map(|f| f.kqueue.child.map(|child| child.at)),
    );
    starts.sort();
    starts.dedup();
    lives.extend(starts.into_iter().map(|at| Draft { since: Some(at), ..Draft::default() }));
    for finding in &collected.findings {
        let start = finding.dtrace.created.or(finding.kqueue.child.map(|child| child.at));
        let life = lives.iter().position(|life| life.since == start).unwrap_or(0);
        lives[life].findings.push(*finding);
    }
    lives
}

/// The life that an entry belongs to: for kevents of a finding its own, else the one at that time.
fn owner(lives: &[Draft], entry: &TimelineEntry) -> Option<usize> {
    let in_time = || lives.iter().rposition(|life| life.since.is_none_or(|at| at <= entry.at));
    match &entry.event {
        TimelineEvent::Kevent { batch, event } => {
            let says = |life: &Draft| {
                let notes = life.findings.iter().flat_map(|f| [f.kqueue.child, f.kqueue.exit]);
                notes.flatten().any(|note| note.batch == *batch && note.event.data == event.data)
            };
            lives.iter().position(says).or_else(in_time)
        }
        // Within knote_fork, a little before proc:::create: of the life that begins then.
        TimelineEvent::NotRegistered { .. } | TimelineEvent::Skipped => {
            let begins = |life: &Draft| {
                let soon =
                    |since: KernelTime| entry.at <= since && since.since(entry.at) <= UNORDERED_NS;
                life.since.is_some_and(soon)
            };
            lives.iter().position(begins).or_else(in_time)
        }
        _ => in_time(),
    }
}

impl Draft {
    fn finish(mut self, pid: Pid, collected: &Collector, regime: Regime) -> ProcessLife {
        self.findings.sort_by_key(|f| f.decided);
        // What was known at either verdict on an incarnation is known at both.
        if let [birth, death] = &mut self.findings[..] {
            birth.share(death);
        }
        let lost = self.findings.iter().any(|f| f.verdict.is_lost());
        let mut timeline: Vec<TimelineRow> = self
            .entries
            .iter()
            .filter(|entry| {
                lost || !matches!(
                    entry.event,
                    TimelineEvent::Scan { .. } | TimelineEvent::Drained { .. }
                )
            })
            .map(|entry| TimelineRow::of(entry, pid))
            .collect();
        timeline.extend(self.findings.iter().map(|finding| {
            let tree = collected.tree_name(finding.tree).unwrap_or_default();
            TimelineRow::of_verdict(finding, tree)
        }));
        timeline.sort_by_key(|row| row.at);
        let count = self.duplicates(pid);
        let judge = |f: &Finding| Judged {
            fact: f.fact.as_str().into(),
            verdict: f.verdict.as_str().into(),
            path: path(f, regime).into(),
        };
        let tree = self.findings.first().map(|f| {
            let name = collected.tree_name(f.tree).map(str::to_owned);
            name.unwrap_or_else(|| format!("tree{}", f.tree.0))
        });
        ProcessLife {
            tree,
            since: self.since,
            timeline: without_repeats(timeline),
            judged: self.findings.iter().map(judge).collect(),
            duplicates: (count > 0).then_some(Duplicates { count, path: DUPLICATE_CHILD.into() }),
        }
    }

    /// How often it was announced to the mirror, and to each consumer, beyond the first time.
    fn duplicates<'a>(&'a self, pid: Pid) -> u64 {
        let announced_to = |entry: &'a TimelineEntry| {
            let (tracker, event) = match &entry.event {
                TimelineEvent::Kevent { event, .. } => (None, event),
                TimelineEvent::Received { consumer, event } => (Some(consumer.as_str()), event),
                _ => return None,
            };
            let announces = event.ident == u64::from(pid.get()) && event.fflags & note::CHILD != 0;
            announces.then_some(tracker)
        };
        let all: Vec<Option<&str>> = self.entries.iter().filter_map(announced_to).collect();
        let trackers: BTreeSet<&Option<&str>> = all.iter().collect();
        (all.len() - trackers.len()) as u64
    }
}

/// Rows that repeat the one before are counted there.
fn without_repeats(rows: Vec<TimelineRow>) -> Vec<TimelineRow> {
    let mut out: Vec<TimelineRow> = vec![];
    for row in rows {
        match out.last_mut() {
            Some(last) if (last.at, &last.text) == (row.at, &row.text) => last.times += 1,
            _ => out.push(row),
        }
    }
    out
}

#[cfg(test)]
mod tests;
