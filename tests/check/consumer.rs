//! Consumers: the user's own trackers, seen by DTrace alone. Real runs, every way of dropping, repeating and cutting their
//! records, and what registrations make a fact.

use std::io::Read;
use std::ops::ControlFlow;

use crate::common::{fixture, recording};
use flate2::read::GzDecoder;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::check::stats::{Order, Refusal, Stats};
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Fact, MonoTime, Pid, TreeId, Verdict, VerdictClass};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::source::replay::Replay;

/// A run of one consumer: the lines of dtrace's stdout.
#[derive(Clone)]
struct Run {
    pid: Pid,
    lines: Vec<String>,
}

fn run(name: &str) -> Run {
    let dir = fixture("consumer").join(name);
    let pid = std::fs::read_to_string(dir.join("pid.txt")).expect("the consumer's pid");
    let mut text = String::new();
    match std::fs::File::open(dir.join("dtrace.txt.gz")) {
        Ok(packed) => GzDecoder::new(packed).read_to_string(&mut text),
        Err(_) => std::fs::File::open(dir.join("dtrace.txt"))
            .expect("dtrace's output")
            .read_to_string(&mut text),
    }
    .expect("text");
    let pid = Pid::new(pid.trim().parse().expect("a number")).expect("a pid");
    Run { pid, lines: text.lines().map(str::to_owned).collect() }
}

impl Run {
    /// What is found; the law of conservation holds after each line.
    fn play(&self) -> (Stats, Vec<Finding>) {
        let mut pipeline = Pipeline::new(Config::default(), Vec::new());
        pipeline.push(Input::Tree { id: TreeId(0), name: "supervisor" });
        pipeline.push(Input::Consumer { id: TreeId(0), pid: Some(self.pid) });
        for line in &self.lines {
            if let Some(pid) = line.strip_prefix("consumer ") {
                let pid = Pid::new(pid.parse().expect("a number"));
                pipeline.push(Input::Consumer { id: TreeId(0), pid });
                continue;
            }
            let bytes = format!("{line}\n");
            pipeline.push(Input::Stdout { at: MonoTime(0), bytes: bytes.as_bytes() });
            pipeline.stats().assert_conserved();
        }
        pipeline.push(Input::End);
        assert_eq!(pipeline.stats().trees[0].pending(), 0);
        (pipeline.stats().clone(), std::mem::take(pipeline.observer_mut()))
    }

    fn stats(&self) -> Stats {
        self.play().0
    }

    /// The same without its `n`th line that begins with this letter.
    fn without(&self, letter: &str, n: usize) -> Option<Run> {
        let mut lines = self.lines.iter().enumerate();
        let (at, _) = lines.by_ref().filter(|(_, line)| line.starts_with(letter)).nth(n)?;
        let mut run = self.clone();
        run.lines.remove(at);
        Some(run)
    }
}

/// The verdicts on this fact, without the zeros.
fn verdicts(stats: &Stats, fact: Fact) -> Vec<(Verdict, u64)> {
    let by = stats.trees[0].of(fact);
    Verdict::ALL.iter().map(|v| (*v, by[v.index()])).filter(|(_, n)| *n > 0).collect()
}

/// How many facts have a verdict of this class.
fn count(stats: &Stats, class: VerdictClass) -> u64 {
    let both = [Fact::Birth, Fact::Death].map(|fact| verdicts(stats, fact));
    both.into_iter().flatten().filter(|(v, _)| v.class() == class).map(|(_, n)| n).sum()
}

