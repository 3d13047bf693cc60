//! Replay of directories with the output of dtrace(1): their files, what is missing or damaged in them, and faults of the past.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use crate::common::{fixture, played};
use kqproc_exporter::check::stats::{BlindReason, Stats};
use kqproc_exporter::input::Input;
use kqproc_exporter::model::{Fact, Verdict};
use kqproc_exporter::source::replay::Replay;
use kqproc_exporter::wire::drops::DropKind;
use kqproc_exporter::wire::record::{Kind, Record};
use kqproc_exporter::wire::records::{Printed, Records};
use tempfile::TempDir;

fn replay(path: &Path) -> Stats {
    played::replay(path).0
}

/// How many facts have each of these verdicts.
fn counts<const N: usize>(stats: &Stats, fact: Fact, verdicts: [Verdict; N]) -> [u64; N] {
    verdicts.map(|verdict| stats.trees.iter().map(|tree| tree.of(fact)[verdict.index()]).sum())
}

/// How many verdicts accuse the kernel.
fn accused(stats: &Stats) -> u64 {
    use Verdict::{LostReported, LostSilent};
    [Fact::Birth, Fact::Death]
        .map(|fact| counts(stats, fact, [LostSilent, LostReported]).iter().sum::<u64>())
        .iter()
        .sum()
}

#[test]
fn fault_03_raw_clocks_jump_apart() {
    let stats = replay(&fixture("faults/03-raw-clocks-jump-apart"));
    let [agreed, undecided] = counts(&stats, Fact::Birth, [Verdict::Agreed, Verdict::Undecided]);
    assert_eq!((accused(&stats), agreed + undecided), (0, 10));
    assert!(agreed >= 5, "{agreed}: the facts before the jump are far from it");
    assert!(stats.dtrace_blind_ns[BlindReason::Clock.index()] > 0, "it is blind about the jump");
}

#[test]
fn fault_07_buffers_in_turn() {
    let in_order = replay(&fixture("faults/07-buffers-in-turn/in-order"));
    let in_turn = replay(&fixture("faults/07-buffers-in-turn/in-turn"));
    for fact in [Fact::Birth, Fact::Death] {
        assert_eq!(in_order.trees[0].of(fact), in_turn.trees[0].of(fact), "{fact:?}");
        assert!(in_order.trees[0].of(fact)[Verdict::Agreed.index()] > 0);
    }
    assert_eq!(in_turn.bad_lines, in_order.bad_lines);
    assert_eq!(in_turn.dtrace_blind_ns, in_order.dtrace_blind_ns);
}

#[test]
fn fault_12_drops_told_in_stdout() {
    let [stderr, stdout] = ["stderr", "stdout"]
        .map(|name| replay(&fixture("faults/12-drops-told-in-stdout").join(name)));
    for stats in [&stderr, &stdout] {
        assert_eq!(stats.drops[DropKind::Principal.index()], 6);
        assert_eq!(stats.bad_lines.iter().sum::<u64>(), 0);
        assert_eq!(accused(stats), 0);
        let open = [Verdict::Undecided, Verdict::KqueueOnly];
        let [births, deaths] = [Fact::Birth, Fact::Death].map(|fact| counts(stats, fact, open));
        assert_eq!((births, deaths), ([3, 0], [3, 0]));
        assert!(stats.dtrace_blind_now, "the time of the drops is not known");
    }
    for fact in [Fact::Birth, Fact::Death] {
        assert_eq!(stderr.trees[0].of(fact), stdout.trees[0].of(fact));
    }
}

#[test]
fn a_message_in_the_middle_of_a_line_costs_the_line_and_is_counted() {
    let mut mirror = Mirror::new();
    mirror.dtrace[2] = mirror.dtrace[2].replace(" 31 31 ", " 3dtrace: 4 drops on CPU 0\n1 31 ");
    let stats = mirror.stats();
    assert_eq!(stats.drops[DropKind::Principal.index()], 4);
    assert_eq!((stats.bad_lines.iter().sum::<u64>(), accused(&stats)), (2, 0));
}

/// A mirror that registers 31 at 1 s on its own clock, which is 5 s behind DTrace's; 32 is born, and ends.
struct Mirror {
    kevents: Vec<String>,
    dtrace: Vec<String>,
}

