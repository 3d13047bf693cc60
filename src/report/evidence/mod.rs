//! The evidence behind a finding as text: the one place that phrases what the witnesses reported. The way through the kernel
//! that fits it is in [`super::paths`].

pub(crate) mod dto;
pub mod event;

use crate::check::finding::{Delivered, DtraceEvidence, Finding, KqueueEvidence};
use crate::check::stats::Stats;
use crate::model::{Fact, KernelTime, Pid, Verdict};
use event::{TimelineEntry, TimelineEvent, kevent, kevent_of_a_child};

/// What the witnesses reported of the finding's incarnation, in a tree of this name; a kevent with two notes once.
fn events_of(finding: &Finding, tree: &str) -> impl Iterator<Item = TimelineEntry> {
    let DtraceEvidence { created, forker, exited, status } = finding.dtrace;
    let created = created.zip(forker).map(|(at, forker)| (at, TimelineEvent::Created { forker }));
    let exited = exited.zip(status).map(|(at, status)| (at, TimelineEvent::Exited { status }));
    let consumer = finding.consumer.map(|consumer| consumer_name(tree, consumer));
    let kevents = kevents(finding).map(move |Delivered { event, batch, at }| {
        let event = match consumer.clone() {
            Some(consumer) => TimelineEvent::Received { consumer, event },
            None => TimelineEvent::Kevent { batch, event },
        };
        (at, event)
    });
    let named = named_unannounced(finding).map(|at| (at, TimelineEvent::NamedForker));
    let events = created.into_iter().chain(exited).chain(kevents).chain(named);
    events.map(|(at, event)| TimelineEntry { at, event })
}

/// Its own kevents, one with two notes once.
fn kevents(finding: &Finding) -> impl Iterator<Item = Delivered> {
    let KqueueEvidence { child, exit, .. } = finding.kqueue;
    child.into_iter().chain(exit.filter(|exit| child != Some(*exit)))
}

/// When kqueue named it as a forker although it had not announced it.
fn named_unannounced(finding: &Finding) -> Option<KernelTime> {
    finding.clues.named_forker.filter(|_| finding.kqueue.child.is_none())
}

/// What DTrace reported, in short.
pub(crate) fn dtrace_summary(finding: &Finding) -> String {
    let dtrace = &finding.dtrace;
    let forked = dtrace.forker.map(|forker| format!("forked by {forker}"));
    let ended = dtrace.status.map(|status| format!("ended with {status}"));
    or_nothing(forked.into_iter().chain(ended).collect())
}

/// What kqueue reported, in short, in a tree of this name.
pub(crate) fn kqueue_summary(finding: &Finding, tree: &str) -> String {
    let pid = finding.pid;
    let notes = kevents(finding).map(|delivered| kevent(&delivered.event, pid));
    let trackerr = finding.kqueue.trackerr.then(|| "NOTE_TRACKERR on the forker".to_owned());
    let named = named_unannounced(finding).map(|_| kevent_of_a_child(pid));
    or_nothing(notes.chain(trackerr).chain(named).chain(not_received(finding, tree)).collect())
}

/// `nosh, pid 812,`: a consumer.
pub(in crate::report) fn consumer_name(tree: &str, consumer: Pid) -> String {
    format!("{tree}, pid {consumer},")
}

/// `nosh, pid 812, did not receive NOTE_EXIT of 6712`, if the finding is a loss and its tree, of this name, is a consumer.
fn not_received(finding: &Finding, tree: &str) -> Option<String> {
    let consumer = finding.consumer.filter(|_| finding.verdict.is_lost())?;
    let note = match finding.fact {
        Fact::Birth => "NOTE_CHILD",
        Fact::Death => "NOTE_EXIT",
    };
    let consumer = consumer_name(tree, consumer);
    Some(format!("{consumer} did not receive {note} of {}", finding.pid))
}

fn or_nothing(reports: Vec<String>) -> String {
    if reports.is_empty() { "nothing".to_owned() } else { reports.join("; ") }
}

