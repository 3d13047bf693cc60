//! What stands behind a finding: its time line, and where to read on. The kernel's path to it is in [`super::paths`].

use crate::check::finding::{Delivered, Finding};
use crate::model::{Fact, KernelTime, Verdict, WaitStatus, Witness, note};

/// One moment in an incarnation's time line.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Moment {
    /// When, on DTrace's clock, in nanoseconds.
    pub at: KernelTime,
    /// Who says so; the exporter itself where `None`.
    pub witness: Option<Witness>,
    /// What was said.
    pub said: String,
}

/// Everything that was said about the finding's incarnation, in order.
pub fn timeline(finding: &Finding) -> Vec<Moment> {
    let (dtrace, kqueue) = (&finding.dtrace, &finding.kqueue);
    let mut moments = Vec::new();
    let mut add = |at, witness, said| moments.push(Moment { at, witness, said });
    if let Some(at) = dtrace.created {
        let by = dtrace.forker.map(|pid| format!(", forked by {pid}")).unwrap_or_default();
        add(at, Some(Witness::Dtrace), format!("proc:::create{by}"));
    }
    if let Some(at) = dtrace.exited {
        let how = dtrace.status.map(|status| format!(", {status}")).unwrap_or_default();
        add(at, Some(Witness::Dtrace), format!("proc:::exit{how}"));
    }
    let exit = kqueue.exit.filter(|exit| kqueue.child != Some(*exit));
    for delivered in kqueue.child.iter().chain(&exit) {
        let said = format!("kevent(2) call {}: {}", delivered.batch, told(delivered));
        add(delivered.at, Some(Witness::Kqueue), said);
    }
    let fact = fact(finding.fact);
    add(finding.decided, None, format!("verdict on the {fact}: {}", finding.verdict));
    moments.sort_by_key(|moment| moment.at);
    moments
}

/// The word for a fact.
pub fn fact(fact: Fact) -> &'static str {
    match fact {
        Fact::Birth => "birth",
        Fact::Death => "death",
    }
}

/// When the fact happened, as well as it is known.
pub fn happened(finding: &Finding) -> KernelTime {
    let (dtrace, kqueue) = (&finding.dtrace, &finding.kqueue);
    match finding.fact {
        Fact::Birth => dtrace.created.or(kqueue.child.map(|c| c.at)),
        Fact::Death => dtrace.exited.or(kqueue.exit.map(|e| e.at)),
    }
    .unwrap_or(finding.decided)
}

/// A kevent in words: notes by name, and data as what it can be.
pub fn told(delivered: &Delivered) -> String {
    let event = &delivered.event;
    let notes = note::names(event.fflags);
    let status = match u32::try_from(event.data) {
        Ok(data) if event.fflags & note::EXIT != 0 => format!(" ({})", WaitStatus(data)),
        _ => String::new(),
    };
    format!("{notes}, data {}{status}", event.data)
}

/// The section of docs/runbook.md about a verdict.
pub fn runbook_anchor(verdict: Verdict) -> String {
    format!("verdict-{}", verdict.as_str().replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::{DtraceSaid, KqueueSaid};
    use crate::model::{Kevent, Pid, TreeId};

    fn delivered(fflags: u32, data: i64, at: u64) -> Delivered {
        let event = Kevent { ident: 42, flags: note::EV_CLEAR, fflags, data, udata: 0 };
        Delivered { event, batch: 7, at: KernelTime(at) }
    }

    fn collision() -> Finding {
        let both = delivered(note::CHILD | note::EXIT, 32512, 30);
        Finding {
            tree: TreeId(0),
            pid: Pid::new(42).unwrap(),
            fact: Fact::Birth,
            verdict: Verdict::Overwritten,
            dtrace: DtraceSaid {
                created: Some(KernelTime(10)),
                forker: Pid::new(41),
                exited: Some(KernelTime(20)),
                status: Some(WaitStatus(32512)),
            },
            kqueue: KqueueSaid { child: Some(both), exit: Some(both), trackerr: false },
            clues: Default::default(),
            decided: KernelTime(40),
        }
    }

    #[test]
    fn a_time_line_is_in_order_and_tells_a_shared_kevent_once() {
        let lines = timeline(&collision());
        let said: Vec<&str> = lines.iter().map(|moment| moment.said.as_str()).collect();
        assert_eq!(
            said,
            [
                "proc:::create, forked by 41",
                "proc:::exit, exit 127",
                "kevent(2) call 7: NOTE_CHILD|NOTE_EXIT, data 32512 (exit 127)",
                "verdict on the birth: overwritten",
            ]
        );
    }

    #[test]
    fn a_finding_without_evidence_still_has_a_time() {
        let mut finding = collision();
        finding.dtrace = DtraceSaid::default();
        assert_eq!(happened(&finding), KernelTime(30));
        finding.kqueue = KqueueSaid::default();
        assert_eq!(happened(&finding), KernelTime(40));
        assert_eq!(timeline(&finding).len(), 1);
    }

    #[test]
    fn every_verdict_has_its_section_in_the_runbook() {
        let runbook = include_str!("../../docs/runbook.md");
        for verdict in Verdict::ALL.iter().filter(|v| **v != Verdict::Agreed) {
            let heading = format!("\n## Verdict {}\n", verdict.as_str().replace('_', " "));
            assert!(runbook.contains(&heading), "{heading}");
        }
    }
}
