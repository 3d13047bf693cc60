//! The cross-checker on recordings of real kernels: its verdicts, that the order of reading does not matter, and that one
//! changed record changes exactly the one verdict that it should.

use crate::common::played::verdicts;
use crate::common::recording;
use crate::common::streams::Streams;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::{BlindReason, Order, Stats};
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Fact, KernelTime, MonoTime, Regime, Verdict, Winner, note};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::recording::Reader;
use kqproc_exporter::wire::decode::Reason;
use kqproc_exporter::wire::drops::DropKind;
use proptest::prelude::*;

fn births(stats: &Stats) -> Vec<(Verdict, u64)> {
    verdicts(stats, Fact::Birth)
}

fn deaths(stats: &Stats) -> Vec<(Verdict, u64)> {
    verdicts(stats, Fact::Death)
}

#[test]
fn split_kernels_agree_in_everything_and_repeat_themselves() {
    for (name, n_births, duplicates) in [
        ("split-13.2-enoent-drain", 600, 0),
        ("split-13.2-chain-stall", 420, 5691),
        ("split-15.1-orphan", 400, 141),
    ] {
        let stats = Streams::of(name).play_in_time();
        assert_eq!(births(&stats), [(Verdict::Agreed, n_births)], "{name}");
        assert_eq!(deaths(&stats), [(Verdict::Agreed, n_births + 1)], "{name}");
        assert_eq!(stats.trees[0].duplicate_child_notes, duplicates, "{name}");
        assert_eq!(stats.trees[0].order_violations, [0; Order::COUNT], "{name}");
        assert_eq!(stats.trees[0].tracked, 0, "{name}");
        assert_eq!(stats.regime, Regime::Split, "{name}");
        assert_eq!(stats.blind_seconds(), 0.0, "{name}");
    }
}

#[test]
fn merged_kernels_overwrite_the_parent_with_the_status() {
    for (name, agreed, overwritten) in
        [("merged-enoent-drain", 478, 122), ("merged-exit-stall", 36, 564)]
    {
        let stats = Streams::of(name).play_in_time();
        let expected = [(Verdict::Agreed, agreed), (Verdict::Overwritten, overwritten)];
        assert_eq!(births(&stats), expected, "{name}");
        assert_eq!(deaths(&stats), [(Verdict::Agreed, 601)], "{name}");
        assert_eq!(stats.trees[0].collisions[Winner::Status.index()], overwritten, "{name}");
        assert_eq!(stats.regime, Regime::MergedStatus, "{name}");
    }
}

#[test]
fn the_process_that_a_real_kernel_lost_is_found() {
    let stats = Streams::of("merged-orphan").play_in_time();
    let expected = [(Verdict::Agreed, 215), (Verdict::Overwritten, 184), (Verdict::LostSilent, 1)];
    assert_eq!(births(&stats), expected);
    // Required figure: a death is lost in the same way as its own birth, here silently; only what a lost process forks is
    // lost by inheritance.
    assert_eq!(deaths(&stats), [(Verdict::Agreed, 400), (Verdict::LostSilent, 1)]);
}

#[test]
fn nothing_is_called_lost_where_dtrace_dropped_records() {
    for (name, principal) in [("split-13.2-drops", 3290), ("merged-drops", 2234)] {
        let stats = Streams::of(name).play_in_time();
        for (verdict, _) in births(&stats).into_iter().chain(deaths(&stats)) {
            let fair = [Verdict::Agreed, Verdict::Overwritten, Verdict::Undecided];
            assert!(fair.contains(&verdict), "{name}: {verdict}");
        }
        assert_eq!(stats.drops[DropKind::Principal.index()], principal, "{name}");
        assert!(stats.blind_seconds() > 1.0, "{name}");
    }
}

/// The call and the place in it of the `n`th event with just this note.
fn event(streams: &Streams, fflags: u32, n: usize) -> (usize, usize) {
    let all = streams.calls.iter().enumerate().flat_map(|(c, call)| {
        call.events.iter().enumerate().map(move |(e, event)| (c, e, event.fflags))
    });
    let (c, e, _) = all.filter(|(_, _, f)| *f == fflags).nth(n).expect("such an event");
    (c, e)
}

