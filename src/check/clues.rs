//! Evidence about the cause of a loss: calls that were scanning the queue when the process ended, and children that
//! named it as their forker. It changes no verdict; `report/paths.rs` chooses the way through the kernel by it.

use std::collections::VecDeque;

use super::finding::{Clues, DtraceEvidence};
use super::judge::UNORDERED_NS;
use super::latest::keep_latest;
use crate::model::{KernelTime, Pid};

/// How many kevent(2) calls are remembered: more than a busy reader makes in the settle time.
const CALLS: usize = 1 << 14;
/// How many unannounced forkers are remembered.
const NAMED: usize = 1 << 10;

pub(crate) struct RecentContext {
    /// When the latest calls began and returned.
    calls: VecDeque<(KernelTime, KernelTime)>,
    named: VecDeque<UnannouncedForker>,
}

/// NOTE_CHILD named a process as the forker that had not been announced itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnannouncedForker {
    pub(crate) forker: Pid,
    /// When the child was created.
    pub(crate) forked: KernelTime,
    /// When the note came.
    pub(crate) at: KernelTime,
}

impl Default for RecentContext {
    /// With room from the start for what comes with every call and every birth.
    fn default() -> RecentContext {
        let (calls, named) = (VecDeque::with_capacity(CALLS), VecDeque::with_capacity(NAMED));
        RecentContext { calls, named }
    }
}

impl RecentContext {
    /// A kevent(2) call of the reader has returned.
    pub(crate) fn call(&mut self, entered: KernelTime, returned: KernelTime) {
        keep_latest(&mut self.calls, CALLS, (entered, returned));
    }

    pub(crate) fn named(&mut self, named: UnannouncedForker) {
        keep_latest(&mut self.named, NAMED, named);
    }

    /// Adds to `clues` what is known of this process.
    pub(crate) fn about(&self, pid: Pid, dtrace: &DtraceEvidence, clues: &mut Clues) {
        // It forked that child in this life.
        let as_forker = |named: &&UnannouncedForker| {
            named.forker == pid
                && dtrace.created.is_none_or(|t| named.forked.plus(UNORDERED_NS) >= t)
                && dtrace.exited.is_none_or(|t| named.forked <= t)
        };
        clues.named_forker = self.named.iter().find(as_forker).map(|named| named.at);
        clues.scanned_at_exit = dtrace.exited.is_some_and(|exited| self.in_a_call(exited));
    }

