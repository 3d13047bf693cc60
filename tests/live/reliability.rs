//! The faults of docs/reliability.md that have no test elsewhere, and a test that every test named there exists.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::exporter::{Exporter, PROGRAM, simulate};
use crate::common::unusable_files::UNUSABLE_FILES;
use crate::common::{eventually, path, read};
use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::BoundedTable;
use kqproc_exporter::input::{Attach, Batch, Input};
use kqproc_exporter::model::{Kevent, MonoTime, Pid, TreeId, Verdict, note};
use kqproc_exporter::pipeline::Pipeline;
use nix::sys::signal::Signal;

#[test]
fn a_storm_of_hangups_ends_nothing() {
    let exporter = Exporter::start(simulate([""; 0]));
    for _ in 0..500 {
        exporter.signal(Signal::SIGHUP);
    }
    assert_eq!(exporter.request("POST", "/-/reload", "").status, 200);
    assert_eq!(exporter.get("/metrics").status, 200);
}

#[test]
fn a_web_configuration_that_is_no_plain_file_any_more_leaves_the_old_one_in_force() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("web.yml");
    fs::write(&file, "http_server_config: {headers: {X-Frame-Options: deny}}\n").expect("written");
    let exporter = Exporter::start(simulate([format!("--web.config.file={}", file.display())]));
    for (replace, why) in UNUSABLE_FILES {
        replace(&file);
        let refused = exporter.request("POST", "/-/reload", "");
        let text = refused.text();
        assert!(refused.status == 500 && text.contains("was kept") && text.contains(why), "{text}");
        exporter.logs(why);
        assert_eq!(exporter.get("/-/healthy").header("x-frame-options"), Some("deny"));
    }
    assert_eq!(exporter.stop().code(), Some(0));
}

#[test]
fn a_killed_exporter_begins_anew_and_accuses_nobody() {
    for _ in 0..2 {
        let exporter = Exporter::start(simulate(["--seed=3"]));
        let births = |name: &str| name.starts_with("kqproc_births_total{");
        // The first inputs declare the tree.
        let samples = exporter.scrape_until(|samples| samples.keys().any(|name| births(name)));
        let mut lost = samples.iter().filter(|(name, _)| births(name) && name.contains("lost"));
        assert!(lost.clone().count() > 0 && lost.all(|(_, n)| *n == 0.0), "{samples:?}");
    }
}

#[test]
fn without_descriptors_connections_wait_and_are_answered_later() {
    let unlimited = simulate([""; 0]);
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -n 24; exec "$0" "$@""#]);
    limited.arg(unlimited.get_program()).args(unlimited.get_args());
    let exporter = Exporter::start(limited);
    let idle: Vec<TcpStream> = (0..40).map(|_| exporter.connect()).collect();
    exporter.logs("cannot accept a connection");
    drop(idle);
    assert_eq!(exporter.get("/metrics").status, 200);
}

