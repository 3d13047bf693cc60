//! Tests of the simulated consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::input::Input;
use crate::model::{Pid, TreeId};
use crate::sim::{self, Options};
use crate::wire::decode::decode;

/// What dtrace printed in a run with four consumers, and which processes they were.
fn run(seed: u64) -> (String, Vec<(TreeId, Option<Pid>)>) {
    let options = Options { consumers: 4, mirror: false, count: 60, ..Options::default() };
    let (mut text, mut processes) = (String::new(), vec![]);
    sim::run(seed, &options, &mut |input: Input<'_>| {
        match input {
            Input::Stdout { bytes, .. } => text += &String::from_utf8_lossy(bytes),
            Input::Consumer { id, pid } => processes.push((id, pid)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    (text, processes)
}

#[test]
fn every_line_is_as_the_wire_defines_it() {
    for seed in 0..8 {
        let (text, _) = run(seed);
        for line in text.lines().filter(|line| !line.is_empty()) {
            decode(line.as_bytes(), |_| ()).unwrap_or_else(|error| panic!("{error:?}: {line}"));
        }
    }
}

/// Each habit shows in some of the runs.
#[test]
fn consumers_do_all_that_the_cross_check_knows_of() {
    let (mut habits, mut addresses, mut threads) =
        (BTreeSet::new(), BTreeMap::new(), BTreeMap::<_, BTreeSet<String>>::new());
    for seed in 0..60 {
        let (text, processes) = run(seed);
        let ends: Vec<_> = processes.iter().filter(|(_, pid)| pid.is_none()).collect();
        habits.extend((!ends.is_empty()).then(|| "it ends".to_owned()));
        habits.extend((processes.len() > 4 + ends.len()).then(|| "it comes back".to_owned()));
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let pid = fields.last().copied().unwrap_or_default();
            match fields[0] {
                "A" => {
                    habits.insert(format!("flags {}", fields[9]));
                    habits.insert(format!("notes {}", fields[10]));
                    let before = addresses
                        .insert((seed, pid.to_owned(), fields[5].to_owned()), fields[6].to_owned());
                    habits.extend(
                        before.is_some_and(|it| it != fields[6]).then(|| "it reopens".to_owned()),
                    );
                }
                "a" => drop(habits.insert(format!("errno {}", fields[4]))),
                "N" => {
                    habits.insert(format!("fd {}, {} events", fields[4], fields[5]));
                    habits.insert(format!("filter {}", fields[7]));
                    threads
                        .entry((seed, pid.to_owned(), fields[4].to_owned()))
                        .or_default()
                        .insert(fields[3].to_owned());
                }
                "M" => drop(habits.insert(format!("returned {}", fields[6]))),
                _ => {}
            }
        }
    }
    let two = threads.values().any(|tids| tids.len() == 2);
    habits.extend(two.then(|| "two threads of one kqueue".to_owned()));
    for habit in [
        "it ends",
        "it comes back",
        "it reopens",
        "two threads of one kqueue",
        "fd 4, 1 events",
        "fd 3, 8 events",
        "filter -7",
        "returned -1",
        "returned 0",
        "errno 0",
        "errno 2",
        "errno 3",
        "flags 1",
        "flags 2",
        "flags 4",
        "flags 8",
        "flags 11",
        "flags 21",
        "flags 41",
        "flags 81",
        "notes 80000001",
        "notes c0000001",
        "notes a0000001",
        "notes e0000001",
        "notes 1",
        "notes 80000000",
        "notes 20000000",
    ] {
        assert!(habits.contains(habit), "{habit}: {habits:?}");
    }
}
