//! Consumers: the user's own trackers, which DTrace alone watches. Verdicts on real runs, and on runs whose records are
//! missing, repeated or cut; the modules have runs that are written by hand.

mod lag;
mod registrations;
mod script;
mod simulated;

use std::ops::ControlFlow;

use crate::common::played::verdicts;
use crate::common::played_consumer::ConsumerRun;
use crate::common::recording;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::finding::Finding;
use kqproc_exporter::check::stats::{Order, Stats};
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
    ConsumerRun::of_fixture(name).into()
}

/// Two exits are lost there, as the consumer itself saw.
fn lost_exit_run() -> Run {
    ConsumerRun::of_recording("consumer-15.1-lost-exit").into()
}

impl From<ConsumerRun> for Run {
    fn from(ConsumerRun { text, pid }: ConsumerRun) -> Run {
        Run { pid, lines: text.lines().map(str::to_owned).collect() }
    }
}

impl Run {
    /// The processes of which something was lost.
    fn lost(&self) -> Vec<u32> {
        let (_, findings) = self.play();
        findings.iter().filter(|f| f.verdict.is_lost()).map(|f| f.pid.get()).collect()
    }

    /// The statistics and findings. The law of conservation is checked after each line.
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
        let expected = if births.is_empty() { 30 } else { 0 };
        assert_eq!(script::refused(tree), expected, "{name}");
        assert_eq!(tree.order_violations, [0; Order::COUNT], "{name}");
        assert_eq!((tree.tracked, stats.blind_seconds()), (0, 0.0), "{name}");
    }
}

/// The statistics and findings of a recording on 15.1: a consumer that never got two of 10,833 exits, as it found out itself.
/// `more` comes after dtrace's first output.
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
fn the_exits_that_a_consumer_never_got_are_named() {
    let (stats, findings) = lost_exits(None);
    let lost = findings.iter().filter(|finding| finding.verdict.is_lost());
    let lost: Vec<_> = lost.map(|f| (f.pid.get(), f.fact, f.verdict)).collect();
    let death = |pid| (pid, Fact::Death, Verdict::LostSilent);
    assert_eq!(lost, [death(6712), death(8541)]);
    assert_eq!(verdicts(&stats, Fact::Birth), [(Verdict::Agreed, 10_832)]);
    let deaths = [(Verdict::Agreed, 10_831), (Verdict::LostSilent, 2)];
    assert_eq!(verdicts(&stats, Fact::Death), deaths);
    assert_eq!(stats.trees[0].duplicate_child_notes, 3575);
    // A second without clock interrupts, in which the wall clock lagged by 44 ms, is no jump.
    assert_eq!(stats.blind_seconds(), 0.0);
}

/// The dropped records may have been the consumer's events.
#[test]
fn nothing_is_lost_where_dtrace_dropped_records_at_an_unknown_time() {
    let bytes = b"dtrace: 7 drops on CPU 0\n";
    let (stats, _) = lost_exits(Some(Input::Stderr { at: MonoTime(0), bytes }));
    assert_eq!(count(&stats, VerdictClass::Lost), 0);
    assert!(count(&stats, VerdictClass::Open) > 0 && stats.blind_seconds() > 0.0);
}

/// As if the consumer had asked for exactly as many events as there were: no call shows that nothing is left.
#[test]
fn full_calls_are_judged_by_the_order_of_the_queue() {
    let full = |line: &String| {
        let mut fields: Vec<&str> = line.split(' ').collect();
        if fields[0] == "M" {
            fields[5] = if fields[6].starts_with(['-', '0']) { "0" } else { fields[6] };
        }
        fields.join(" ")
    };
    for name in ["split15-attached-chain-stall", "merged-attached-chain-stall", "split-exit-only"] {
        let mut run = run(name);
        run.lines = run.lines.iter().map(full).collect();
        assert_eq!(count(&run.stats(), VerdictClass::Lost), 0, "{name}");
    }
    let mut run = lost_exit_run();
    run.lines = run.lines.iter().map(full).collect();
    assert_eq!(run.lost(), [6712, 8541]);
}

/// The programs for FreeBSD 9 to 11 keep the arguments of a call when it begins.
#[test]
fn a_call_that_began_before_dtrace_hides_no_later_loss() {
    let mut run = lost_exit_run();
    for (letter, unseen) in [("N", &[4][..]), ("M", &[4, 5])] {
        let first = run.lines.iter_mut().find(|line| line.starts_with(letter)).expect("a call");
        let mut fields: Vec<&str> = first.split(' ').collect();
        unseen.iter().for_each(|field| fields[*field] = "0");
        *first = fields.join(" ");
    }
    assert_eq!(run.lost(), [6712, 8541]);
}

/// Of other filters the ident may be any number, such as an address.
#[test]
fn an_event_of_another_filter_may_have_any_ident() {
    let mut run = run("split-attached-enoent");
    let sound = run.stats();
    for line in run.lines.iter_mut().filter(|line| line.starts_with("N ")) {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let count: usize = fields[5].parse().expect("a number");
        if count < 8 {
            fields[5] = (count + 1).to_string();
            let ident = 6 + 5 * count;
            (fields[ident], fields[ident + 1]) = (u64::MAX.to_string(), "-11".to_owned());
        }
        *line = fields.join(" ");
    }
    assert!(run.lines.iter().any(|line| line.contains(" 18446744073709551615 -11 ")));
    let stats = run.stats();
    assert_eq!(verdicts(&stats, Fact::Death), verdicts(&sound, Fact::Death));
    assert_eq!(stats.blind_seconds(), sound.blind_seconds());
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

/// Each consumer has tables of its own, and a recording may name 65,536 of them.
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

/// There are no marks. The wall clock, which is printed with each tick, does not jump.
#[test]
fn a_clock_of_dtraces_that_jumps_beside_the_wall_clock_accuses_nobody() {
    let moved = |line: &String, by_ms: i64| {
        let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if let Some(at) = fields.get_mut(1) {
            let ns: u64 = at.parse().expect("a time stamp");
            *at = ns.saturating_add_signed(by_ms * 1_000_000).to_string();
        }
        fields.join(" ")
    };
    for name in ["split15-attached-chain-stall", "merged-attached-chain-stall", "split-exit-only"] {
        let whole = run(name);
        let wrong = count(&whole.stats(), VerdictClass::Wrong);
        for ms in [-9000, -1000, -130, 130, 1000, 9000] {
            for part in [1, 4, 7] {
                let mut jumped = whole.clone();
                let from = whole.lines.len() * part / 8;
                jumped.lines[from..].iter_mut().for_each(|line| *line = moved(line, ms));
                let stats = jumped.stats();
                assert_eq!(count(&stats, VerdictClass::Lost), 0, "{name}: {ms} ms, {part}");
                assert!(count(&stats, VerdictClass::Wrong) <= wrong, "{name}: {ms} ms, {part}");
                assert!(stats.blind_seconds() > 0.0, "{name}: {ms} ms, {part}");
            }
        }
    }
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
