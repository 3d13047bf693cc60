use super::*;
use crate::wire::decode::Reason;

const MS: u64 = 1_000_000;

fn align() -> Align {
    Align::new(10 * MS, 100 * MS, 1000)
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

/// A batch on a clock that is 1 s ahead of DTrace's.
fn batch(align: &mut Align, ms: u64, seq: u64) {
    let (before, after) = (MonoTime((ms + 999) * MS), MonoTime((ms + 1000) * MS + 9));
    let capacity = Batch::capacity_of(seq);
    assert!(align.batch(&Batch { seq, capacity, before, after, attached: &[], events: &[] }));
}

fn tell(align: &mut Align, record: Record) -> Arrival {
    align.record(record.at(), record, MonoTime(0))
}

fn order(align: &mut Align) -> Vec<String> {
    std::iter::from_fn(|| align.next())
        .map(|step| match step {
            Step::Record(r) => format!("{}@{}", r.record.kind(), r.at.0 / MS),
            Step::Batch(b) => {
                let marked = if b.entered.is_some() { "" } else { "?" };
                format!("batch{}@{}{marked}", b.head.seq, b.at.0 / MS)
            }
        })
        .collect()
}

#[test]
fn a_batch_takes_the_place_of_its_mark_whichever_comes_first() {
    let expected = ["tick@1", "batch0@2", "tick@3", "batch1@4", "tick@5"];
    let mut early = align();
    batch(&mut early, 2, 0);
    batch(&mut early, 4, 1);
    for r in [tick(1), mark(2, 0), tick(3), mark(4, 1), tick(5)] {
        early.record(r.at(), r, MonoTime(0));
    }
    early.end();
    assert_eq!(order(&mut early), expected);
    let mut late = align();
    for r in [tick(1), mark(2, 0), tick(3), mark(4, 1), tick(5), tick(40)] {
        late.record(r.at(), r, MonoTime(0));
    }
    assert_eq!(order(&mut late), expected[..1]);
    batch(&mut late, 2, 0);
    batch(&mut late, 4, 1);
    assert_eq!(order(&mut late), expected[1..]);
}

#[test]
fn records_are_sorted_within_the_horizon_and_refused_behind_it() {
    let mut align = align();
    for ms in [1, 9, 4, 30] {
        tell(&mut align, tick(ms));
    }
    assert_eq!(order(&mut align), ["tick@1", "tick@4", "tick@9"]);
    let late = tell(&mut align, tick(5));
    assert_eq!(late, Arrival::Refused(Reason::Late, KernelTime(5 * MS)));
    let twice = tell(&mut align, tick(30));
    assert_eq!(twice, Arrival::Refused(Reason::Duplicate, KernelTime(30 * MS)));
}

#[test]
fn a_batch_without_a_mark_goes_where_the_clocks_allow() {
    let mut align = align();
    batch(&mut align, 2, 0);
    batch(&mut align, 4, 1);
    batch(&mut align, 7, 2);
    for r in [tick(1), mark(2, 0), tick(3), tick(5), tick(6), mark(7, 2), tick(8), tick(50)] {
        align.record(r.at(), r, MonoTime(0));
    }
    let expected = ["tick@1", "batch0@2", "tick@3", "tick@5", "batch1@5?", "tick@6", "batch2@7"];
    assert_eq!(order(&mut align)[..7], expected);
}

#[test]
fn a_garbled_time_stamp_costs_itself() {
    let mut align = align();
    assert_eq!(tell(&mut align, tick(1 << 40)), Arrival::Held);
    let refused = tell(&mut align, tick(1));
    assert!(matches!(refused, Arrival::Refused(Reason::Implausible, _)));
    tell(&mut align, tick(2));
    assert_eq!(tell(&mut align, tick(1 << 40)), Arrival::Held);
    let refused = tell(&mut align, tick(3));
    assert!(matches!(refused, Arrival::Refused(Reason::Implausible, _)));
    align.end();
    assert_eq!(order(&mut align), ["tick@1", "tick@2", "tick@3"]);
}

#[test]
fn after_an_outage_batches_wait_for_their_marks_again() {
    let mut align = align();
    batch(&mut align, 2, 0);
    for r in [tick(1), mark(2, 0), tick(3)] {
        align.record(r.at(), r, MonoTime(0));
    }
    align.lose_sight();
    batch(&mut align, 100, 1);
    let expected = ["tick@1", "batch0@2", "tick@3", "batch1@101?"];
    assert_eq!(order(&mut align), expected);
    align.regain_sight();
    batch(&mut align, 190, 2);
    batch(&mut align, 200, 3);
    for r in [tick(195), mark(200, 3), tick(205), tick(300)] {
        assert_eq!(align.record(r.at(), r, MonoTime(0)), Arrival::Queued);
    }
    assert_eq!(order(&mut align), ["batch2@191?", "tick@195", "batch3@200", "tick@205"]);
}

#[test]
fn without_dtrace_batches_do_not_wait() {
    let mut align = align();
    batch(&mut align, 2, 0);
    assert!(order(&mut align).is_empty());
    align.lose_sight();
    assert_eq!(order(&mut align).len(), 1);
}
