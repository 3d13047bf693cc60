//! Tests of the timeline as a whole: the order of events, which records are refused, and which gaps are reported.

use super::event::Gap;
use super::*;
use crate::check::Config;
use crate::model::Witness;
use crate::wire::decode::Reason;

const MS: u64 = 1_000_000;

/// A reorder horizon of 10 ms, a settle time of 100 ms, and room for everything.
fn timeline() -> Timeline {
    Timeline::new(Config {
        reorder_ns: 10 * MS,
        settle_ns: 100 * MS,
        capacity: 1000,
        ..Config::default()
    })
}

fn tick(ms: u64) -> Record {
    Record::Tick { at: KernelTime(ms * MS), wall: 0 }
}

fn mark(ms: u64, seq: u64) -> Record {
    Record::Mark(Mark {
        at: KernelTime(ms * MS),
        entered: KernelTime((ms - 1) * MS),
        capacity: Batch::capacity_of(seq),
        seq: None,
        returned: Some(0),
    })
}

/// A call on a clock that is 1 s ahead of DTrace's.
fn call(timeline: &mut Timeline, ms: u64, seq: u64) {
    let (before, after) = (MonoTime((ms + 999) * MS), MonoTime((ms + 1000) * MS + 9));
    let capacity = Batch::capacity_of(seq);
    assert!(timeline.call(&Batch { seq, capacity, before, after, attached: &[], events: &[] }));
}

/// Reads these records; why any of them was refused.
fn read(timeline: &mut Timeline, records: &[Record]) -> Vec<Reason> {
    let mut refused = vec![];
    for record in records {
        let Arrivals { held, record } = timeline.record(*record, MonoTime(0));
        for arrival in held.map(|(_, arrival)| arrival).into_iter().chain([record]) {
            if let Arrival::Refused(reason, _) = arrival {
                refused.push(reason);
            }
        }
    }
    refused
}

/// What comes now: calls by their numbers, `?` without a mark, and the times in milliseconds of everything else.
fn order(timeline: &mut Timeline) -> Vec<String> {
    let mut order = vec![];
    while let Some(next) = timeline.next() {
        match next {
            Next::Gap(_) => {}
            Next::Event(Event::Call(call)) => {
                let marked = if call.entered.is_some() { "" } else { "?" };
                order.push(format!("call{}@{}{marked}", call.seq, call.at.0 / MS));
            }
            _ => order.push((timeline.progress().at.0 / MS).to_string()),
        }
    }
    order
}

#[test]
fn a_call_takes_the_place_of_its_mark_whichever_comes_first() {
    let expected = ["1", "call0@2", "3", "call1@4", "5"];
    let mut early = timeline();
    call(&mut early, 2, 0);
    call(&mut early, 4, 1);
    read(&mut early, &[tick(1), mark(2, 0), tick(3), mark(4, 1), tick(5)]);
    early.end();
    assert_eq!(order(&mut early), expected);
    let mut late = timeline();
    read(&mut late, &[tick(1), mark(2, 0), tick(3), mark(4, 1), tick(5), tick(40)]);
    assert_eq!(order(&mut late), expected[..1]);
    call(&mut late, 2, 0);
    call(&mut late, 4, 1);
    assert_eq!(order(&mut late), expected[1..]);
}

#[test]
fn records_are_sorted_within_the_reorder_horizon_and_refused_beyond_it() {
    let mut timeline = timeline();
    read(&mut timeline, &[1, 9, 4, 30].map(tick));
    assert_eq!(order(&mut timeline), ["1", "4", "9"]);
    assert_eq!(read(&mut timeline, &[tick(5), tick(30)]), [Reason::Late, Reason::Duplicate]);
}

#[test]
fn a_call_without_a_mark_goes_where_the_clocks_allow() {
    let mut timeline = timeline();
    call(&mut timeline, 2, 0);
    call(&mut timeline, 4, 1);
    call(&mut timeline, 7, 2);
    let records = [tick(1), mark(2, 0), tick(3), tick(5), tick(6), mark(7, 2), tick(8), tick(50)];
    read(&mut timeline, &records);
    let expected = ["1", "call0@2", "3", "5", "call1@5?", "6", "call2@7"];
    assert_eq!(order(&mut timeline)[..7], expected);
}