/// The place of the `n`th line of this kind about the tree: the load's processes come after the first 30 records.
fn line(streams: &Streams, letter: &str, n: usize) -> usize {
    let lines = streams.lines.iter().enumerate().skip(30);
    lines.filter(|(_, l)| l.starts_with(letter)).nth(n).expect("such a line").0
}

/// The effect of a change: by how much the number of each verdict grew or fell, and the new statistics.
fn change(n: usize, change: impl Fn(&mut Streams, usize)) -> (Vec<String>, Stats) {
    let mut streams = Streams::of("split-13.2-enoent-drain");
    let before = streams.play_in_time();
    change(&mut streams, n);
    let after = streams.play_in_time();
    let mut changes = vec![];
    for fact in [Fact::Birth, Fact::Death] {
        for v in Verdict::ALL {
            let old = before.trees[0].of(fact)[v.index()] as i64;
            let new = after.trees[0].of(fact)[v.index()] as i64;
            if new != old {
                changes.push(format!("{fact:?} {v} {:+}", new - old));
            }
        }
    }
    (changes, after)
}

const SOME: [usize; 6] = [1, 2, 99, 300, 444, 590];

#[test]
fn a_deleted_note_child_is_one_birth_lost() {
    for n in SOME {
        let (changes, _) = change(n, |s, n| {
            let (c, e) = event(s, note::CHILD, n);
            s.calls[c].events.remove(e);
        });
        assert_eq!(changes, ["Birth agreed -1", "Birth lost_silent +1"], "number {n}");
    }
}

#[test]
fn a_deleted_note_exit_is_one_death_lost() {
    for n in SOME {
        let (changes, _) = change(n, |s, n| {
            let (c, e) = event(s, note::EXIT, n);
            s.calls[c].events.remove(e);
        });
        assert_eq!(changes, ["Death agreed -1", "Death lost_silent +1"], "number {n}");
    }
}

#[test]
fn a_deleted_create_is_one_birth_that_only_kqueue_saw() {
    for n in SOME {
        let (changes, _) = change(n, |s, n| {
            s.lines.remove(line(s, "C ", n));
        });
        assert_eq!(changes, ["Birth agreed -1", "Birth kqueue_only +1"], "number {n}");
    }
}

#[test]
fn a_deleted_exit_is_one_death_that_only_kqueue_saw() {
    for n in SOME {
        let (changes, _) = change(n, |s, n| {
            s.lines.remove(line(s, "X ", n));
        });
        assert_eq!(changes, ["Death agreed -1", "Death kqueue_only +1"], "number {n}");
    }
}

#[test]
fn a_process_that_kqueue_never_mentions_is_lost_altogether() {
    let (changes, stats) = change(200, |s, n| {
        let (c, e) = event(s, note::CHILD, n);
        let ident = s.calls[c].events[e].ident;
        s.calls.iter_mut().for_each(|call| call.events.retain(|e| e.ident != ident));
    });
    let expected =
        ["Birth agreed -1", "Birth lost_silent +1", "Death agreed -1", "Death lost_silent +1"];
    assert_eq!(changes, expected);
    assert_eq!((stats.trees[0].lost_alive, stats.trees[0].ghosts()), (0, 0));
}

/// The last idle call settled the death and not yet the birth, so the tree of the process was not known, and its death was
/// dropped.
#[test]
fn the_last_process_before_the_reader_fell_idle_keeps_both_its_facts() {
    let mut streams = Streams::of("merged-enoent-drain");
    let calls = streams.calls.iter_mut().rev();
    let last = calls.flat_map(|call| {
        let at = call.events.iter().rposition(|e| e.fflags == note::CHILD | note::EXIT);
        at.map(|at| (call, at))
    });
    let (call, at) = { last }.next().expect("a collision");
    call.events.remove(at);
    let stats = streams.play_in_time();
    let lost = (Verdict::LostSilent, 1);
    assert_eq!(births(&stats), [(Verdict::Agreed, 478), (Verdict::Overwritten, 121), lost]);
    assert_eq!(deaths(&stats), [(Verdict::Agreed, 600), lost]);
}

