//! Tests of the simulated DTrace.

use super::*;
use crate::model::KernelTime;
use crate::wire::decode::decode;
use crate::wire::record::Kind;

fn small(buffer: u32) -> (Dtrace, Truth) {
    let options = Options { buffer, ..Options::default() };
    let mut dtrace = Dtrace::new(&options, &mut Rng::new(0));
    dtrace.start();
    (dtrace, Truth::new(100))
}

fn pid(n: u64) -> Pid {
    Pid::new(n).unwrap()
}

#[test]
fn every_line_decodes_to_its_kind() {
    let (mut dtrace, mut truth) = small(4096);
    let all = [
        (Traced::Begin, Kind::Begin),
        (Traced::Tick, Kind::Tick),
        (
            Traced::Create { child: pid(2), forker: pid(1), parent: pid(1), flags: 0x14 },
            Kind::Create,
        ),
        (Traced::Exit { pid: pid(2), parent: pid(1), status: 9 }, Kind::Exit),
        (Traced::Exec { pid: pid(2) }, Kind::Exec),
        (Traced::ExecFail { pid: pid(2), errno: 2 }, Kind::ExecFail),
        (Traced::CallMark { returned: false, seq: 7 }, Kind::CallMark),
        (Traced::CallMark { returned: true, seq: 7 }, Kind::Mark),
        (Traced::Causes, Kind::Causes),
        (Traced::RegFail { forker: pid(1), child: pid(2), errno: 12 }, Kind::RegFail),
        (Traced::Influx { forker: pid(1), child: pid(2) }, Kind::Influx),
    ];
    for (i, (traced, _)) in all.iter().enumerate() {
        dtrace.fire(i as u64, 0, traced.clone(), None, &mut truth);
    }
    dtrace.finish(100, &mut truth);
    let text = String::from_utf8(dtrace.stdout).unwrap();
    let mut kinds = vec![];
    text.lines().for_each(|l| decode(l.as_bytes(), |r| kinds.push(r.kind())).unwrap());
    assert_eq!(kinds, all.map(|(_, kind)| kind));
}

#[test]
fn a_full_buffer_drops_and_says_so() {
    let (mut dtrace, mut truth) = small(2 * (12 + 24));
    for i in 0..5 {
        dtrace.fire(10 + i, 1, Traced::Exec { pid: pid(9) }, None, &mut truth);
    }
    dtrace.switch(20, 0, &mut truth);
    dtrace.switch(21, 1, &mut truth);
    dtrace.begin_pass();
    assert!(dtrace.print(&mut truth).pass_is_over);
    assert_eq!(dtrace.stderr, b"dtrace: 3 drops on CPU 1\n");
    assert_eq!(dtrace.stdout, b"E 10 1 9\nE 11 1 9\n");
    assert_eq!(truth.blind, [(KernelTime(12), KernelTime(21))]);
}

#[test]
fn a_long_pass_has_printed_most_before_it_tells_of_drops() {
    let (mut dtrace, mut truth) = small(1000 * (12 + 24));
    for i in 0..1001 {
        dtrace.fire(i, 0, Traced::Exec { pid: pid(9) }, None, &mut truth);
    }
    dtrace.switch(2000, 0, &mut truth);
    dtrace.begin_pass();
    let PrintedRecords { records, pass_is_over } = dtrace.print(&mut truth);
    assert!(records > 0 && !pass_is_over);
    assert_eq!((dtrace.stdout.len(), dtrace.stderr.len()), (STDIO_BUFFER, 0));
    while !dtrace.print(&mut truth).pass_is_over {}
    assert_eq!(dtrace.stderr, b"dtrace: 1 drop on CPU 0\n");
    assert_eq!(dtrace.stdout.split(|byte| *byte == b'\n').count(), 1001);
}

#[test]
fn buffers_are_printed_in_turn_where_they_are_not_merged() {
    let lines = |in_turn| {
        let options = Options { in_turn, ..Options::default() };
        let mut dtrace = Dtrace::new(&options, &mut Rng::new(0));
        let mut truth = Truth::new(100);
        dtrace.start();
        for (at, cpu) in [(10, 1), (11, 0), (12, 1)] {
            dtrace.fire(at, cpu, Traced::Exec { pid: pid(9) }, None, &mut truth);
        }
        dtrace.finish(20, &mut truth);
        String::from_utf8(dtrace.stdout).unwrap()
    };
    assert_eq!(lines(false), "E 10 1 9\nE 11 0 9\nE 12 1 9\n\n");
    assert_eq!(lines(true), "E 11 0 9\nE 10 1 9\nE 12 1 9\n\n");
}

#[test]
fn a_record_from_after_the_first_switch_waits_for_the_next_pass() {
    let (mut dtrace, mut truth) = small(4096);
    dtrace.fire(30, 1, Traced::Exec { pid: pid(9) }, None, &mut truth);
    dtrace.switch(29, 0, &mut truth);
    dtrace.switch(31, 1, &mut truth);
    dtrace.begin_pass();
    assert!(dtrace.print(&mut truth).pass_is_over);
    assert!(dtrace.stdout.is_empty());
    dtrace.switch(40, 0, &mut truth);
    dtrace.switch(41, 1, &mut truth);
    dtrace.begin_pass();
    assert!(dtrace.print(&mut truth).pass_is_over);
    assert_eq!(dtrace.stdout, b"E 30 1 9\n");
}