#[test]
fn a_garbled_time_stamp_costs_itself() {
    let mut timeline = timeline();
    let garbled = tick(1 << 40);
    let refused = read(&mut timeline, &[garbled, tick(1), tick(2), garbled, tick(3)]);
    assert_eq!(refused, [Reason::Implausible; 2]);
    timeline.end();
    assert_eq!(order(&mut timeline), ["1", "2", "3"]);
}

/// The second one hid the first.
#[test]
fn two_records_that_are_refused_at_once_are_both_counted() {
    let mut timeline = timeline();
    let refused = read(&mut timeline, &[tick(1), tick(2), tick(1 << 40), tick(2)]);
    assert_eq!(refused, [Reason::Implausible, Reason::Duplicate]);
}

/// The first record of the new run is far from the last one before it, and waits for a second that confirms it.
#[test]
fn dtrace_begins_anew_after_an_outage_of_any_length() {
    for away_ms in [1000, 59_000, 61_000, 3_600_000] {
        let mut timeline = timeline();
        read(&mut timeline, &[tick(1), tick(2)]);
        timeline.dtrace_down();
        timeline.dtrace_up();
        let at = KernelTime((2 + away_ms) * MS);
        read(&mut timeline, &[Record::Begin { at, wall: 0 }, tick(3 + away_ms)]);
        let span = Span::Between(KernelTime(2 * MS), at);
        let begun = Gap { witness: Witness::Dtrace, reason: BlindReason::Outage, span };
        let gaps: Vec<Next> = std::iter::from_fn(|| timeline.next()).collect();
        assert!(gaps.contains(&Next::Gap(begun)), "{away_ms} ms: {gaps:?}");
    }
}

#[test]
fn after_an_outage_calls_wait_for_their_marks_again() {
    let mut timeline = timeline();
    call(&mut timeline, 2, 0);
    read(&mut timeline, &[tick(1), mark(2, 0), tick(3)]);
    timeline.dtrace_down();
    call(&mut timeline, 100, 1);
    assert_eq!(order(&mut timeline), ["1", "call0@2", "3", "call1@101?"]);
    timeline.dtrace_up();
    call(&mut timeline, 190, 2);
    call(&mut timeline, 200, 3);
    let refused = read(&mut timeline, &[tick(195), mark(200, 3), tick(205), tick(300)]);
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(order(&mut timeline), ["call2@191?", "195", "call3@200", "205"]);
}

#[test]
fn without_dtrace_calls_do_not_wait() {
    let mut timeline = timeline();
    call(&mut timeline, 2, 0);
    assert!(order(&mut timeline).is_empty());
    timeline.dtrace_down();
    assert_eq!(order(&mut timeline).len(), 1);
}

/// Both ends of what is missing are known as soon as they can be.
#[test]
fn gaps_come_at_once() {
    let mut timeline = timeline();
    read(&mut timeline, &[tick(1), tick(2)]);
    order(&mut timeline);
    timeline.bad_line();
    let gap =
        |span| Next::Gap(Gap { witness: Witness::Dtrace, reason: BlindReason::BadLine, span });
    assert_eq!(timeline.next(), Some(gap(Span::Since(KernelTime(2 * MS)))));
    read(&mut timeline, &[tick(3)]);
    assert_eq!(timeline.next(), Some(gap(Span::Until(KernelTime(3 * MS)))));
    assert_eq!(timeline.next(), None);
}

/// A call cannot have begun before the one before it returned; when it began may be unknown.
#[test]
fn only_a_known_beginning_contradicts_a_clock() {
    let blind = |entered_ms: u64| {
        let mut timeline = timeline();
        call(&mut timeline, 100, 0);
        call(&mut timeline, 110, 1);
        let Record::Mark(second) = mark(110, 1) else { unreachable!() };
        let second = Mark { entered: KernelTime(entered_ms * MS), ..second };
        read(&mut timeline, &[mark(100, 0), Record::Mark(second), tick(200)]);
        let clock =
            |next: &Next| matches!(next, Next::Gap(gap) if gap.reason == BlindReason::Clock);
        let mut gaps = 0;
        while let Some(next) = timeline.next() {
            gaps += usize::from(clock(&next));
        }
        gaps
    };
    assert_eq!([0, 50, 90, 100].map(blind), [0, 1, 0, 0]);
}