#[test]
fn note_trackerr_on_the_forker_makes_the_loss_a_reported_one() {
    let (changes, stats) = change(200, |s, n| {
        let (c, e) = event(s, note::CHILD, n);
        let forker = s.calls[c].events.remove(e).data as u64;
        let rest = s.calls[c..].iter_mut().flat_map(|call| &mut call.events);
        rest.take(1000).find(|e| e.ident == forker).expect("its forker").fflags |= note::TRACKERR;
    });
    assert_eq!(changes, ["Birth agreed -1", "Birth lost_reported +1"]);
    assert_eq!(stats.trees[0].trackerr_reports, 1);
}

#[test]
fn a_repeated_note_or_record_is_counted_and_changes_no_verdict() {
    for n in SOME {
        let (changes, stats) = change(n, |s, n| {
            let (c, e) = event(s, note::CHILD, n);
            let event = s.calls[c].events[e];
            s.calls[c].events.insert(e, event);
        });
        assert_eq!((changes.len(), stats.trees[0].duplicate_child_notes), (0, 1));
        let (changes, stats) = change(n, |s, n| {
            let (c, e) = event(s, note::EXIT, n);
            let event = s.calls[c].events[e];
            s.calls[c].events.insert(e, event);
        });
        let repeated = stats.trees[0].order_violations[Order::DuplicateExit.index()];
        assert_eq!((changes.len(), repeated), (0, 1));
        for letter in ["C ", "X ", "F "] {
            let (changes, stats) = change(n, |s, n| {
                let at = line(s, letter, n);
                let line = s.lines[at].clone();
                s.lines.insert(at, line);
            });
            assert_eq!((changes.len(), stats.bad_lines[Reason::Duplicate.index()]), (0, 1));
        }
    }
}

#[test]
fn a_changed_number_is_one_corrupt_fact() {
    for n in SOME {
        let (changes, _) = change(n, |s, n| {
            let (c, e) = event(s, note::CHILD, n);
            s.calls[c].events[e].data = 32512;
        });
        assert_eq!(changes, ["Birth agreed -1", "Birth corrupt +1"]);
        let (changes, _) = change(n, |s, n| {
            let (c, e) = event(s, note::EXIT, n);
            s.calls[c].events[e].data = 0;
        });
        assert_eq!(changes, ["Death agreed -1", "Death corrupt +1"]);
    }
}

/// No call drained the queue before it, and the note was taken for one about a life before the registration.
#[test]
fn a_number_changed_in_the_first_batch_is_corrupt_too() {
    let mut streams = Streams::of("merged-exit-stall");
    let first = streams.calls.iter_mut().find(|call| !call.events.is_empty()).expect("events");
    let child = first.events.iter_mut().find(|e| e.fflags == note::CHILD).expect("a birth");
    child.data = 70_001;
    let corrupt = births(&streams.play_in_time()).into_iter().find(|b| b.0 == Verdict::Corrupt);
    assert_eq!(corrupt, Some((Verdict::Corrupt, 1)));
}

#[test]
fn missing_marks_ticks_and_idle_calls_change_nothing() {
    for n in SOME {
        for letter in ["M ", "F "] {
            let (changes, _) = change(n, |s, n| {
                s.lines.remove(line(s, letter, n));
            });
            assert_eq!(changes.len(), 0, "{letter}{n}");
        }
    }
    let (changes, _) = change(0, |s, _| s.lines.retain(|l| !l.starts_with("T ")));
    assert_eq!(changes.len(), 0);
}

#[test]
fn a_garbled_line_costs_one_undecided_fact_at_most() {
    for n in SOME {
        let (changes, stats) = change(n, |s, n| {
            let at = line(s, "C ", n);
            s.lines[at].truncate(9);
        });
        assert_eq!(changes, ["Birth agreed -1", "Birth undecided +1"], "number {n}");
        assert_eq!(stats.bad_lines.iter().sum::<u64>(), 1);
    }
}