/// The figures of an independent check.
#[test]
fn real_runs_have_the_verdicts_of_an_independent_check() {
    use Verdict::{Agreed, Overwritten};
    for (name, births, deaths, repeated) in [
        ("merged-attached-enoent", vec![(Agreed, 144), (Overwritten, 56)], 201, 0),
        ("merged-attached-chain-stall", vec![(Agreed, 55), (Overwritten, 65)], 121, 0),
        ("merged-attached-parallel-stall", vec![(Agreed, 24), (Overwritten, 176)], 201, 0),
        ("merged-exit-only", vec![], 270, 0),
        ("split-attached-enoent", vec![(Agreed, 200)], 201, 0),
        ("split-attached-chain-stall", vec![(Agreed, 120)], 121, 797),
        ("split-attached-parallel-stall", vec![(Agreed, 200)], 201, 0),
        ("split-exit-only", vec![], 270, 0),
        ("split15-attached-enoent", vec![(Agreed, 200)], 201, 0),
        ("split15-attached-chain-stall", vec![(Agreed, 120)], 121, 833),
        ("split15-attached-parallel-stall", vec![(Agreed, 200)], 201, 0),
        ("split15-exit-only", vec![], 270, 0),
    ] {
        let stats = run(name).stats();
        let tree = &stats.trees[0];
        assert_eq!(verdicts(&stats, Fact::Birth), births, "{name}");
        assert_eq!(verdicts(&stats, Fact::Death), [(Agreed, deaths)], "{name}");
        assert_eq!(tree.duplicate_child_notes, repeated, "{name}");
        let refused = if births.is_empty() { 30 } else { 0 };
        assert_eq!(tree.refused_registrations(), refused, "{name}");
        assert_eq!(tree.order_violations, [0; Order::COUNT], "{name}");
        assert_eq!((tree.tracked, stats.blind_seconds()), (0, 0.0), "{name}");
    }
}

/// What is found in the recording of a consumer on 15.1 that was never told of two of 10,833 exits, as it found out itself.
/// `more` comes behind dtrace's first output.
fn lost_exits(more: Option<Input<'static>>) -> (Stats, Vec<Finding>) {
    let mut pipeline = Pipeline::new(Config::default(), Vec::new());
    let replay = Replay::open(&recording("consumer-15.1-lost-exit")).expect("a recording");
    let mut more = more;
    let played = replay.play(&mut |input: Input<'_>| {
        pipeline.push(input);
        if matches!(input, Input::Stdout { .. })
            && let Some(input) = more.take()
        {
            pipeline.push(input);
        }
        ControlFlow::Continue(())
    });
    played.expect("an undamaged recording");
    (pipeline.stats().clone(), std::mem::take(pipeline.observer_mut()))
}

#[test]
fn the_exits_that_a_consumer_was_never_told_of_are_named() {
    let (stats, findings) = lost_exits(None);
    let lost = findings.iter().filter(|finding| finding.verdict.is_lost());
    let lost: Vec<_> = lost.map(|f| (f.pid.get(), f.fact, f.verdict)).collect();
    let death = |pid| (pid, Fact::Death, Verdict::LostSilent);
    assert_eq!(lost, [death(6712), death(8541)]);
    assert_eq!(verdicts(&stats, Fact::Birth), [(Verdict::Agreed, 10_832)]);
    let deaths = [(Verdict::Agreed, 10_831), (Verdict::LostSilent, 2)];
    assert_eq!(verdicts(&stats, Fact::Death), deaths);
    assert_eq!(stats.trees[0].duplicate_child_notes, 3575);
}

/// They may have been events of the consumer.
#[test]
fn nothing_is_lost_where_dtrace_dropped_records_at_an_unknown_time() {
    let bytes = b"dtrace: 7 drops on CPU 0\n";
    let (stats, _) = lost_exits(Some(Input::Stderr { at: MonoTime(0), bytes }));
    assert_eq!(count(&stats, VerdictClass::Lost), 0);
    assert!(count(&stats, VerdictClass::Open) > 0 && stats.blind_seconds() > 0.0);
}

#[test]
fn a_missing_record_accuses_nobody() {
    for name in ["split15-attached-chain-stall", "merged-attached-chain-stall", "split-exit-only"] {
        let whole = run(name);
        let wrong = count(&whole.stats(), VerdictClass::Wrong);
        for letter in ["N ", "M ", "A ", "a ", "X ", "T "] {
            for n in (0..300).step_by(31) {
                let Some(cut) = whole.without(letter, n) else { break };
                let stats = cut.stats();
                assert_eq!(count(&stats, VerdictClass::Lost), 0, "{name}: {letter}{n}");
                assert!(count(&stats, VerdictClass::Wrong) <= wrong, "{name}: {letter}{n}");
            }
        }
    }
}

#[test]
fn what_is_printed_twice_happened_once() {
    for name in ["split15-attached-chain-stall", "merged-attached-chain-stall", "split-exit-only"] {
        let whole = run(name);
        let expected = whole.stats();
        for n in (0..whole.lines.len()).step_by(71) {
            let mut twice = whole.clone();
            twice.lines.insert(n, whole.lines[n].clone());
            let stats = twice.stats();
            for fact in [Fact::Birth, Fact::Death] {
                let found = verdicts(&stats, fact);
                assert_eq!(found, verdicts(&expected, fact), "{name}: {}", whole.lines[n]);
            }
        }
    }
}