#[test]
fn a_closed_stdout_is_no_panic() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(PROGRAM)
        .args(["simulate", "--count=5"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_log_whose_reader_leaves_ends_nothing() {
    let mut child =
        simulate(["--log.level=debug"]).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut log = BufReader::new(child.stderr.take().expect("its log"));
    let mut line = String::new();
    while !line.contains("msg=listening address=") {
        line.clear();
        assert!(log.read_line(&mut line).expect("text") > 0, "it does not listen");
    }
    drop(log);
    let (_, addr) = line.trim_end().split_once("address=").expect("an address");
    goes_on(Exporter::of(child, addr.parse().expect("an address")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_on_a_full_disk_ends_nothing() {
    // The log, which would name the port, cannot be written.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let free = free.expect("a port");
    let full = fs::File::options().write(true).open("/dev/full").expect("it is there");
    let address = format!("--web.listen-address={free}");
    let mut command = simulate(["--log.level=debug", &address]);
    let child = command.stderr(full).spawn().expect("it runs");
    goes_on(Exporter::of(child, free));
}

/// Asserts that the exporter answers, reloads its configuration, which it would log, and ends well.
fn goes_on(exporter: Exporter) {
    eventually("an open port", || TcpStream::connect(exporter.addr).ok());
    for _ in 0..2 {
        assert_eq!(exporter.request("POST", "/-/reload", "").status, 200);
    }
    assert_eq!(exporter.get("/metrics").status, 200);
    assert_eq!(exporter.stop().code(), Some(0));
}

#[test]
fn output_without_a_reader_changes_no_exit_status() {
    for (args, status) in
        [(["simulate", "--count=5", "--seed=1"], 0), (["replay", "nowhere", "--format=json"], 66)]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(PROGRAM);
        command.args(args).stdout(Stdio::null()).stderr(writer);
        let ended = command.status().expect("it runs");
        assert_eq!(ended.code(), Some(status), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_a_simulation_with_the_reason() {
    let output = Command::new(PROGRAM)
        .args(["simulate", "--count=2000", "--output=/dev/full"])
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("No space left"), "{stderr}");
}

/// A call of the reader without a mark.
fn batch<'a>(seq: u64, attached: &'a [Attach], events: &'a [Kevent]) -> Input<'a> {
    let (before, after) = (MonoTime(seq * 1_000_000), MonoTime(seq * 1_000_000 + 1000));
    let capacity = Batch::capacity_of(seq);
    Input::Batch(Batch { seq, capacity, before, after, attached, events })
}

#[test]
fn fifty_of_a_hundred_trees_may_vanish() {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let pid = |n: u16| Pid::new(u64::from(n) + 100).expect("a pid");
    for n in 0..100 {
        pipeline.push(Input::Tree { id: TreeId(n), name: &format!("tree{n}") });
    }
    pipeline.push(Input::DtraceUp { at: MonoTime(1) });
    let all: Vec<Attach> = (0..100)
        .map(|n| Attach {
            tree: TreeId(n),
            pid: pid(n),
            root: true,
            errno: 0,
            notes: Attach::USUAL_NOTES,
        })
        .collect();
    pipeline.push(batch(0, &all, &[]));
    let mut text = String::from("B 1000 1\nM 2000 0 1500 1024 0 0\n");
    let exit = |n: u16| Kevent {
        ident: pid(n).get().into(),
        flags: note::EV_CLEAR,
        fflags: note::EXIT,
        data: 9,
        udata: TreeId(n).cookie(),
    };
    let exits: Vec<Kevent> = (0..50).map(exit).collect();
    (0..50).for_each(|n| text += &format!("X 3000 0 {} 1 0 9\n", pid(n)));
    text += "M 4000 0 3500 1025 50 0\nT 9000000000 1\n";
    pipeline.push(batch(1, &[], &exits));
    (0..50).for_each(|n| pipeline.push(Input::TreeGone { id: TreeId(n) }));
    pipeline.push(Input::Stdout { at: MonoTime(0), bytes: text.as_bytes() });
    pipeline.push(Input::End);
    for (n, tree) in pipeline.stats().trees.iter().enumerate() {
        let gone = u64::from(n < 50);
        assert_eq!(tree.deaths[Verdict::Agreed.index()], gone, "{}", tree.name);
        assert_eq!((tree.tracked, tree.attached), (1 - gone, gone == 0), "{}", tree.name);
    }
}

#[test]
fn lives_without_an_end_or_a_beginning_fill_no_table() {
    let config = Config { capacity: 100, ..Config::default() };
    let mut exits = Pipeline::new(config, ());
    exits.push(Input::Tree { id: TreeId(0), name: "default" });
    exits.push(Input::DtraceUp { at: MonoTime(1) });
    let text: String = (1..5000).map(|n| format!("X {n}000000 0 {} 1 1 0\n", n % 500)).collect();
    exits.push(Input::Stdout { at: MonoTime(0), bytes: text.as_bytes() });
    assert!(exits.stats().incarnations() <= 101, "{}", exits.stats().incarnations());
    assert!(exits.stats().evictions[BoundedTable::Incarnations.index()] > 1000);
}

/// A pipeline with one tree and dtrace running.
fn watching() -> Pipeline<()> {
    let mut pipeline = Pipeline::new(Config::default(), ());
    pipeline.push(Input::Tree { id: TreeId(0), name: "default" });
    pipeline.push(Input::DtraceUp { at: MonoTime(1) });
    pipeline
}

#[test]
fn a_record_of_the_end_of_time_is_no_overflow() {
    let mut pipeline = watching();
    let text: String = (0..9).map(|n| format!("T 922337203685477500{n} 1\n")).collect();
    pipeline.push(Input::Stdout { at: MonoTime(1), bytes: text.as_bytes() });
    pipeline.push(Input::End);
    assert_eq!(pipeline.stats().clock, 9_223_372_036_854_775_008);
}

#[test]
fn batches_lost_beyond_number_are_no_overflow() {
    let mut pipeline = watching();
    for _ in 0..2 {
        let (from, to) = (MonoTime(1), MonoTime(u64::MAX));
        pipeline.push(Input::BatchesLost { first: u64::MAX, count: u64::MAX, from, to });
    }
    pipeline.push(Input::End);
    assert_eq!(pipeline.stats().evictions[BoundedTable::Events.index()], u64::MAX);
}

#[test]
fn a_lost_process_whose_pid_is_used_again_is_alive_no_more() {
    let mut pipeline = watching();
    let pid = Pid::new(100).expect("a pid");
    let root = [Attach { tree: TreeId(0), pid, root: true, errno: 0, notes: Attach::USUAL_NOTES }];
    // Both clocks are the same here.
    for (seq, after) in [(0, 2000), (1, 1_200_000_000), (2, 4_000_000_000)] {
        let (capacity, before) = (Batch::capacity_of(seq), MonoTime(after - 1000));
        let attached = if seq == 0 { &root[..] } else { &[] };
        let after = MonoTime(after);
        pipeline.push(Input::Batch(Batch { seq, capacity, before, after, attached, events: &[] }));
    }
    // DTrace's record of the first one's exit is missing.
    let text = "B 1000 1\nM 2000 0 1500 1024 0 0\n\
        C 1000000000 0 101 100 100 0\nM 1200000000 0 1100000000 1025 0 0\n\
        C 2000000000 0 101 100 100 0\nM 4000000000 0 3900000000 1026 0 0\nT 9000000000 1\n";
    pipeline.push(Input::Stdout { at: MonoTime(0), bytes: text.as_bytes() });
    let tree = &pipeline.stats().trees[0];
    assert_eq!(tree.births[Verdict::LostSilent.index()], 1);
    // Of two lives with one pid and no end between them, which note is about which cannot be known.
    assert_eq!(tree.births[Verdict::Undecided.index()], 1);
    assert_eq!(tree.deaths[Verdict::Undecided.index()], 1);
    assert_eq!(tree.lost_alive, 0);
}

#[test]
fn a_tree_that_is_gone_before_its_batch_has_its_place_is_gone() {
    let mut pipeline = watching();
    let pid = Pid::new(100).expect("a pid");
    let root = [Attach { tree: TreeId(0), pid, root: true, errno: 0, notes: Attach::USUAL_NOTES }];
    pipeline.push(batch(0, &root, &[]));
    assert!(pipeline.stats().trees[0].attached);
    pipeline.push(Input::TreeGone { id: TreeId(0) });
    let text = b"B 1000 1\nM 2000 0 1500 1024 0 0\nT 9000000000 1\n";
    pipeline.push(Input::Stdout { at: MonoTime(0), bytes: text });
    pipeline.push(Input::End);
    assert!(!pipeline.stats().trees[0].attached);
}

/// Collects the names of all tests below a folder.
fn tests(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            for attribute in ["#[test]", "#[tokio::test"] {
                let functions =
                    text.split(attribute).skip(1).filter_map(|rest| rest.split_once("fn "));
                let names = functions.filter_map(|(_, rest)| rest.split('(').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_test_that_the_table_names_exists() {
    let mut known = vec![];
    tests(&path("src"), &mut known);
    tests(&path("tests"), &mut known);
    let page = read("docs/reliability.md");
    let rows = page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| fault"));
    for row in rows {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().expect("a last cell");
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(known.iter().any(|k| k == name), "no test is called {name}");
        }
    }
}
