//! Tree damage and strategies: what a tracker would have believed in recordings of real kernels and in simulated runs, and
//! the figures of docs/strategies.md.

use crate::common::streams::Streams;
use crate::common::{path, played, read};
use kqproc_exporter::check::damage::Damage;
use kqproc_exporter::check::stats::{Stats, TreeStats};
use kqproc_exporter::check::strategies::Strategy;
use kqproc_exporter::model::{Kevent, Regime, Verdict, note};
use kqproc_exporter::report::page::StrategyRow;
use kqproc_exporter::sim::{Options, Shape};

fn tree(recording: &str) -> TreeStats {
    let Stats { mut trees, .. } = Streams::of(recording).play_in_time();
    trees.remove(0)
}

/// The kinds of damage that happened, with their numbers.
fn damage(tree: &TreeStats) -> Vec<(&'static str, u64)> {
    let all = Damage::ALL.iter().map(|d| (d.as_str(), tree.damage[d.index()]));
    all.filter(|(_, n)| *n > 0).collect()
}

fn recovered(tree: &TreeStats) -> Vec<(&'static str, u64)> {
    let all = Strategy::ALL.iter().map(|s| (s.as_str(), tree.recovered(*s)));
    all.filter(|(_, n)| *n > 0).collect()
}

#[test]
fn the_reporter_of_pr_180385_loses_parents_and_two_kqueues_keep_them() {
    for (recording, births, wrong, nobody) in
        [("merged-enoent-drain", 600, 122, 122), ("merged-exit-stall", 600, 564, 563)]
    {
        let tree = tree(recording);
        let expected = [("wrong_parent", wrong), ("adopted_by_nobody", nobody)];
        assert_eq!(damage(&tree), expected, "{recording}");
        let expected = [("two_kqueues", wrong), ("udata_cookie", wrong)];
        assert_eq!(recovered(&tree), expected, "{recording}");
        let right = |s: Strategy| tree.strategies[s.index()];
        assert_eq!(right(Strategy::Naive).parents, births - wrong, "{recording}");
        assert_eq!(right(Strategy::TwoKqueues).parents, births, "{recording}");
        assert_eq!(right(Strategy::Cookie).parents, births - wrong, "{recording}");
        assert_eq!(right(Strategy::Cookie).members, births, "{recording}");
    }
}

#[test]
fn descendants_of_a_wrong_or_unknown_parent_are_cut_off() {
    let tree = tree("merged-orphan");
    let expected =
        [("wrong_parent", 184), ("adopted_by_nobody", 184), ("cut_off", 60), ("unknown", 1)];
    assert_eq!(damage(&tree), expected);
    let right = |s: Strategy| tree.strategies[s.index()];
    assert_eq!(right(Strategy::Naive).members, 400 - 184 - 60 - 1);
    // The one that was lost, and its child.
    assert_eq!(right(Strategy::TwoKqueues).members, 400 - 2);
    assert_eq!(right(Strategy::Cookie).members, 400 - 1);
}

#[test]
fn split_kernels_do_no_damage_but_repeat_themselves() {
    for (recording, duplicates) in [
        ("split-13.2-enoent-drain", 0),
        ("split-13.2-chain-stall", 5691),
        ("split-15.1-orphan", 141),
        ("split-13.2-drops", 0),
    ] {
        let tree = tree(recording);
        assert_eq!(damage(&tree), [], "{recording}");
        assert_eq!(tree.recovered(Strategy::Dedupe), duplicates, "{recording}");
        assert_eq!(tree.recovered(Strategy::TwoKqueues), 0, "{recording}");
    }
}

/// The recording of a sound kernel, changed.
fn changed(change: impl Fn(&mut Streams)) -> TreeStats {
    let mut streams = Streams::of("split-13.2-enoent-drain");
    change(&mut streams);
    streams.play_in_time().trees.remove(0)
}