    fn in_a_call(&self, at: KernelTime) -> bool {
        let next = self.calls.partition_point(|(_, returned)| *returned <= at);
        self.calls.get(next).is_some_and(|(entered, _)| *entered <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Finding;
    use super::super::{Checker, Config};
    use crate::input::{Attach, Batch};
    use crate::model::{
        Fact, KernelTime, Kevent, MonoTime, Pid, TreeId, Verdict, WaitStatus, note,
    };
    use crate::wire::record::{Mark, Record};

    const MS: u64 = 1_000_000;
    const ROOT: u64 = 50;

    fn pid(number: u64) -> Pid {
        Pid::new(number).expect("a pid")
    }

    fn at(ms: u64) -> KernelTime {
        KernelTime(ms * MS)
    }

    fn created(ms: u64, child: u64, forker: u64) -> Record {
        let (child, forker) = (pid(child), pid(forker));
        Record::Create { at: at(ms), child, forker, parent: forker, flags: 0x14 }
    }

    /// A host whose two clocks are one: records, and calls from one time to another with what they returned.
    struct Host(Checker, u64, Vec<Finding>);

    impl Host {
        fn new() -> Host {
            let mut host = Host(Checker::new(Config::default()), 0, vec![]);
            host.record(Record::Tick { at: at(1), wall: 0 });
            host.record(Record::Tick { at: at(2), wall: 0 });
            let root = Attach {
                tree: TreeId(0),
                pid: pid(ROOT),
                root: true,
                errno: 0,
                notes: Attach::USUAL_NOTES,
            };
            host.call((3, 4), &[root], &[]);
            host
        }

        fn record(&mut self, record: Record) {
            self.0.record(record, MonoTime(record.at().0), &mut self.2);
        }

        fn call(&mut self, (from, to): (u64, u64), attached: &[Attach], events: &[Kevent]) {
            let (seq, capacity) = (self.1, Batch::capacity_of(self.1));
            self.1 += 1;
            let (before, after) = (MonoTime(from * MS), MonoTime(to * MS));
            let batch = Batch { seq, capacity, before, after, attached, events };
            self.0.batch(&batch, &mut self.2);
            let returned = events.len() as i32;
            self.record(Record::Mark(Mark {
                at: at(to),
                entered: at(from),
                capacity,
                seq: None,
                returned: Some(returned),
            }));
        }

        /// The verdicts on this process.
        fn on(mut self, number: u64) -> Vec<Finding> {
            self.call((5000, 5001), &[], &[]);
            self.record(Record::Tick { at: at(6000), wall: 0 });
            self.0.end(&mut self.2);
            self.2.retain(|finding| finding.pid == pid(number));
            self.2
        }
    }

    #[test]
    fn what_came_after_the_verdict_on_a_birth_is_known_at_that_on_the_death_and_shared() {
        let mut host = Host::new();
        host.record(created(60, 101, ROOT));
        host.call((111, 112), &[], &[]);
        host.record(created(115, 102, 101));
        let named = Kevent { ident: 102, flags: 0x10, fflags: note::CHILD, data: 101, udata: 0 };
        host.call((120, 121), &[], &[named]);
        host.record(Record::Exit {
            at: at(130),
            pid: pid(101),
            parent: pid(ROOT),
            status: WaitStatus(0),
        });
        host.call((125, 140), &[], &[]);
        let [mut birth, mut death] = host.on(101)[..] else { panic!("two facts") };
        assert_eq!((birth.verdict, death.verdict), (Verdict::LostSilent, Verdict::LostSilent));
        assert_eq!((birth.fact, birth.clues.named_forker), (Fact::Birth, None));
        assert_eq!(death.clues.named_forker, Some(at(121)));
        assert!(death.clues.scanned_at_exit);
        birth.share(&mut death);
        assert_eq!(birth.clues, death.clues);
    }

    #[test]
    fn a_forker_whose_own_create_comes_later_is_named_too() {
        let mut host = Host::new();
        host.record(created(60, 102, 101));
        host.record(created(61, 101, ROOT));
        let named = Kevent { ident: 102, flags: 0x20, fflags: note::CHILD, data: 101, udata: 0 };
        host.call((62, 63), &[], &[named]);
        host.call((120, 121), &[], &[]);
        let birth = host.on(101)[0];
        assert_eq!((birth.fact, birth.verdict), (Fact::Birth, Verdict::LostSilent));
        assert_eq!(birth.clues.named_forker, Some(at(63)));
    }

    #[test]
    fn a_cause_is_of_the_fork_that_it_was_seen_in() {
        for (forker, before, known) in [(ROOT, 1, true), (ROOT, 90, false), (ROOT + 1, 1, false)] {
            let (child, seen) = (pid(101), at(200 - before));
            let failed = Record::RegFail { at: seen, forker: pid(forker), child, errno: 12 };
            let passed_over = Record::Influx { at: seen, forker: pid(forker), child };
            let clues_of = |causes: &[Record]| {
                let mut host = Host::new();
                causes.iter().for_each(|cause| host.record(*cause));
                host.record(created(200, 101, ROOT));
                host.call((300, 301), &[], &[]);
                let clues = host.on(101)[0].clues;
                assert!(!clues.scanned_at_exit);
                (clues.errno, clues.influx)
            };
            assert_eq!(clues_of(&[passed_over]), (None, known), "{before}");
            for both in [[failed, passed_over], [passed_over, failed]] {
                assert_eq!(clues_of(&both), (known.then_some(12), false), "{before}");
            }
        }
    }
}