/// The verdict in a heading.
pub fn judged(finding: &Finding) -> String {
    format!("{} {}", finding.fact, finding.verdict)
}

/// The verdict in a time line, and what a consumer did not receive, in a tree of this name.
pub(crate) fn judged_in_full(finding: &Finding, tree: &str) -> String {
    let not_received = not_received(finding, tree).map(|what| format!(": {what}"));
    judged(finding) + &not_received.unwrap_or_default()
}

/// When the fact happened, as well as it is known.
pub fn happened(finding: &Finding) -> KernelTime {
    finding.happened().unwrap_or(finding.decided)
}

/// The tree's name, empty in the moment before it is published.
pub(crate) fn tree_name<'a>(finding: &Finding, stats: &'a Stats) -> &'a str {
    stats.trees.get(usize::from(finding.tree.0)).map_or("", |tree| &tree.name)
}

/// Where the runbook speaks of this verdict, from the top level of an exporter.
pub fn runbook(verdict: Verdict) -> String {
    format!("runbook#verdict-{}", verdict.as_str().replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Clues;
    use crate::model::{Kevent, TreeId, WaitStatus, note};
    use dto::timeline;

    fn delivered(fflags: u32, data: i64, at: u64) -> Delivered {
        let event = Kevent { ident: 42, flags: note::EV_CLEAR, fflags, data, udata: 0 };
        Delivered { event, batch: 7, at: KernelTime(at) }
    }

    fn collision() -> Finding {
        let both = delivered(note::CHILD | note::EXIT, 32512, 30);
        Finding {
            tree: TreeId(0),
            pid: Pid::new(42).unwrap(),
            consumer: None,
            fact: Fact::Birth,
            verdict: Verdict::Overwritten,
            dtrace: DtraceEvidence {
                created: Some(KernelTime(10)),
                forker: Pid::new(41),
                exited: Some(KernelTime(20)),
                status: Some(WaitStatus(32512)),
            },
            kqueue: KqueueEvidence { child: Some(both), exit: Some(both), trackerr: false },
            clues: Clues::default(),
            decided: KernelTime(40),
        }
    }

    #[test]
    fn a_time_line_is_in_order_and_has_a_shared_kevent_once() {
        let lines = timeline(&collision(), "work");
        let texts: Vec<&str> = lines.iter().map(|row| row.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "create, forked by 41",
                "exit, exit 127 (wait status 32512)",
                "call 7 returned NOTE_CHILD|NOTE_EXIT, data 32512 (exit 127)",
                "birth overwritten",
            ]
        );
    }

    #[test]
    fn of_a_consumer_it_says_what_that_received_and_what_not() {
        let child = Some(delivered(note::CHILD, 41, 15));
        let lost = Finding {
            consumer: Pid::new(812),
            fact: Fact::Death,
            verdict: Verdict::LostSilent,
            kqueue: KqueueEvidence { child, ..KqueueEvidence::default() },
            ..collision()
        };
        let texts: Vec<String> = timeline(&lost, "nosh").into_iter().map(|row| row.text).collect();
        let missing = "nosh, pid 812, did not receive NOTE_EXIT of 42";
        let expected = [
            "create, forked by 41",
            "nosh, pid 812, received NOTE_CHILD, data 41",
            "exit, exit 127 (wait status 32512)",
            &format!("death lost_silent: {missing}"),
        ];
        assert_eq!(texts, expected);
        assert_eq!(kqueue_summary(&lost, "nosh"), format!("NOTE_CHILD, data 41; {missing}"));
        let agreed = Finding { verdict: Verdict::Agreed, ..lost };
        assert_eq!(kqueue_summary(&agreed, "nosh"), "NOTE_CHILD, data 41");
    }

    #[test]
    fn a_finding_without_evidence_still_has_a_time() {
        let mut finding = collision();
        finding.dtrace = DtraceEvidence::default();
        assert_eq!(happened(&finding), KernelTime(30));
        finding.kqueue = KqueueEvidence::default();
        assert_eq!(happened(&finding), KernelTime(40));
        assert_eq!(timeline(&finding, "work").len(), 1);
    }
}