impl Mirror {
    fn new() -> Mirror {
        let calls = [
            (0, 1_100_000_000u64, "[32,48,4,31]"),
            (1, 1_200_000_000, "[32,32816,2147483648,256]"),
            (2, 1_900_000_000, ""),
        ];
        let start = r#"{"start":{"reader":30,"root":31,"notes":2147483649,"mono_ns":1000000000,"real_ns":1}}"#;
        let mut kevents = vec![start.to_owned()];
        let mut dtrace = ["B 5000000000 1", "K 5999000000 0 30 0"].map(str::to_owned).to_vec();
        for (seq, after, event) in calls {
            let before = after - 90_000_000;
            kevents.push(format!(
                r#"{{"batch":{seq},"cap":1024,"before_ns":{before},"after_ns":{after},"events":[{event}]}}"#
            ));
            let at = 5_000_000_000 + after;
            match seq {
                0 => dtrace.push(format!("C {} 0 32 31 31 14", at - 1000)),
                1 => dtrace.push(format!("X {} 0 32 31 1 256", at - 1000)),
                _ => {}
            }
            dtrace.push(format!("K {} 0 30 {}", at - 100, u8::from(!event.is_empty())));
        }
        Mirror { kevents, dtrace }
    }

    fn write(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("kevents.jsonl"), self.kevents.join("\n") + "\n").unwrap();
        fs::write(dir.path().join("dtrace.txt"), self.dtrace.join("\n") + "\n").unwrap();
        fs::write(dir.path().join("dtrace.err"), "dtrace rc 0\n").unwrap();
        dir
    }

    fn stats(&self) -> Stats {
        replay(self.write().path())
    }
}

fn agreed(stats: &Stats) -> [u64; 2] {
    [Fact::Birth, Fact::Death].map(|fact| counts(stats, fact, [Verdict::Agreed])[0])
}

#[test]
fn k_lines_are_counted_and_m_lines_name_their_call() {
    let by_count = Mirror::new();
    let mut by_name = Mirror::new();
    let number = std::cell::Cell::new(-1);
    by_name.dtrace.retain_mut(|line| {
        let Some(rest) = line.strip_prefix("K ") else { return true };
        let at = rest.split(' ').next().unwrap().to_owned();
        let seq = number.replace(number.get() + 1);
        let begins = format!("m {at} 0 27504 {}", seq + 1);
        *line = if seq < 0 { begins } else { format!("m {at} 0 27505 {seq}\n{begins}") };
        true
    });
    for mirror in [by_count, by_name] {
        let stats = mirror.stats();
        assert_eq!((agreed(&stats), accused(&stats)), ([1, 1], 0));
        assert_eq!(stats.trees[0].births.iter().sum::<u64>(), 1);
        assert_eq!(stats.bad_lines.iter().sum::<u64>(), 0);
    }
}

#[test]
fn a_loss_is_found_in_a_directory() {
    let mut mirror = Mirror::new();
    // Another process is born and ends long before the last call, and kqueue does not report it.
    mirror.dtrace.insert(3, "C 6099999500 0 33 31 31 14\nX 6099999600 0 33 31 1 0".to_owned());
    mirror.dtrace.push("T 8000000000 9".to_owned());
    let stats = mirror.stats();
    assert_eq!((agreed(&stats), accused(&stats)), ([1, 1], 2));
}

#[test]
fn a_call_that_is_missing_accuses_nobody() {
    for missing in 1..=3 {
        let mut mirror = Mirror::new();
        mirror.kevents.remove(missing);
        assert_eq!(accused(&mirror.stats()), 0, "call {missing}");
    }
}

#[test]
fn k_lines_that_do_not_agree_with_the_calls_make_dtrace_blind() {
    for line in [3, 5] {
        let mut mirror = Mirror::new();
        mirror.dtrace[line] = mirror.dtrace[line].rsplit_once(' ').unwrap().0.to_owned() + " 7";
        mirror.kevents[1] = mirror.kevents[1].replace("[32,48,4,31]", "");
        let stats = mirror.stats();
        assert_eq!(accused(&stats), 0, "line {line}");
        assert!(stats.unknown_messages > 0, "line {line}");
    }
}