#[test]
fn a_recording_cut_at_any_byte_still_conserves() {
    let bytes = std::fs::read(recording("merged-exit-stall")).expect("a recording");
    for cut in (0..bytes.len()).step_by(97).chain(bytes.len() - 9..=bytes.len()) {
        let Ok(mut reader) = Reader::new(&bytes[..cut]) else { continue };
        let mut pipeline = Pipeline::new(Config::default(), ());
        while let Ok(Some(input)) = reader.next() {
            pipeline.push(input);
            pipeline.stats().assert_conserved();
        }
        pipeline.push(Input::End);
        let tree = pipeline.stats().trees.first();
        assert_eq!(tree.map_or(0, |t| t.pending()), 0, "cut at {cut}");
        let lost =
            |t: &[u64]| Verdict::ALL.iter().filter(|v| v.is_lost()).map(|v| t[v.index()]).sum();
        assert_eq!(tree.map_or(0, |t| lost(&t.births)), 0, "cut at {cut}");
    }
}

/// The blind time was counted from the origin of DTrace's clock, the boot of the host.
#[test]
fn a_drop_before_the_first_record_is_blind_from_the_first_record_on() {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let at = MonoTime(9_000_000_000);
    pipeline.push(Input::Stderr { at, bytes: b"dtrace: 7 drops on CPU 0\n" });
    let lines = b"B 5000000000 1\nT 5100000000 2\nT 5200000000 3\n";
    pipeline.push(Input::Stdout { at, bytes: lines });
    pipeline.push(Input::End);
    assert!(pipeline.stats().blind_seconds() < 0.3, "{}", pipeline.stats().blind_seconds());
}

/// Nothing closed the window: no mark came after the calls that were lost. It was open since the boot of the host.
#[test]
fn calls_that_are_lost_at_the_end_are_blind_time_from_the_first_record_on() {
    let at = MonoTime(9_000_000_000);
    let lost = Input::BatchesLost { first: 0, count: 3, from: at, to: at };
    let records = Input::Stdout { at, bytes: b"B 5000000000 1\nT 5100000000 2\n" };
    for inputs in [[lost, records], [records, lost]] {
        let mut pipeline = Pipeline::new(Config::default(), ());
        inputs.into_iter().chain([Input::End]).for_each(|input| pipeline.push(input));
        let blind_ns = pipeline.stats().kqueue_blind_ns[BlindReason::Overflow.index()];
        assert!((100_000_000..101_000_000).contains(&blind_ns), "{blind_ns}");
    }
}

/// It was thought to have stepped since the last mark, which had never come: since the boot of the host.
#[test]
fn a_clock_that_steps_back_before_any_mark_blinds_dtrace_since_its_first_record() {
    let mut pipeline = Pipeline::new(Config::default(), ());
    for (seconds, lines) in
        [(90, "B 50000000000 1\nT 50100000000 2\n"), (80, "T 50200000000 3\nT 50300000000 4\n")]
    {
        let at = MonoTime(seconds * 1_000_000_000);
        pipeline.push(Input::Stdout { at, bytes: lines.as_bytes() });
    }
    pipeline.push(Input::End);
    let blind_ns = pipeline.stats().dtrace_blind_ns[BlindReason::Clock.index()];
    assert!((100_000_000..1_000_000_000).contains(&blind_ns), "{blind_ns}");
}

/// All incidents were dated by it until the next tick.
#[test]
fn a_garbled_heartbeat_does_not_date_anything() {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let mut read = |lines: &str| {
        pipeline.push(Input::Stdout { at: MonoTime(9_000_000_000), bytes: lines.as_bytes() });
        pipeline.stats().wall
    };
    let tick = Some((KernelTime(5_400_000_000), 12));
    assert_eq!(read("B 5000000000 1\nF 5100000000 0 7 2\nT 5400000000 12\n"), tick);
    assert_eq!(read("T 905500000000 13\n"), tick, "nothing confirms its time");
    assert_eq!(read("T 5000000000 14\n"), tick, "it comes too late");
    assert_eq!(read("T 5600000000 15\n"), Some((KernelTime(5_600_000_000), 15)));
}