/// The further parts of a recording begin with the consumers that there are.
#[test]
fn a_consumer_that_is_named_again_is_the_same() {
    let whole = run("split15-attached-chain-stall");
    let expected = whole.stats();
    let mut named = whole.clone();
    named.lines = named
        .lines
        .into_iter()
        .flat_map(|line| [line, format!("consumer {}", whole.pid)])
        .collect();
    for fact in [Fact::Birth, Fact::Death] {
        assert_eq!(verdicts(&named.stats(), fact), verdicts(&expected, fact));
    }
}

/// Each has tables of its own: a recording may name 65,536.
#[test]
fn consumers_without_number_do_not_fill_the_memory() {
    let mut pipeline = Pipeline::new(Config::default(), ());
    for id in 0..2000 {
        pipeline.push(Input::Consumer { id: TreeId(id), pid: Pid::new(id.into()) });
    }
    pipeline.push(Input::Stdout { at: MonoTime(0), bytes: b"C 1000 0 51 50 50 14\n" });
    pipeline.push(Input::End);
    assert!(pipeline.stats().incarnations() <= 65);
}

#[test]
fn a_run_that_is_cut_anywhere_accuses_nobody() {
    for name in ["split15-attached-chain-stall", "split-exit-only"] {
        let whole = run(name);
        for n in (0..whole.lines.len()).step_by(71) {
            let (mut head, mut tail) = (whole.clone(), whole.clone());
            tail.lines = head.lines.split_off(n);
            for stats in [head.stats(), tail.stats()] {
                assert_eq!(count(&stats, VerdictClass::Lost), 0, "{name}: {n}");
                assert_eq!(count(&stats, VerdictClass::Wrong), 0, "{name}: {n}");
            }
        }
    }
}

/// A consumer, pid 9, that is written down by hand; times in milliseconds, a while after DTrace's first record.
mod by_hand {
    use super::*;

    const NOTE_TRACK: u32 = 0x1;
    const NOTE_EXIT: u32 = 0x8000_0000;
    const NOTE_FORK: u32 = 0x4000_0000;
    const NOTE_CHILD: u32 = 0x4;
    const EV_ADD: u32 = 0x1;
    const EV_DELETE: u32 = 0x2;
    const EV_DISABLE: u32 = 0x8;

    /// When they begin, in milliseconds.
    const BEGIN: u64 = 2000;

    fn ns(ms: u64) -> u64 {
        (BEGIN + ms) * 1_000_000
    }

    struct Hand(Run);

    impl Hand {
        /// DTrace sees process 50 begin; then the consumer registers it with kqueue 3.
        fn new(notes: u32) -> Hand {
            let mut hand = Hand(Run { pid: Pid::new(9).expect("a pid"), lines: vec![] });
            hand.line(format!("B {} 1", 1_000_000));
            hand.create(2, 50, 9);
            hand.register(10, (3, "a1"), 50, EV_ADD, notes, 0);
            hand.call(11, 3, &[]);
            hand
        }

        fn line(&mut self, line: String) {
            self.0.lines.push(line);
        }

        fn create(&mut self, ms: u64, child: u32, forker: u32) {
            self.line(format!("C {} 0 {child} {forker} {forker} 14", ns(ms)));
        }

        fn exit(&mut self, ms: u64, pid: u32) {
            self.line(format!("X {} 0 {pid} 1 1 256", ns(ms)));
        }

        fn register(
            &mut self,
            ms: u64,
            (fd, kqueue): (i32, &str),
            pid: u32,
            flags: u32,
            notes: u32,
            errno: i32,
        ) {
            let (at, done) = (ns(ms), ns(ms) + 900);
            self.line(format!("A {at} 0 77 1 {fd} {kqueue} {pid} -5 {flags:x} {notes:x} 0 9"));
            self.line(format!("a {done} 0 77 {errno} 9"));
        }

