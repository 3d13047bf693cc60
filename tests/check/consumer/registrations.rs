//! What a consumer's registrations make a fact, and what ends that.

use kqproc_exporter::check::stats::{Order, Refusal};
use kqproc_exporter::model::{Verdict, VerdictClass};

use super::script::*;

/// Process 50 forks 51, and both end: the facts without any of their notes.
#[test]
fn what_was_registered_decides_what_is_a_fact() {
    for (notes, births, deaths) in [
        (NOTE_TRACK | NOTE_EXIT, LOST.to_vec(), vec![(Verdict::LostSilent, 2)]),
        (NOTE_TRACK, LOST.to_vec(), vec![]),
        (NOTE_EXIT, vec![], LOST.to_vec()),
        (NOTE_FORK, vec![], vec![]),
    ] {
        let mut script = Script::new(notes);
        script.create(200, 51, 50);
        script.exit(300, 51);
        script.exit(301, 50);
        script.idle(400, &[3]);
        assert_eq!((script.births(), script.deaths()), (births, deaths), "{notes:x}");
    }
}

#[test]
fn a_refused_registration_is_no_fact() {
    let mut script = Script::new(NOTE_TRACK);
    script.create(100, 60, 9);
    script.exit(110, 60);
    script.register(120, (3, "a1"), 60, EV_ADD, NOTE_EXIT, 3);
    script.idle(200, &[3]);
    assert_eq!(script.deaths(), NONE);
    assert_eq!(refused(&script.0.stats().trees[0]), 1);
}

#[test]
fn what_was_deleted_or_disabled_is_not_missing() {
    for flags in [EV_DELETE, EV_DISABLE] {
        let mut script = Script::new(NOTE_EXIT);
        script.register(100, (3, "a1"), 50, flags, 0, 0);
        script.exit(200, 50);
        script.idle(300, &[3]);
        assert_eq!(script.deaths(), NONE, "{flags:x}");
        // Registered again, it is watched again; but a knote that is there and disabled is not enabled by EV_ADD alone.
        for (again, deaths) in [
            (EV_ADD, if flags == EV_DELETE { &LOST[..] } else { &NONE }),
            (EV_ADD | EV_ENABLE, &LOST),
        ] {
            script = Script::new(NOTE_EXIT);
            script.register(100, (3, "a1"), 50, flags, 0, 0);
            script.register(110, (3, "a1"), 50, again, NOTE_EXIT, 0);
            script.exit(200, 50);
            script.idle(300, &[3]);
            assert_eq!(script.deaths(), deaths, "{flags:x} {again:x}");
        }
    }
}

/// Before 13.2 NOTE_EXIT is queued before proc:::exit fires: it may not have been asked for yet.
#[test]
fn an_exit_right_after_a_registration_was_changed_is_not_missed() {
    for (changed, deaths) in [(100, &LOST[..]), (190, &NONE)] {
        let mut script = Script::new(NOTE_EXIT);
        script.register(changed, (3, "a1"), 50, EV_ADD, NOTE_EXIT, 0);
        script.exit(200, 50);
        script.idle(300, &[3]);
        assert_eq!(script.deaths(), deaths, "{changed}");
    }
}

/// The process had a knote, or there was nothing to delete.
#[test]
fn a_knote_from_before_dtrace_that_is_deleted_reports_nothing() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.register(100, (3, "a1"), 70, EV_DELETE, 0, 0);
    script.create(110, 71, 70);
    // The kernel had announced it before.
    script.create(90, 72, 70);
    script.call(150, 3, &[(-5, 72, NOTE_CHILD, 70)]);
    script.exit(300, 70);
    script.idle(400, &[3]);
    assert_eq!((script.births(), script.deaths()), (AGREED.into(), NONE.into()));
}

/// A knote that was disabled from the beginning is there: its process is watched, and reports nothing until it is enabled.
#[test]
fn a_process_that_is_registered_disabled_has_no_birth_to_report() {
    let track = NOTE_TRACK | NOTE_EXIT;
    let mut script = Script::new(track);
    script.create(20, 60, 50);
    script.call(30, 3, &[(-5, 60, NOTE_CHILD, 50)]);
    script.create(100, 61, 9);
    script.register(110, (3, "a1"), 61, EV_ADD | EV_DISABLE, track, 0);
    script.register(120, (3, "a1"), 61, EV_ADD, track, 0);
    script.create(200, 62, 61);
    script.exit(210, 62);
    script.exit(220, 61);
    script.idle(300, &[3]);
    assert_eq!((script.births(), script.deaths()), (AGREED.to_vec(), NONE.to_vec()));
}