#[test]
fn both_streams_cut_anywhere_accuse_nobody() {
    let whole = Streams::of("split-13.2-enoent-drain");
    for i in 0..20 {
        let mut cut = whole.clone();
        cut.lines.truncate(whole.lines.len() * i / 20);
        for j in [0, 7, 13, 20] {
            cut.calls.truncate(whole.calls.len() * (20 - j) / 20);
            let stats = cut.play(std::iter::repeat(true));
            for (verdict, _) in births(&stats).into_iter().chain(deaths(&stats)) {
                assert!(!verdict.is_lost() && verdict != Verdict::Corrupt, "{i} {j}: {verdict}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 10, ..ProptestConfig::default() })]

    /// Each stream keeps its own order, as a pipe and a queue do; how far one is read behind the other is chance.
    #[test]
    fn the_order_of_reading_changes_no_verdict(
        name in prop::sample::select(vec!["merged-orphan", "split-13.2-chain-stall", "merged-exit-stall"]),
        lags in prop::collection::vec(0..500_000_000u64, 1..50),
    ) {
        let streams = Streams::of(name);
        let expected = streams.play_in_time();
        let order = streams.order_with_lag(|i| lags[i % lags.len()]);
        let stats = streams.play(order);
        prop_assert_eq!(stats.trees, expected.trees);
    }
}

#[test]
fn one_stream_read_wholly_before_the_other_changes_no_verdict() {
    for name in ["merged-orphan", "split-13.2-chain-stall", "split-13.2-enoent-drain"] {
        let streams = Streams::of(name);
        let expected = streams.play_in_time();
        assert_eq!(streams.play(vec![false; streams.calls.len()]).trees, expected.trees, "{name}");
    }
}

/// A busy host: a reader that is held up for a second or two.
mod held_up {
    use kqproc_exporter::input::{Attach, Batch};
    use kqproc_exporter::model::{Kevent, MonoTime, Pid, TreeId};

    use super::*;
    use crate::common::streams::Call;

    const MS: u64 = 1_000_000;

    /// A call and its mark, on one clock.
    fn call(streams: &mut Streams, entered: u64, at: u64, events: &[Kevent]) {
        let seq = streams.calls.len() as u64;
        let (n, capacity) = (events.len(), Batch::capacity_of(seq));
        streams.lines.push(format!("M {} 0 {} {capacity} {n} 0", at * MS, entered * MS));
        streams.calls.push(Call {
            seq,
            before: MonoTime(entered * MS),
            after: MonoTime(at * MS),
            attached: vec![],
            events: events.to_vec(),
        });
    }

    fn event(ident: u64, flags: u32, fflags: u32, data: i64) -> Kevent {
        Kevent { ident, flags, fflags, data, udata: TreeId(0).cookie() }
    }

    /// Process 10 forks process 50 at 2 s, which ends at 2.3 s; NOTE_EXIT is read at 3.51 s, because the call before it
    /// timed out at 2.21 s and returned at 3.5 s.
    fn held_up() -> Streams {
        let mut streams = Streams::default();
        for ms in [1000, 1100] {
            streams.lines.push(format!("T {} 1", ms * MS));
        }
        call(&mut streams, 1200, 1201, &[]);
        let pid = Pid::new(10).expect("a pid");
        streams.calls[0].attached =
            vec![Attach { tree: TreeId(0), pid, root: true, errno: 0, notes: Attach::USUAL_NOTES }];
        streams.lines.push(format!("C {} 0 50 10 10 14", 2000 * MS));
        call(&mut streams, 1990, 2001, &[event(50, 0x30, note::CHILD, 10)]);
        streams.lines.push(format!("X {} 0 50 10 1 0", 2300 * MS));
        call(&mut streams, 2010, 3500, &[]);
        call(&mut streams, 3505, 3510, &[event(50, 0x8030, note::EXIT, 0)]);
        call(&mut streams, 3520, 3720, &[]);
        streams.lines.push(format!("T {} 1", 5000 * MS));
        streams
    }

    fn agreed(stats: &Stats) -> (u64, u64) {
        let tree = &stats.trees[0];
        assert_eq!(tree.births.iter().chain(&tree.deaths).sum::<u64>(), 2, "{tree:?}");
        (tree.births[Verdict::Agreed.index()], tree.deaths[Verdict::Agreed.index()])
    }

    #[test]
    fn a_reader_that_runs_late_after_its_time_out_has_not_seen_an_empty_queue() {
        assert_eq!(agreed(&held_up().play_in_time()), (1, 1));
    }

    #[test]
    fn nor_has_one_that_runs_half_a_second_late() {
        let mut streams = held_up();
        // In place of the end of process 50: process 10 forks process 51, 25 ms after the time-out.
        let end = streams.lines.iter().position(|l| l.starts_with("X ")).expect("an exit");
        streams.lines.truncate(end);
        streams.calls.truncate(2);
        streams.lines.push(format!("C {} 0 51 10 10 14", 2235 * MS));
        call(&mut streams, 2010, 2740, &[]);
        call(&mut streams, 2745, 2750, &[event(51, 0x30, note::CHILD, 10)]);
        streams.lines.push(format!("T {} 1", 5000 * MS));
        let tree = &streams.play_in_time().trees[0];
        assert_eq!(tree.births[Verdict::Agreed.index()], 2, "{tree:?}");
    }

    #[test]
    fn nor_has_one_that_runs_late_by_more_than_a_short_settle_time() {
        for settle_ms in [500, 440, 200, 50] {
            let mut streams = held_up();
            streams.config.settle_ns = settle_ms * MS;
            let end = streams.lines.iter().position(|l| l.starts_with("X ")).expect("an exit");
            streams.lines.truncate(end);
            streams.calls.truncate(2);
            streams.lines.push(format!("X {} 0 50 10 1 0", (2655 - settle_ms.min(440)) * MS));
            call(&mut streams, 2010, 2760, &[]);
            call(&mut streams, 2765, 2770, &[event(50, 0x8030, note::EXIT, 0)]);
            streams.lines.push(format!("T {} 1", 5000 * MS));
            assert_eq!(agreed(&streams.play_in_time()), (1, 1), "settle {settle_ms} ms");
        }
    }

    /// A busy process is watched from 1.2 s to 1.21 s on: who was born before is not its consumer's, who was born meanwhile
    /// may or may not be.
    #[test]
    fn births_around_the_registration_are_not_lost() {
        let mut streams = held_up();
        streams.lines.truncate(2);
        streams.calls.truncate(0);
        streams.lines.push(format!("C {} 0 48 10 10 14", 1150 * MS));
        streams.lines.push(format!("C {} 0 49 10 10 14", 1205 * MS));
        call(&mut streams, 1200, 1210, &[]);
        let pid = Pid::new(10).expect("a pid");
        streams.calls[0].attached =
            vec![Attach { tree: TreeId(0), pid, root: true, errno: 0, notes: Attach::USUAL_NOTES }];
        streams.lines.push(format!("C {} 0 50 10 10 14", 1300 * MS));
        call(&mut streams, 1220, 1301, &[event(50, 0x30, note::CHILD, 10)]);
        for ms in [1310, 1520, 1730, 1940] {
            call(&mut streams, ms, ms + 200, &[]);
        }
        streams.lines.push(format!("T {} 1", 5000 * MS));
        let births = streams.play_in_time().trees[0].births;
        let of = |verdict: Verdict| births[verdict.index()];
        assert_eq!((of(Verdict::Agreed), of(Verdict::Undecided)), (1, 1), "{births:?}");
        assert_eq!(births.iter().sum::<u64>(), 2, "{births:?}");
    }

    #[test]
    fn a_cause_that_comes_late_blinds_nobody() {
        let mut streams = held_up();
        // Records of the cause probes: one of 1.5 s that comes at 5 s, and one from before the other probes began.
        for (ms, place) in [(1500, streams.lines.len()), (100, 0)] {
            streams.lines.insert(place, format!("R {} 10 50 12", ms * MS));
            streams.lines.insert(place, format!("S {} 10 50", ms * MS));
        }
        let stats = streams.play(streams.lines.iter().map(|_| true));
        assert_eq!(agreed(&stats), (1, 1));
        assert_eq!(stats.blind_seconds(), 0.0);
        assert_eq!((stats.trackerr_causes.get(&12), stats.influx_skips), (Some(&2), 2));
    }
}