        /// A call with room for 8 events: filter, ident, fflags and data of each.
        fn call(&mut self, ms: u64, fd: i32, events: &[(i32, u32, u32, i64)]) {
            let (n, at) = (events.len(), ns(ms));
            if n > 0 {
                let mut line = format!("N {} 0 77 {fd} {n}", at - 1000);
                for i in 0..8 {
                    let (filter, ident, fflags, data) = events.get(i).copied().unwrap_or_default();
                    let flags = if n > i { 0x20 } else { 0 };
                    line += &format!(" {ident} {filter} {flags:x} {fflags:x} {data}");
                }
                self.line(line + " 9");
            }
            self.line(format!("M {at} 0 77 {fd} 8 {n} 0 9"));
        }

        /// Idle calls on these kqueues until everything is decided.
        fn idle(&mut self, from_ms: u64, fds: &[i32]) {
            for ms in (from_ms..from_ms + 2500).step_by(100) {
                for fd in fds {
                    self.call(ms, *fd, &[]);
                }
            }
            self.line(format!("T {} 1", ns(from_ms + 3000)));
            self.line(format!("T {} 1", ns(from_ms + 3100)));
        }

        fn births(&self) -> Vec<(Verdict, u64)> {
            verdicts(&self.0.stats(), Fact::Birth)
        }

        fn deaths(&self) -> Vec<(Verdict, u64)> {
            verdicts(&self.0.stats(), Fact::Death)
        }
    }

    const LOST: [(Verdict, u64); 1] = [(Verdict::LostSilent, 1)];
    const AGREED: [(Verdict, u64); 1] = [(Verdict::Agreed, 1)];
    const NONE: [(Verdict, u64); 0] = [];

    /// Process 50 forks 51, and both end: the facts without any of their notes.
    #[test]
    fn what_was_registered_decides_what_is_a_fact() {
        for (notes, births, deaths) in [
            (NOTE_TRACK | NOTE_EXIT, LOST.to_vec(), vec![(Verdict::LostSilent, 2)]),
            (NOTE_TRACK, LOST.to_vec(), vec![]),
            (NOTE_EXIT, vec![], LOST.to_vec()),
            (NOTE_FORK, vec![], vec![]),
        ] {
            let mut hand = Hand::new(notes);
            hand.create(200, 51, 50);
            hand.exit(300, 51);
            hand.exit(301, 50);
            hand.idle(400, &[3]);
            assert_eq!((hand.births(), hand.deaths()), (births, deaths), "{notes:x}");
        }
    }

    #[test]
    fn a_refused_registration_is_no_fact() {
        let mut hand = Hand::new(NOTE_TRACK);
        hand.create(100, 60, 9);
        hand.exit(110, 60);
        hand.register(120, (3, "a1"), 60, EV_ADD, NOTE_EXIT, 3);
        hand.idle(200, &[3]);
        assert_eq!(hand.deaths(), NONE);
        assert_eq!(hand.0.stats().trees[0].refused_registrations(), 1);
    }

    #[test]
    fn what_was_deleted_or_disabled_is_not_missing() {
        for flags in [EV_DELETE, EV_DISABLE] {
            let mut hand = Hand::new(NOTE_EXIT);
            hand.register(100, (3, "a1"), 50, flags, 0, 0);
            hand.exit(200, 50);
            hand.idle(300, &[3]);
            assert_eq!(hand.deaths(), NONE, "{flags:x}");
            // Registered again, it is watched again.
            hand = Hand::new(NOTE_EXIT);
            hand.register(100, (3, "a1"), 50, flags, 0, 0);
            hand.register(110, (3, "a1"), 50, EV_ADD, NOTE_EXIT, 0);
            hand.exit(200, 50);
            hand.idle(300, &[3]);
            assert_eq!(hand.deaths(), LOST, "{flags:x}");
        }
    }

    #[test]
    fn events_of_other_filters_are_no_notes() {
        let mut hand = Hand::new(NOTE_EXIT);
        hand.exit(200, 50);
        hand.call(300, 3, &[(-1, 50, NOTE_EXIT, 7), (-5, 50, NOTE_EXIT, 256), (-7, 1, 0, 1)]);
        hand.idle(400, &[3]);
        assert_eq!(hand.deaths(), AGREED);
        assert_eq!(hand.0.stats().trees[0].order_violations, [0; Order::COUNT]);
    }

    /// One that waits for sockets alone is drained all the time, and says nothing about processes.
    #[test]
    fn a_kqueue_without_processes_settles_nothing() {
        let mut hand = Hand::new(NOTE_EXIT);
        hand.exit(200, 50);
        hand.idle(300, &[4]);
        assert_eq!(hand.deaths(), [(Verdict::Undecided, 1)]);
    }