/// The pid is used again while NOTE_EXIT of the process before is queued: the registration finds the knote of that one.
#[test]
fn a_registration_that_finds_the_knote_of_the_life_before_tracks_nothing() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.exit(100, 50);
    script.create(120, 50, 9);
    script.register(130, (3, "a1"), 50, EV_ADD, NOTE_TRACK | NOTE_EXIT, 0);
    script.call(140, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    script.create(200, 51, 50);
    script.exit(210, 51);
    script.exit(220, 50);
    script.idle(300, &[3]);
    assert_eq!((script.births(), script.deaths()), (NONE.to_vec(), vec![(Verdict::Undecided, 1)]));
}

/// Where pids are given out at random (kern.randompid), one may come back within milliseconds. The life before was none of the
/// consumer's, and was forgotten.
#[test]
fn a_pid_that_comes_back_at_once_has_not_ended() {
    for status in [256, 0] {
        let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
        script.create(20, 51, 1);
        script.idle(100, &[3]);
        script.exit(5000, 51);
        script.create(5020, 51, 50);
        script.call(5030, 3, &[(-5, 51, NOTE_CHILD, 50)]);
        script.idle(5100, &[3]);
        assert_eq!(script.births(), AGREED);
        assert!(script.deaths().iter().all(|(v, _)| *v == Verdict::Undecided), "{status}");
        script.line(format!("X {} 0 51 50 1 {status}", ns(9000)));
        script.call(9010, 3, &[(-5, 51, NOTE_EXIT, status)]);
        script.idle(9100, &[3]);
        assert!(script.deaths().iter().all(|(v, _)| v.class() != VerdictClass::Lost), "{status}");
    }
    // It ends soon.
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.create(20, 51, 1);
    script.idle(100, &[3]);
    script.exit(5000, 51);
    script.create(5020, 51, 50);
    script.line(format!("X {} 0 51 50 1 0", ns(5100)));
    script.call(5110, 3, &[(-5, 51, NOTE_CHILD, 50), (-5, 51, NOTE_EXIT, 0)]);
    script.idle(5200, &[3]);
    let good = |(verdict, _): &(Verdict, u64)| verdict.is_good() || *verdict == Verdict::Undecided;
    let facts = [script.births(), script.deaths()].concat();
    assert!(facts.iter().all(good), "{facts:?}");
}

/// A supervisor knows the pid of its grandchild otherwise, and gives it up before it reads NOTE_CHILD.
#[test]
fn a_knote_that_is_deleted_before_its_note_child_is_delivered_is_not_missing() {
    let mut script = Script::new(NOTE_TRACK | NOTE_EXIT);
    script.create(100, 51, 50);
    script.register(110, (3, "a1"), 51, EV_DELETE, 0, 0);
    script.call(120, 3, &[(-5, 51, NOTE_CHILD, 50)]);
    script.create(200, 52, 51);
    script.exit(210, 52);
    script.exit(220, 51);
    script.idle(300, &[3]);
    assert_eq!((script.births(), script.deaths()), (AGREED.to_vec(), NONE.to_vec()));
}

#[test]
fn events_of_other_filters_are_no_notes() {
    let mut script = Script::new(NOTE_EXIT);
    script.exit(200, 50);
    script.call(300, 3, &[(-1, 50, NOTE_EXIT, 7), (-5, 50, NOTE_EXIT, 256), (-7, 1, 0, 1)]);
    script.idle(400, &[3]);
    assert_eq!(script.deaths(), AGREED);
    assert_eq!(script.0.stats().trees[0].order_violations, [0; Order::COUNT]);
}

/// One that waits for sockets alone is drained all the time, and says nothing about processes.
#[test]
fn a_kqueue_without_processes_settles_nothing() {
    let mut script = Script::new(NOTE_EXIT);
    script.exit(200, 50);
    script.idle(300, &[4]);
    assert_eq!(script.deaths(), [(Verdict::Undecided, 1)]);
}