/// Removes the 100th kevent with just this note and returns it.
fn remove(streams: &mut Streams, fflags: u32) -> Kevent {
    let mut left = 100;
    for call in &mut streams.calls {
        for (i, event) in call.events.iter().enumerate() {
            left -= i32::from(event.fflags == fflags);
            if left == 0 {
                return call.events.remove(i);
            }
        }
    }
    panic!("no such event")
}

#[test]
fn a_process_whose_exit_is_lost_is_a_ghost() {
    let tree = changed(|streams| {
        remove(streams, note::EXIT);
    });
    assert_eq!(damage(&tree), [("ghost", 1)]);
    // Its reader asked for NOTE_FORK, which may take NOTE_EXIT with it.
    assert_eq!(recovered(&tree), [("two_kqueues", 1)]);
}

#[test]
fn a_list_of_the_living_does_not_bring_back_who_died_before_it_was_made() {
    let lost = |alive: bool| {
        changed(|streams| {
            let child = remove(streams, note::CHILD);
            let forker = child.data as u64;
            let exit = format!(" {} {forker} ", child.ident);
            let rest = streams.calls.iter_mut().flat_map(|call| &mut call.events);
            rest.filter(|e| e.ident == forker).for_each(|e| e.fflags |= note::TRACKERR);
            if alive {
                streams.lines.retain(|l| !(l.starts_with("X ") && l.contains(&exit)));
                for call in &mut streams.calls {
                    call.events.retain(|e| e.ident != child.ident);
                }
            }
        })
    };
    let dead = lost(false);
    assert_eq!(damage(&dead), [("unknown", 1)]);
    assert_eq!(recovered(&dead), []);
    let living = lost(true);
    assert_eq!(damage(&living), [("unknown", 1)]);
    assert_eq!(recovered(&living), [("rescan", 1), ("reaper", 1)]);
}

/// Simulated kernels with faults of which there is no recording.
fn simulated() -> Vec<Options> {
    let split = Options { regime: Regime::Split, ..Options::default() };
    vec![
        Options { shape: Shape::Threads, flux_us: 20, ..split.clone() },
        Options { shape: Shape::Orphan, alloc_fail: 0.02, ..split },
        Options {
            regime: Regime::MergedStatus,
            shape: Shape::Pidreuse,
            stall_ms: 50,
            ..Options::default()
        },
        Options { regime: Regime::MergedPpid, stall_ms: 20, ..Options::default() },
    ]
}

fn simulate(options: &Options) -> TreeStats {
    played::simulate(options).trees.remove(0)
}

#[test]
fn damage_and_strategies_follow_from_the_verdicts() {
    let faulty = Options { alloc_fail: 0.01, corrupt: 0.01, stall_ms: 5, ..Options::default() };
    let mut ghosts = 0;
    for regime in [Regime::Split, Regime::MergedStatus, Regime::MergedPpid] {
        for shape in [Shape::Mix, Shape::Chain, Shape::Orphan, Shape::Threads] {
            let options = Options { regime, shape, count: 60, ..faulty.clone() };
            let tree = simulate(&options);
            let births = |v: Verdict| tree.births[v.index()];
            let damage = |d: Damage| tree.damage[d.index()];
            let lost: u64 = Verdict::ALL.iter().filter(|v| v.is_lost()).map(|v| births(*v)).sum();
            // No pid is used twice in so short a run.
            assert_eq!(damage(Damage::Unknown), lost, "{options}");
            let wrong = births(Verdict::Overwritten) + births(Verdict::Corrupt);
            assert_eq!(damage(Damage::WrongParent), wrong, "{options}");
            assert!(damage(Damage::AdoptedByNobody) <= wrong, "{options}");
            let lost_deaths = Verdict::ALL.iter().filter(|v| v.is_lost());
            let lost_deaths: u64 = lost_deaths.map(|v| tree.deaths[v.index()]).sum();
            assert!(tree.ghosts() <= lost_deaths, "{options}");
            ghosts += tree.ghosts();
            let naive = StrategyRow::of(Strategy::Naive, &tree);
            assert_eq!(naive.parents, births(Verdict::Agreed), "{options}");
            assert_eq!(
                naive.members + damage(Damage::CutOff),
                births(Verdict::Agreed),
                "{options}"
            );
            let missed = naive.births - naive.members + naive.deaths - naive.ends;
            for &strategy in Strategy::BETTER {
                let row = StrategyRow::of(strategy, &tree);
                assert!(row.parents >= naive.parents && row.parents <= row.births, "{options}");
                assert!(row.members >= naive.members && row.members <= row.births, "{options}");
                assert!(row.ends >= naive.ends && row.ends <= row.deaths, "{options}");
                let possible = if strategy == Strategy::Dedupe { naive.repeats } else { missed };
                assert!(row.recovered <= possible, "{options} {strategy}");
            }
        }
    }
    assert!(ghosts > 0, "half-tracked processes leave ghosts");
}