    #[test]
    fn a_process_in_two_kqueues_has_one_death_that_either_may_report() {
        for reports in [3, 4] {
            let mut hand = Hand::new(NOTE_EXIT);
            hand.register(20, (4, "a2"), 50, EV_ADD, NOTE_EXIT, 0);
            hand.exit(200, 50);
            hand.call(1000, 3 + 4 - reports, &[]);
            hand.call(2000, reports, &[(-5, 50, NOTE_EXIT, 256)]);
            hand.idle(2100, &[3, 4]);
            assert_eq!(hand.deaths(), AGREED, "{reports}");
        }
        let mut hand = Hand::new(NOTE_EXIT);
        hand.register(20, (4, "a2"), 50, EV_ADD, NOTE_EXIT, 0);
        hand.exit(200, 50);
        hand.call(300, 3, &[(-5, 50, NOTE_EXIT, 256)]);
        hand.call(301, 4, &[(-5, 50, NOTE_EXIT, 256)]);
        hand.idle(400, &[3, 4]);
        assert_eq!(hand.deaths(), AGREED);
        assert_eq!(hand.0.stats().trees[0].order_violations, [0; Order::COUNT]);
    }

    #[test]
    fn a_closed_kqueue_and_the_consumers_own_end_leave_what_is_open_undecided() {
        let undecided = [(Verdict::Undecided, 1)];
        let mut closed = Hand::new(NOTE_EXIT);
        closed.exit(200, 50);
        closed.register(250, (3, "b7"), 70, EV_ADD, NOTE_EXIT, 3);
        closed.idle(300, &[3]);
        assert_eq!(closed.deaths(), undecided);
        let mut ended = Hand::new(NOTE_EXIT);
        ended.exit(200, 50);
        ended.exit(250, 9);
        ended.idle(300, &[3]);
        assert_eq!(ended.deaths(), undecided);
    }

    /// The pid file names consumer 19 before DTrace's last records of consumer 9 come.
    fn replaced() -> Hand {
        let mut hand = Hand::new(NOTE_EXIT);
        hand.create(20, 55, 1);
        hand.register(30, (3, "a1"), 55, EV_ADD, NOTE_EXIT, 0);
        hand.line("consumer 19".to_owned());
        hand.exit(200, 50);
        hand.call(210, 3, &[(-5, 50, NOTE_EXIT, 256)]);
        hand.exit(250, 9);
        let old = hand.0.lines.len();
        hand.create(290, 60, 1);
        hand.register(300, (3, "c1"), 60, EV_ADD, NOTE_EXIT, 0);
        hand.exit(310, 55);
        hand.exit(400, 60);
        hand.call(450, 3, &[(-5, 60, NOTE_EXIT, 256)]);
        hand.idle(500, &[3]);
        for line in &mut hand.0.lines[old..] {
            if let Some(head) = line.strip_suffix(" 9") {
                *line = format!("{head} 19").replace(" 0 77 ", " 0 78 ");
            }
        }
        hand
    }

    #[test]
    fn a_consumer_that_is_replaced_keeps_its_last_records_and_accuses_nobody_afterwards() {
        let agreed = |hand: &Hand| {
            let deaths = hand.deaths();
            assert!(deaths.iter().all(|(v, _)| v.class() != VerdictClass::Lost), "{deaths:?}");
            deaths.iter().find(|(verdict, _)| *verdict == Verdict::Agreed).map(|(_, n)| *n)
        };
        let mut hand = replaced();
        assert_eq!(agreed(&hand), Some(2));
        // DTrace did not print the end of the first one.
        hand.0.lines.retain(|line| !line.starts_with("X 250000000 "));
        assert_eq!(agreed(&hand), Some(2));
    }

    /// Its registration is older than DTrace: NOTE_CHILD that names it as the parent proves it.
    #[test]
    fn a_process_is_tracked_from_the_first_event_that_names_it() {
        let mut hand = Hand::new(0);
        hand.0.lines.truncate(1);
        hand.create(100, 51, 50);
        hand.call(200, 3, &[(-5, 51, NOTE_CHILD, 50)]);
        hand.create(300, 52, 50);
        hand.idle(400, &[3]);
        assert_eq!(hand.births(), [(Verdict::Agreed, 1), (Verdict::LostSilent, 1)]);
        hand.0.lines.retain(|line| !line.starts_with("N "));
        assert_eq!(hand.births(), NONE);
    }