#[test]
fn a_process_in_two_kqueues_has_one_death_that_either_may_report() {
    for reports in [3, 4] {
        let mut script = Script::new(NOTE_EXIT);
        script.register(20, (4, "a2"), 50, EV_ADD, NOTE_EXIT, 0);
        script.exit(200, 50);
        script.call(1000, 3 + 4 - reports, &[]);
        script.call(2000, reports, &[(-5, 50, NOTE_EXIT, 256)]);
        script.idle(2100, &[3, 4]);
        assert_eq!(script.deaths(), AGREED, "{reports}");
    }
    let mut script = Script::new(NOTE_EXIT);
    script.register(20, (4, "a2"), 50, EV_ADD, NOTE_EXIT, 0);
    script.exit(200, 50);
    script.call(300, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    script.call(301, 4, &[(-5, 50, NOTE_EXIT, 256)]);
    script.idle(400, &[3, 4]);
    assert_eq!(script.deaths(), AGREED);
    assert_eq!(script.0.stats().trees[0].order_violations, [0; Order::COUNT]);
}

#[test]
fn a_closed_kqueue_and_the_consumers_own_end_leave_what_is_open_undecided() {
    let undecided = [(Verdict::Undecided, 1)];
    let mut closed = Script::new(NOTE_EXIT);
    closed.exit(200, 50);
    closed.register(250, (3, "b7"), 70, EV_ADD, NOTE_EXIT, 3);
    closed.idle(300, &[3]);
    assert_eq!(closed.deaths(), undecided);
    let mut ended = Script::new(NOTE_EXIT);
    ended.exit(200, 50);
    ended.exit(250, 9);
    ended.idle(300, &[3]);
    assert_eq!(ended.deaths(), undecided);
}

/// The pid file names consumer 19 before DTrace's last records of consumer 9 come.
fn replaced() -> Script {
    let mut script = Script::new(NOTE_EXIT);
    script.create(20, 55, 1);
    script.register(30, (3, "a1"), 55, EV_ADD, NOTE_EXIT, 0);
    script.line("consumer 19".to_owned());
    script.exit(200, 50);
    script.call(210, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    script.exit(250, 9);
    let old = script.0.lines.len();
    script.create(290, 60, 1);
    script.register(300, (3, "c1"), 60, EV_ADD, NOTE_EXIT, 0);
    script.exit(310, 55);
    script.exit(400, 60);
    script.call(450, 3, &[(-5, 60, NOTE_EXIT, 256)]);
    script.idle(500, &[3]);
    for line in &mut script.0.lines[old..] {
        if let Some(head) = line.strip_suffix(" 9") {
            *line = format!("{head} 19").replace(" 0 77 ", " 0 78 ");
        }
    }
    script
}

#[test]
fn a_consumer_that_is_replaced_keeps_its_last_records_and_accuses_nobody_afterwards() {
    let agreed = |script: &Script| {
        let deaths = script.deaths();
        assert!(deaths.iter().all(|(v, _)| v.class() != VerdictClass::Lost), "{deaths:?}");
        deaths.iter().find(|(verdict, _)| *verdict == Verdict::Agreed).map(|(_, n)| *n)
    };
    let mut script = replaced();
    assert_eq!(agreed(&script), Some(2));
    // DTrace did not print the end of the first one.
    script.0.lines.retain(|line| !line.starts_with("X 250000000 "));
    assert_eq!(agreed(&script), Some(2));
}

/// Its registration is older than DTrace: NOTE_CHILD that names it as the parent proves it.
#[test]
fn a_process_is_tracked_from_the_first_event_that_names_it() {
    let mut script = Script::new(0);
    script.0.lines.truncate(1);
    script.create(100, 51, 50);
    script.call(200, 3, &[(-5, 51, NOTE_CHILD, 50)]);
    script.create(300, 52, 50);
    script.idle(400, &[3]);
    assert_eq!(script.births(), [(Verdict::Agreed, 1), (Verdict::LostSilent, 1)]);
    script.0.lines.retain(|line| !line.starts_with("N "));
    assert_eq!(script.births(), NONE);
}

/// Whom a registration names that kevent(2) refuses, and why.
#[test]
fn refused_registrations_are_counted_by_errno() {
    let mut script = Script::new(NOTE_EXIT);
    for (pid, errno) in [(60, 3), (61, 3), (62, 2), (63, 5)] {
        script.register(pid.into(), (3, "a1"), pid, EV_ADD, NOTE_EXIT, errno);
    }
    let consumer = script.0.stats().trees[0].consumer.clone().expect("a consumer");
    let refused = Refusal::ALL.iter().map(|why| (why.as_str(), consumer.refused[why.index()]));
    let refused: Vec<_> = refused.filter(|(_, n)| *n > 0).collect();
    assert_eq!(refused, [("ENOENT", 1), ("ESRCH", 2), ("other", 1)]);
}

/// An EV_ONESHOT knote goes with its first event, an EV_DISPATCH one is disabled by it: it has nothing more to deliver.
#[test]
fn a_knote_that_its_first_event_has_used_up_is_not_missed() {
    for flag in [EV_ONESHOT, EV_DISPATCH] {
        let mut script = Script::new(0);
        script.register(100, (3, "a1"), 50, EV_ADD | flag, NOTE_EXIT | NOTE_FORK, 0);
        let mut unused = script.clone();
        unused.exit(250, 50);
        unused.idle(300, &[3]);
        assert_eq!(unused.deaths(), LOST, "{flag:x}");
        script.call(150, 3, &[(-5, 50, NOTE_FORK, 0)]);
        // An event has the flags of its knote.
        let copied = script.0.lines.iter_mut().rfind(|line| line.starts_with("N ")).unwrap();
        *copied = copied.replacen(" -5 20 ", &format!(" -5 {:x} ", 0x20 | flag), 1);
        let mut enabled = script.clone();
        script.exit(250, 50);
        script.idle(300, &[3]);
        assert_eq!(script.deaths(), NONE, "{flag:x}");
        enabled.register(160, (3, "a1"), 50, EV_ADD | EV_ENABLE, NOTE_EXIT, 0);
        enabled.exit(250, 50);
        enabled.idle(300, &[3]);
        assert_eq!(enabled.deaths(), LOST, "{flag:x}");
    }
}

/// Disabled, it keeps what happened, and delivers it once it is enabled: behind what was queued in between.
#[test]
fn what_happened_to_a_disabled_knote_is_delivered_when_it_is_enabled() {
    let mut script = Script::new(NOTE_EXIT);
    script.create(20, 60, 9);
    script.register(30, (3, "a1"), 60, EV_ADD, NOTE_EXIT, 0);
    script.register(100, (3, "a1"), 50, EV_DISABLE, 0, 0);
    script.exit(200, 50);
    script.exit(3000, 60);
    script.register(3100, (3, "a1"), 50, EV_ENABLE, NOTE_EXIT, 0);
    script.call_with_room(1, 3200, 3, &[(-5, 60, NOTE_EXIT, 256)]);
    script.line(format!("T {} 1", ns(3500)));
    script.call_with_room(1, 3900, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    script.idle(4000, &[3]);
    assert_eq!(script.deaths(), [(Verdict::Agreed, 2)]);
    assert_eq!(script.0.stats().trees[0].order_violations, [0; Order::COUNT]);
}

/// A process that has ended and was not waited for can be registered: its NOTE_EXIT is queued then, behind what is there.
#[test]
fn a_process_that_is_registered_after_its_end_is_not_lost() {
    let mut script = Script::new(NOTE_EXIT);
    script.create(20, 60, 9);
    script.exit(200, 60);
    script.exit(3000, 50);
    script.register(3100, (3, "a1"), 60, EV_ADD, NOTE_EXIT, 0);
    script.call_with_room(1, 3200, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    script.line(format!("T {} 1", ns(3500)));
    script.call_with_room(1, 3900, 3, &[(-5, 60, NOTE_EXIT, 256)]);
    script.idle(4000, &[3]);
    assert_eq!(script.deaths(), [(Verdict::Agreed, 2)]);
}

/// The pid of a process that has ended is used again, and registered again.
#[test]
fn a_pid_that_is_registered_again_is_another_life() {
    let mut script = Script::new(NOTE_EXIT);
    script.exit(200, 50);
    script.call(201, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    script.create(1000, 50, 9);
    script.register(1100, (3, "a1"), 50, EV_ADD, NOTE_EXIT, 0);
    script.exit(1200, 50);
    script.idle(1300, &[3]);
    assert_eq!(script.deaths(), [(Verdict::Agreed, 1), (Verdict::LostSilent, 1)]);
}

/// Another thread of the consumer's is in kevent(2), and registers, at the same time.
#[test]
fn threads_of_a_consumer_are_kept_apart() {
    let mut script = Script::new(NOTE_EXIT);
    script.create(20, 60, 9);
    let begin = script.0.lines.len();
    // The registration of one thread is between those of the other, and their events are copied out in turn.
    script.register(100, (3, "a1"), 60, EV_ADD, NOTE_EXIT, 0);
    script.call(400, 3, &[(-5, 60, NOTE_EXIT, 256)]);
    let of_other = |line: &String| line.replace(" 0 77 ", " 0 78 ");
    let other: Vec<String> = script.0.lines.drain(begin..).map(|line| of_other(&line)).collect();
    let [registers, registered, copied, returned] = &other[..] else { panic!("four lines") };
    script.line(registers.clone());
    script.line(format!("A {} 0 77 1 3 a1 70 -5 1 80000000 0 9", ns(100) + 100));
    script.line(format!("a {} 0 77 3 9", ns(100) + 200));
    script.line(registered.clone());
    script.exit(200, 60);
    script.exit(201, 50);
    script.line(copied.clone());
    script.call(400, 3, &[(-5, 50, NOTE_EXIT, 256)]);
    script.line(returned.replace(&ns(400).to_string(), &(ns(400) + 10).to_string()));
    script.idle(500, &[3]);
    assert_eq!(script.deaths(), [(Verdict::Agreed, 2)]);
    let tree = &script.0.stats().trees[0];
    assert_eq!((refused(tree), tree.order_violations), (1, [0; Order::COUNT]));
}
