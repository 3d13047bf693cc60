//! Clues: what a finding knows of the cause of a loss, on runs that are written by hand.

use kqproc_exporter::check::Config;
use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::input::Attach;
use kqproc_exporter::model::{Fact, KernelTime, Kevent, TreeId, Verdict, note};
use kqproc_exporter::wire::record::Record;

use super::by_hand::{ByHand, MS, ROOT, pid, root};

fn at(ms: u64) -> KernelTime {
    KernelTime(ms * MS)
}

/// A tree is watched from 3 ms on. Times are in milliseconds.
struct Host(ByHand);

impl Host {
    fn new() -> Host {
        let mut host = ByHand::new(Config::default());
        host.tick(MS);
        host.tick(2 * MS);
        host.call(3 * MS, 4 * MS, &[root(TreeId(0), ROOT, Attach::USUAL_NOTES)], &[]);
        Host(host)
    }

    fn call(&mut self, from: u64, to: u64, events: &[Kevent]) {
        self.0.call(from * MS, to * MS, &[], events);
    }

    /// The verdicts on this process.
    fn on(mut self, number: u32) -> Vec<Finding> {
        self.call(5000, 5001, &[]);
        self.0.tick(6000 * MS);
        let ByHand { mut checker, mut findings, .. } = self.0;
        checker.end(&mut findings);
        findings.retain(|finding| finding.pid == pid(number));
        findings
    }
}

#[test]
fn what_came_after_the_verdict_on_a_birth_is_known_at_that_on_the_death_and_shared() {
    let mut host = Host::new();
    host.0.create(60 * MS, 101, ROOT);
    host.call(111, 112, &[]);
    host.0.create(115 * MS, 102, 101);
    let named = Kevent { ident: 102, flags: 0x10, fflags: note::CHILD, data: 101, udata: 0 };
    host.call(120, 121, &[named]);
    host.0.exit(130 * MS, 101);
    host.call(125, 140, &[]);
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
    host.0.create(60 * MS, 102, 101);
    host.0.create(61 * MS, 101, ROOT);
    let named = Kevent { ident: 102, flags: 0x20, fflags: note::CHILD, data: 101, udata: 0 };
    host.call(62, 63, &[named]);
    host.call(120, 121, &[]);
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
            causes.iter().for_each(|cause| host.0.record(*cause));
            host.0.create(200 * MS, 101, ROOT);
            host.call(300, 301, &[]);
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