    /// Facts that are pending, and for how many seconds the oldest has been.
    fn pending(hand: &Hand) -> (u64, u64) {
        let mut pipeline = Pipeline::new(Config::default(), ());
        pipeline.push(Input::Consumer { id: TreeId(0), pid: Some(hand.0.pid) });
        for line in &hand.0.lines {
            let bytes = format!("{line}\n");
            pipeline.push(Input::Stdout { at: MonoTime(0), bytes: bytes.as_bytes() });
        }
        let consumer = pipeline.stats().trees[0].consumer.clone().expect("a consumer");
        (consumer.undelivered, consumer.lag_ns / 1_000_000_000)
    }

    #[test]
    fn the_lag_of_a_consumer_grows_until_it_reads() {
        let mut hand = Hand::new(NOTE_TRACK | NOTE_EXIT);
        // Of a process that is not watched nothing is to be delivered.
        hand.create(100, 70, 1);
        hand.exit(101, 70);
        hand.line(format!("T {} 1", ns(4000)));
        assert_eq!(pending(&hand), (0, 0));
        // 51 forks 52, which ends: neither has been announced.
        hand.create(4200, 51, 50);
        hand.create(4201, 52, 51);
        hand.exit(4300, 52);
        for (seconds, lag) in [(6, 1), (11, 6), (71, 66)] {
            for ms in [0, 300] {
                hand.line(format!("T {} 1", ns(seconds * 1000 + ms)));
            }
            assert_eq!(pending(&hand), (3, lag), "{seconds}");
        }
        let events = [(-5, 51, NOTE_CHILD, 50), (-5, 52, NOTE_CHILD, 51)];
        hand.call(71_500, 3, &events);
        hand.line(format!("T {} 1", ns(73_000)));
        hand.line(format!("T {} 1", ns(73_300)));
        assert_eq!(pending(&hand), (1, 68));
        hand.call(73_400, 3, &[(-5, 52, NOTE_EXIT, 256)]);
        hand.line(format!("T {} 1", ns(75_000)));
        hand.line(format!("T {} 1", ns(75_300)));
        assert_eq!(pending(&hand), (0, 0));
    }

    /// What it did not ask for is not to be delivered.
    #[test]
    fn a_consumer_lags_behind_what_it_has_asked_for_alone() {
        for (notes, facts) in [(NOTE_TRACK, 1), (NOTE_EXIT, 1), (NOTE_FORK, 0)] {
            let mut hand = Hand::new(notes);
            hand.create(200, 51, 50);
            hand.exit(300, 51);
            hand.exit(301, 50);
            hand.line(format!("T {} 1", ns(2000)));
            hand.line(format!("T {} 1", ns(2300)));
            assert_eq!(pending(&hand).0, facts, "{notes:x}");
        }
    }

    /// Whom a registration names that kevent(2) refuses, and why.
    #[test]
    fn refused_registrations_are_counted_by_errno() {
        let mut hand = Hand::new(NOTE_EXIT);
        for (pid, errno) in [(60, 3), (61, 3), (62, 2), (63, 5)] {
            hand.register(pid.into(), (3, "a1"), pid, EV_ADD, NOTE_EXIT, errno);
        }
        let consumer = hand.0.stats().trees[0].consumer.clone().expect("a consumer");
        let refused = Refusal::ALL.iter().map(|why| (why.as_str(), consumer.refused[why.index()]));
        let refused: Vec<_> = refused.filter(|(_, n)| *n > 0).collect();
        assert_eq!(refused, [("ENOENT", 1), ("ESRCH", 2), ("other", 1)]);
    }

    #[test]
    fn a_consumer_that_does_not_read_is_late_and_not_wrong() {
        let mut hand = Hand::new(NOTE_TRACK | NOTE_EXIT);
        hand.create(200, 51, 50);
        hand.exit(300, 51);
        hand.line(format!("T {} 1", ns(9000)));
        hand.call(9500, 3, &[(-5, 51, NOTE_CHILD, 50), (-5, 51, NOTE_EXIT, 256)]);
        hand.idle(9600, &[3]);
        assert_eq!((hand.births(), hand.deaths()), (AGREED.to_vec(), AGREED.to_vec()));
    }
}