/// The tables of docs/strategies.md.
fn figures() -> String {
    let recordings = [
        "merged-enoent-drain",
        "merged-exit-stall",
        "merged-orphan",
        "split-13.2-enoent-drain",
        "split-13.2-chain-stall",
        "split-15.1-orphan",
    ];
    let mut cases: Vec<(String, TreeStats)> =
        recordings.iter().map(|name| (name.to_string(), tree(name))).collect();
    cases.extend(simulated().iter().map(|options| (format!("`{options}`"), simulate(options))));
    let wide = [Strategy::TwoKqueues, Strategy::Cookie, Strategy::Rescan, Strategy::Reaper];
    type Figure = fn(&StrategyRow) -> u64;
    let tables: [(&str, &str, Figure, Figure, &[Strategy]); 3] = [
        ("Births with the right parent", "births", |r| r.births, |r| r.parents, &wide),
        ("Births in the right tree", "births", |r| r.births, |r| r.members, &wide),
        ("Deaths with the right status", "deaths", |r| r.deaths, |r| r.ends, &wide[..3]),
    ];
    let mut out = String::new();
    for (title, of, all, right, strategies) in tables {
        let strategies = || std::iter::once(&Strategy::Naive).chain(strategies);
        let names: String = strategies().map(|s| format!(" {s} |")).collect();
        let lines: String = strategies().map(|_| "---:|").collect();
        out += &format!("\n### {title}\n\n| run | {of} |{names}\n|---|---:|{lines}\n");
        for (name, tree) in &cases {
            let row = |s: Strategy| StrategyRow::of(s, tree);
            let cells: String = strategies().map(|s| format!(" {} |", right(&row(*s)))).collect();
            out += &format!("| {name} | {} |{cells}\n", all(&row(Strategy::Naive)));
        }
    }
    out += "\n### Births counted more than once, without dedupe\n\n| run | births | repeats |\n|---|---:|---:|\n";
    for (name, tree) in &cases {
        let row = StrategyRow::of(Strategy::Naive, tree);
        out += &format!("| {name} | {} | {} |\n", row.births, row.repeats);
    }
    out + "\n"
}

#[test]
fn the_page_of_strategies_has_the_measured_figures() {
    let page = read("docs/strategies.md");
    let begin = "<!-- Begin of figures: made by scripts/generate. -->\n";
    let end = "<!-- End of figures. -->\n";
    let (head, rest) = page.split_once(begin).expect("the beginning of the figures");
    let (_, tail) = rest.split_once(end).expect("the end of the figures");
    let made = format!("{head}{begin}{}{end}{tail}", figures());
    if std::env::var_os("KQPROC_WRITE_DOCS").is_some() {
        std::fs::write(path("docs/strategies.md"), made).expect("written");
    } else {
        assert!(page == made, "docs/strategies.md: run scripts/generate");
    }
}