#[test]
fn no_line_of_a_directory_is_needed_to_accuse_nobody() {
    for line in 0..Mirror::new().dtrace.len() {
        let mut mirror = Mirror::new();
        mirror.dtrace.remove(line);
        assert_eq!(accused(&mirror.stats()), 0, "without line {line}");
    }
}

/// ident, flags, fflags, data of an event.
type Event = (u64, u64, u64, i64);

/// The file that a consumer wrote about its own calls.
fn received(dir: &Path) -> Vec<Event> {
    let text = fs::read_to_string(dir.join("received.jsonl")).unwrap();
    let calls = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    calls
        .flat_map(|call| call["events"].as_array().cloned().unwrap_or_default())
        .map(|event| serde_json::from_value(event).unwrap())
        .collect()
}

#[test]
fn what_dtrace_prints_of_a_consumer_is_what_it_received() {
    for name in ["merged-attached-chain-stall", "split-attached-parallel-stall"] {
        let dir = fixture("consumer").join(name);
        let text = played::dtrace_output(&dir);
        let (mut copied, mut calls, mut bad) = (vec![], 0, vec![]);
        Records::default().feed(text.as_bytes(), |printed| match printed {
            Printed::Record(Record::Copyout(event)) => {
                copied.push((event.ident, event.flags.into(), event.fflags.into(), event.data));
            }
            Printed::Record(Record::Call { returned, nevents, .. }) => {
                calls += 1;
                assert!(returned <= nevents);
            }
            Printed::Record(_) => {}
            other => bad.push(format!("{other:?}")),
        });
        assert_eq!(bad, [""; 0]);
        let received = received(&dir);
        assert!(copied.len() > 100 && calls > 5, "{} events, {calls} calls", copied.len());
        assert!(received.ends_with(&copied), "{name}: DTrace came after the first ones");
    }
}

#[test]
fn a_consumer_is_the_process_in_pid_txt() {
    let dir = fixture("consumer/merged-attached-chain-stall");
    let replay = Replay::open(&dir).unwrap();
    let meta = replay.meta();
    assert_eq!((meta.uname.as_str(), meta.osreldate), ("FreeBSD 13.2-RELEASE amd64", 1302001));
    assert!(!meta.note.is_empty() && replay.remarks().is_empty());
    let mut pushed = vec![];
    replay
        .play(&mut |input: Input<'_>| {
            match input {
                Input::Tree { name, .. } => pushed.push(name.to_owned()),
                Input::Consumer { pid, .. } => pushed.push(format!("{pid:?}")),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(pushed, ["consumer", "Some(Pid(265))"]);
    let stats = self::replay(&dir);
    assert_eq!(stats.bad_lines.iter().sum::<u64>(), 0);
    assert!(stats.records[Kind::Copyout.index()] > 100);
}

#[test]
fn a_packed_file_is_unpacked() {
    use std::io::Write;

    let (plain, packed) = (Mirror::new().write(), Mirror::new().write());
    let path = packed.path().join("dtrace.txt");
    let file = fs::File::create(packed.path().join("dtrace.txt.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    encoder.write_all(&fs::read(&path).unwrap()).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!(agreed(&replay(packed.path())), agreed(&replay(plain.path())));
}

#[test]
fn a_directory_without_a_watched_process_is_refused_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let refusal = || Replay::open(dir.path()).err().map(|error| error.to_string()).unwrap();
    assert!(refusal().contains("neither kevents.jsonl nor pid.txt"));
    for text in ["", "nosh", "-1", "0", "100000", "1 2"] {
        fs::write(dir.path().join("pid.txt"), text).unwrap();
        assert!(refusal().contains("write the consumer's pid into it"), "{text:?}");
    }
    fs::write(dir.path().join("pid.txt"), " 812\n").unwrap();
    assert!(Replay::open(dir.path()).unwrap().remarks()[0].contains("no dtrace.txt"));
    fs::write(dir.path().join("kevents.jsonl"), "{\"batch\":0}").unwrap();
    assert!(refusal().contains("no start line"));
}
