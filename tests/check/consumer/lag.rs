//! Consumers that take what waits for them late, one by one, or not at all.

use kqproc_exporter::check::Config;
use kqproc_exporter::check::damage::Damage;
use kqproc_exporter::check::stats::Order;
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Fact, MonoTime, TreeId, Verdict};
use kqproc_exporter::pipeline::Pipeline;

use super::script::*;
use super::verdicts;

/// Facts that are pending, and for how many seconds the oldest has been.
fn pending(script: &Script) -> (u64, u64) {
    let mut pipeline = Pipeline::new(Config::default(), ());
    pipeline.push(Input::Consumer { id: TreeId(0), pid: Some(script.0.pid) });
    for line in &script.0.lines {
        let bytes = format!("{line}\n");
        pipeline.push(Input::Stdout { at: MonoTime(0), bytes: bytes.as_bytes() });
    }
    let consumer = pipeline.stats().trees[0].consumer.clone().expect("a consumer");
    (consumer.undelivered, consumer.lag_ns / 1_000_000_000)
}

#[test]
fn the_lag_of_a_consumer_grows_until_it_reads() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    // Of a process that is not watched nothing is to be delivered.
    script.create(100, 70, 1);
    script.exit(101, 70);
    script.line(format!("T {} 1", ns(4000)));
    assert_eq!(pending(&script), (0, 0));
    // 51 forks 52, which ends: neither has been announced.
    script.create(4200, 51, 50);
    script.create(4201, 52, 51);
    script.exit(4300, 52);
    for (seconds, lag) in [(6, 1), (11, 6), (16, 11)] {
        for ms in [0, 300] {
            script.line(format!("T {} 1", ns(seconds * 1000 + ms)));
        }
        assert_eq!(pending(&script), (3, lag), "{seconds}");
    }
    let events = [(-5, 51, NOTE_CHILD, 50), (-5, 52, NOTE_CHILD, 51)];
    script.call(16_500, 3, &events);
    script.line(format!("T {} 1", ns(18_000)));
    script.line(format!("T {} 1", ns(18_300)));
    assert_eq!(pending(&script), (1, 13));
    script.call(18_400, 3, &[(-5, 52, NOTE_EXIT, 256)]);
    script.line(format!("T {} 1", ns(20_000)));
    script.line(format!("T {} 1", ns(20_300)));
    assert_eq!(pending(&script), (0, 0));
}

/// It may have been delivered.
#[test]
fn what_was_not_seen_to_be_delivered_for_want_of_sight_is_no_lag() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.exit(200, 50);
    script.line("a line that is no record".to_owned());
    for ms in [300, 600, 6000, 6300] {
        script.line(format!("T {} 1", ns(ms)));
    }
    assert_eq!(pending(&script), (0, 0));
    script.0.lines.retain(|line| !line.contains("no record"));
    assert_eq!(pending(&script), (1, 5));
}

/// What it did not ask for is not to be delivered.
#[test]
fn a_consumer_lags_behind_what_it_has_asked_for_alone() {
    for (notes, facts) in [(NOTE_TRACK, 1), (NOTE_EXIT, 1), (NOTE_FORK, 0)] {
        let mut script = Script::new(notes);
        script.create(200, 51, 50);
        script.exit(300, 51);
        script.exit(301, 50);
        script.line(format!("T {} 1", ns(2000)));
        script.line(format!("T {} 1", ns(2300)));
        assert_eq!(pending(&script).0, facts, "{notes:x}");
    }
}

#[test]
fn a_consumer_that_does_not_read_is_late_and_not_wrong() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.create(200, 51, 50);
    script.exit(300, 51);
    script.line(format!("T {} 1", ns(9000)));
    script.call(9500, 3, &[(-5, 51, NOTE_CHILD, 50), (-5, 51, NOTE_EXIT, 256)]);
    script.idle(9600, &[3]);
    assert_eq!((script.births(), script.deaths()), (AGREED.to_vec(), AGREED.to_vec()));
}

