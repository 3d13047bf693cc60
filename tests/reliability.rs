//! Faults of docs/reliability.md that no other test makes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::Table;
use kqproc_exporter::input::{Attach, Batch, Input};
use kqproc_exporter::model::{Kevent, MonoTime, Pid, TreeId, Verdict, note};
use kqproc_exporter::pipeline::Pipeline;
use nix::sys::signal::{Signal, kill};

const EXPORTER: &str = env!("CARGO_BIN_EXE_kqproc_exporter");

/// `serve` of the bundled recording; killed when dropped.
struct Exporter {
    child: Child,
    address: String,
}

impl Exporter {
    fn start(mut command: Command) -> Exporter {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the exporter starts");
        let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
        let listening =
            |line: String| Some(line.split_once("msg=listening address=")?.1.to_owned());
        let address = log.by_ref().map_while(Result::ok).find_map(listening).expect("it listens");
        std::thread::spawn(move || log.for_each(drop));
        Exporter { child, address }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("a connection")
    }

    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = self.connect();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(args: &[&str]) -> Command {
    let mut command = Command::new(EXPORTER);
    command.args(["simulate", "--serve", "--web.listen-address=127.0.0.1:0"]).args(args);
    command
}

#[test]
fn a_storm_of_hangups_ends_nothing() {
    let exporter = Exporter::start(serve(&[]));
    for _ in 0..500 {
        kill(exporter.pid(), Signal::SIGHUP).expect("it runs");
    }
    assert!(exporter.ask("POST", "/-/reload").starts_with("HTTP/1.1 200"));
    assert!(exporter.ask("GET", "/metrics").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_config_that_became_a_directory_leaves_the_old_one_in_force() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("web.yml");
    fs::write(&file, "http_server_config: {headers: {X-Frame-Options: deny}}\n").expect("written");
    let exporter = Exporter::start(serve(&[&format!("--web.config.file={}", file.display())]));
    fs::remove_file(&file).expect("removed");
    fs::create_dir(&file).expect("a directory in its place");
    let answer = exporter.ask("POST", "/-/reload");
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("was kept"), "{answer}");
    assert!(exporter.ask("GET", "/-/healthy").contains("x-frame-options: deny"));
}

#[test]
fn a_killed_exporter_begins_anew_and_accuses_nobody() {
    for _ in 0..2 {
        let exporter = Exporter::start(serve(&["--seed=3"]));
        // The first inputs declare the tree.
        let page = std::iter::repeat_with(|| exporter.ask("GET", "/metrics"))
            .find(|page| page.contains("kqproc_births_total{"))
            .expect("a page with the tree");
        let lost =
            page.lines().filter(|l| l.starts_with("kqproc_births_total{") && l.contains("lost"));
        assert!(lost.clone().count() > 0 && lost.clone().all(|l| l.ends_with(" 0")), "{page}");
    }
}

#[test]
fn without_descriptors_connections_wait_and_are_answered_later() {
    let mut command = Command::new("sh");
    let line = "ulimit -n 24; exec \"$0\" simulate --serve --web.listen-address=127.0.0.1:0";
    command.args(["-c", line, EXPORTER]);
    let exporter = Exporter::start(command);
    let idle: Vec<TcpStream> = (0..40).map(|_| exporter.connect()).collect();
    drop(idle);
    assert!(exporter.ask("GET", "/metrics").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_closed_stdout_is_no_panic() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(EXPORTER)
        .args(["simulate", "--count=5"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_a_recording_with_the_reason() {
    let output = Command::new(EXPORTER)
        .args(["simulate", "--count=2000", "--output=/dev/full"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(said.contains("No space left"), "{said}");
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
    let all: Vec<Attach> =
        (0..100).map(|n| Attach { tree: TreeId(n), pid: pid(n), root: true, errno: 0 }).collect();
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
    assert!(exits.stats().incarnations <= 101, "{}", exits.stats().incarnations);
    assert!(exits.stats().evictions[Table::Incarnations.index()] > 1000);
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
    assert_eq!(pipeline.stats().evictions[Table::Events.index()], u64::MAX);
}

#[test]
fn a_lost_process_whose_pid_is_used_again_is_alive_no_more() {
    let mut pipeline = watching();
    let pid = Pid::new(100).expect("a pid");
    let root = [Attach { tree: TreeId(0), pid, root: true, errno: 0 }];
    // The two clocks are one here.
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
    assert_eq!(tree.births[Verdict::LostSilent.index()], 2);
    assert_eq!(tree.deaths[Verdict::Undecided.index()], 1);
    assert_eq!(tree.lost_alive, 1);
}

#[test]
fn a_tree_that_is_gone_before_its_batch_has_its_place_is_gone() {
    let mut pipeline = watching();
    let pid = Pid::new(100).expect("a pid");
    let root = [Attach { tree: TreeId(0), pid, root: true, errno: 0 }];
    pipeline.push(batch(0, &root, &[]));
    assert!(pipeline.stats().trees[0].attached);
    pipeline.push(Input::TreeGone { id: TreeId(0) });
    let text = b"B 1000 1\nM 2000 0 1500 1024 0 0\nT 9000000000 1\n";
    pipeline.push(Input::Stdout { at: MonoTime(0), bytes: text });
    pipeline.push(Input::End);
    assert!(!pipeline.stats().trees[0].attached);
}

/// Every test of the project, by its name.
fn tests(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
            found.extend(functions.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = vec![];
    tests(&root.join("src"), &mut known);
    tests(&root.join("tests"), &mut known);
    let page = fs::read_to_string(root.join("docs/reliability.md")).expect("the table");
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