/// Many programs ask for one event a call and sleep until it comes: no call of theirs takes all there is.
#[test]
fn a_consumer_that_takes_one_event_a_call_is_judged_by_the_order_of_its_queue() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.0.lines.pop();
    script.create(100, 51, 50);
    script.call_with_room(1, 101, 3, &[(-5, 51, NOTE_CHILD, 50)]);
    script.create(200, 52, 50);
    script.exit(300, 51);
    // Nothing of 52 and of the end of 51; what comes next has happened long after.
    script.exit(4000, 50);
    script.line(format!("T {} 1", ns(4500)));
    let mut early = script.clone();
    script.call_with_room(1, 5000, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    // Its place in the queue is that of its first note, which may be older.
    early.call_with_room(1, 5000, 3, &[(-5, 50, NOTE_EXIT | NOTE_FORK, 256)]);
    for (script, other) in [(&mut script, Verdict::LostSilent), (&mut early, Verdict::Undecided)] {
        script.line(format!("T {} 1", ns(8000)));
        script.line(format!("T {} 1", ns(8300)));
        assert_eq!(script.births(), [(Verdict::Agreed, 1), (other, 1)]);
        assert_eq!(script.deaths(), [(Verdict::Agreed, 1), (other, 1)]);
    }
}

/// What is left in the queue is behind what comes, if it happened about then or later.
#[test]
fn what_is_behind_an_event_in_the_queue_is_not_lost() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    for (i, pid) in (0..).zip(60..80) {
        script.create(100 + 10 * i, pid, 50);
    }
    script.line(format!("T {} 1", ns(9000)));
    for (i, pid) in (0..).zip(60..80) {
        script.call_with_room(1, 9000 + i * 900, 3, &[(-5, pid, NOTE_CHILD, 50)]);
    }
    script.idle(40_000, &[3]);
    assert_eq!(script.births(), [(Verdict::Agreed, 20)]);
    assert_eq!(script.0.stats().trees[0].order_violations, [0; Order::COUNT]);
}

/// The next one begins with an empty table.
#[test]
fn a_consumer_that_ends_takes_the_damage_of_its_table_with_it() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.create(200, 51, 50);
    script.call(201, 3, &[(-5, 51, NOTE_CHILD, 50)]);
    script.exit(300, 51);
    script.idle(400, &[3]);
    assert_eq!(script.0.stats().trees[0].ghosts(), 1);
    script.exit(3600, 9);
    script.line(format!("T {} 1", ns(4000)));
    let tree = &script.0.stats().trees[0];
    assert_eq!((tree.ghosts(), tree.damage), (0, [0; Damage::COUNT]));
    assert_eq!(script.deaths()[0], LOST[0], "a verdict stays");
}

/// What a host does while a consumer does nothing takes no room for good, and blinds nobody, however small its table is.
#[test]
fn a_consumer_that_never_calls_kevent_costs_no_sight() {
    for (capacity, strangers) in [(1 << 15, 60_000), (1 << 10, 4000)] {
        let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
        script.create(50, 51, 50);
        script.create(51, 52, 51);
        for n in 0..strangers {
            let (ms, pid) = (100 + 2 * u64::from(n), 1000 + n);
            script.create(ms, pid, 1);
            script.exit(ms + 1, pid);
        }
        let end = 200 + 2 * u64::from(strangers);
        script.exit(end, 51);
        let events = [
            (-5, 51, NOTE_CHILD, 50),
            (-5, 52, NOTE_CHILD, 51),
            // Of a tree that was registered before DTrace came; its create was forgotten.
            (-5, 1000, NOTE_CHILD, 1),
        ];
        script.call(end + 100, 3, &events);
        script.idle(end + 200, &[3]);
        let mut pipeline = Pipeline::new(Config { capacity, ..Config::default() }, ());
        pipeline.push(Input::Consumer { id: TreeId(0), pid: Some(script.0.pid) });
        for lines in script.0.lines.chunks(100) {
            let bytes = lines.join("\n") + "\n";
            pipeline.push(Input::Stdout { at: MonoTime(0), bytes: bytes.as_bytes() });
        }
        pipeline.push(Input::End);
        let stats = pipeline.stats();
        let births = [(Verdict::Agreed, 2), (Verdict::Undecided, 1)];
        assert_eq!(verdicts(stats, Fact::Birth), births, "{capacity}");
        assert_eq!(verdicts(stats, Fact::Death), LOST, "{capacity}");
        assert_eq!((stats.evictions, stats.blind_seconds()), ([0; 3], 0.0), "{capacity}");
    }
}
