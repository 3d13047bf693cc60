//! Raw directories made again from the bundled recording, whole and with one thing wrong.

use std::collections::BTreeMap;
use std::fs;

use super::timeline::UNALIGNED;
use super::*;
use crate::input::Batch;
use crate::recording::{BUNDLED, Reader};
use crate::wire::decode::decode;
use crate::wire::record::{Mark, Record};

/// The reader's pid: any that the recording does not have.
const READER: u32 = 99_990;

/// What a sink was given.
#[derive(Default, PartialEq, Debug)]
struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Number, before and after, events.
    batches: Vec<(u64, u64, u64, Vec<String>)>,
    attached: Vec<(u64, u32)>,
    lost: Vec<(u64, u64)>,
    /// The kinds in their order, repeated ones once.
    order: Vec<&'static str>,
}

impl Heard {
    fn hear(&mut self, input: Input<'_>) -> ControlFlow<()> {
        let kind = match input {
            Input::Tree { .. } => "tree",
            Input::Stdout { bytes, .. } => {
                self.stdout.extend_from_slice(bytes);
                "stdout"
            }
            Input::Stderr { at, bytes } => {
                assert_eq!(at, MonoTime(0));
                self.stderr.extend_from_slice(bytes);
                "stderr"
            }
            Input::Batch(b) => {
                assert_eq!(b.capacity, Batch::capacity_of(b.seq));
                let events = b.events.iter().map(|e| format!("{e:?}")).collect();
                self.batches.push((b.seq, b.before.0, b.after.0, events));
                self.attached.extend(b.attached.iter().map(|a| (b.seq, a.pid.get())));
                "batch"
            }
            Input::BatchesLost { first, count, .. } => {
                self.lost.push((first, count));
                "lost"
            }
            Input::DtraceUp { .. } => "up",
            Input::End => "end",
            _ => "other",
        };
        if self.order.last() != Some(&kind) {
            self.order.push(kind);
        }
        ControlFlow::Continue(())
    }

    fn of(raw: &Raw) -> Heard {
        let mut heard = Heard::default();
        let _ = raw.play(&mut |input: Input<'_>| heard.hear(input));
        heard
    }

    fn bundled() -> Heard {
        let (mut heard, mut reader) = (Heard::default(), Reader::new(BUNDLED).unwrap());
        while let Some(input) = reader.next().unwrap() {
            let _ = heard.hear(input);
        }
        heard
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.stdout.split(|byte| *byte == b'\n')
    }

    fn marks(&self) -> Vec<Mark> {
        let records = self.lines().filter_map(|line| decode(line).ok().flatten());
        records.filter_map(|r| if let Record::Mark(m) = r { Some(m) } else { None }).collect()
    }

    /// When each call returned, by its number.
    fn returns(&self) -> BTreeMap<u32, u64> {
        self.marks().iter().map(|mark| (mark.capacity, mark.at.0)).collect()
    }
}

/// The lines of a raw directory.
#[derive(Clone)]
struct Lines {
    stdout: Vec<String>,
    kevents: Vec<String>,
    stderr: Vec<u8>,
}

impl Lines {
    /// The bundled recording as its raw directory was.
    fn bundled() -> Lines {
        let mut reader = Reader::new(BUNDLED).unwrap();
        let meta = reader.meta().clone();
        let (mut text, mut stderr, mut kevents, mut end) = (vec![], vec![], vec![], 0);
        while let Some(input) = reader.next().unwrap() {
            match input {
                Input::Stdout { bytes, .. } => text.extend_from_slice(bytes),
                Input::Stderr { bytes, .. } => stderr.extend_from_slice(bytes),
                Input::Batch(b) if !b.attached.is_empty() => kevents.push(format!(
                    r#"{{"start":{{"reader":{READER},"root":{},"mono_ns":{},"real_ns":{}}}}}"#,
                    b.attached[0].pid, meta.start_mono_ns, meta.start_real_ns
                )),
                Input::Batch(b) => {
                    let events = b.events.iter();
                    let events = events.map(|e| (e.ident, e.flags, e.fflags, e.data));
                    kevents.push(format!(
                        r#"{{"batch":{},"cap":{},"before_ns":{},"after_ns":{},"events":{}}}"#,
                        b.seq - 1024,
                        b.capacity,
                        b.before.0,
                        b.after.0,
                        serde_json::to_string(&events.collect::<Vec<_>>()).unwrap()
                    ));
                    end = b.after.0;
                }
                _ => {}
            }
        }
        // The reader did not write its last call down.
        kevents.pop();
        kevents.push(format!(r#"{{"end":{{"mono_ns":{end},"real_ns":0}}}}"#));
        let text = String::from_utf8(text).unwrap();
        Lines { stdout: text.lines().map(unmarked).collect(), kevents, stderr }
    }

    fn raw(&self) -> Raw {
        let text = self.kevents.join("\n") + "\n";
        Raw {
            dir: PathBuf::new(),
            kevents: kevents::read(text.as_bytes()).expect("a start line"),
            stdout: Some((self.stdout.join("\n") + "\n").into_bytes()),
            stderr: Some(self.stderr.clone()),
            command: String::new(),
        }
    }

    fn heard(&self) -> Heard {
        Heard::of(&self.raw())
    }

    /// Where the `K` lines are.
    fn returns(&self) -> Vec<usize> {
        (0..self.stdout.len()).filter(|i| self.stdout[*i].starts_with("K ")).collect()
    }
}

/// A mark as the `K` line that it was.
fn unmarked(line: &str) -> String {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["M", at, cpu, _, _, returned, _] => format!("K {at} {cpu} {READER} {returned}"),
        _ => line.to_string(),
    }
}

#[test]
fn a_raw_directory_is_heard_as_its_recording() {
    assert_eq!(Lines::bundled().heard(), Heard::bundled());
}

#[test]
fn every_batch_has_its_mark() {
    let heard = Lines::bundled().heard();
    let (marks, batches) = (heard.marks(), &heard.batches);
    assert_eq!(marks.len(), batches.len());
    let mut earlier = 0;
    for (mark, (seq, _, _, events)) in marks.iter().zip(batches) {
        assert_eq!(mark.capacity, Batch::capacity_of(*seq));
        assert_eq!(mark.returned as usize, events.len());
        assert_eq!(mark.entered.0, earlier, "when the call before returned, never later");
        earlier = mark.at.0;
    }
    assert_eq!(heard.attached.len(), 1);
    assert_eq!(heard.attached[0].0, batches[0].0, "registered by the first call");
    assert_eq!(batches.last().map(|b| b.3.len()), Some(0), "the time-out that ended it");
}

#[test]
fn one_return_missing_or_repeated_moves_nothing_else() {
    let lines = Lines::bundled();
    let whole = lines.heard();
    for (call, line) in lines.returns().into_iter().enumerate().step_by(26) {
        let mut fewer = lines.clone();
        fewer.stdout.remove(line);
        let heard = fewer.heard();
        let mut expected = whole.returns();
        expected.remove(&whole.marks()[call].capacity);
        assert_eq!(heard.returns(), expected, "K line {call} is missing");
        assert!(heard.marks().iter().all(|mark| mark.entered < mark.at));

        let mut more = lines.clone();
        more.stdout.insert(line, lines.stdout[line].clone());
        assert_eq!(more.heard(), whole, "K line {call} is there twice");
    }
}

#[test]
fn one_batch_missing_is_lost_and_moves_nothing_else() {
    let lines = Lines::bundled();
    let whole = lines.heard();
    for call in (1..lines.kevents.len() - 2).step_by(29) {
        let mut fewer = lines.clone();
        fewer.kevents.remove(call);
        let heard = fewer.heard();
        let mut expected = whole.returns();
        expected.remove(&whole.marks()[call].capacity);
        assert_eq!(heard.returns(), expected, "batch line {call} is missing");
        assert_eq!(heard.lost, [(1023 + call as u64, 1)]);

        let mut more = lines.clone();
        more.kevents.insert(call, lines.kevents[call].clone());
        assert_eq!(more.heard(), whole, "batch line {call} is there twice");
    }
}

#[test]
fn one_event_missing_or_repeated_moves_no_mark() {
    let lines = Lines::bundled();
    let whole = lines.heard().returns();
    for call in (1..lines.kevents.len() - 1).step_by(29) {
        let (head, events) = lines.kevents[call].split_once("[[").unwrap();
        let (first, rest) = events.split_once(']').unwrap();
        for events in
            [format!("[{}", rest.trim_start_matches(',')), format!("[[{first}],[{events}")]
        {
            let mut changed = lines.clone();
            changed.kevents[call] = format!("{head}{events}");
            let raw = changed.raw();
            assert_eq!((raw.bad_lines(), Heard::of(&raw).returns()), (0, whole.clone()));
        }
    }
}

#[test]
fn most_returns_may_be_missing() {
    let lines = Lines::bundled();
    let whole = lines.heard().returns();
    let mut few = lines.clone();
    for line in lines.returns().into_iter().rev().filter(|line| line % 6 != 1) {
        few.stdout.remove(line);
    }
    let heard = few.heard();
    assert!(heard.marks().len() + 2 >= few.returns().len(), "few are ambiguous, and left out");
    assert!(heard.returns().iter().all(|(call, at)| whole.get(call) == Some(at)));
    assert_eq!(heard.batches.len(), lines.kevents.len() - 1, "all that were written down");
}

#[test]
fn batches_behind_a_cut_are_lost() {
    let mut lines = Lines::bundled();
    let whole = lines.kevents.len();
    lines.kevents.truncate(whole - 20);
    // Start line, batches, end line: 18 batches are gone, and the time-out behind them.
    assert_eq!(lines.heard().lost, [(1023 + whole as u64 - 20, 19 + 1)]);
}

#[test]
fn other_lines_stay_as_they_are() {
    let lines = Lines::bundled();
    let whole = lines.heard();
    let mut odd = lines.clone();
    let long = "9".repeat(4 << 20);
    for line in [
        "K 5 0 16 1",
        "K 5 0",
        "K",
        "\0\0",
        "Z \u{fffd}",
        &long,
        "",
        "K 99999999999999999999 0 1 1",
    ] {
        odd.stdout.insert(40, line.into());
    }
    let heard = odd.heard();
    assert_eq!(heard.returns(), whole.returns());
    assert_eq!(heard.lines().count(), whole.lines().count() + 8);
    assert!(heard.lines().any(|line| line == long.as_bytes()));

    let mut crlf = lines.raw();
    crlf.stdout = Some((lines.stdout.join("\r\n") + "\r\n").into_bytes());
    assert_eq!(Heard::of(&crlf), whole, "a directory that went through CRLF");
}

#[test]
fn a_text_cut_anywhere_is_heard_up_to_there() {
    let raw = Lines::bundled().raw();
    let (text, whole) = (raw.stdout.clone().unwrap(), Heard::of(&raw));
    let (batches, returns) = (whole.batches.len(), whole.returns());
    for cut in (0..text.len()).step_by(1999) {
        let heard =
            Heard::of(&Raw { stdout: Some(text[..cut].to_vec()), ..Lines::bundled().raw() });
        assert!(heard.returns().iter().all(|(call, at)| returns.get(call) == Some(at)), "{cut}");
        assert!(heard.batches.len() >= batches - 1, "all but the time-out at the end");
        assert_eq!(heard.order.last(), Some(&"end"));
    }
}

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

#[test]
fn only_the_start_line_is_needed() {
    let start = Lines::bundled().kevents[0].clone();
    let dir = directory(&[("kevents.jsonl", start.as_bytes())]);
    let heard = Heard::of(&Raw::open(dir.path()).unwrap());
    assert_eq!(heard.order, ["tree", "batch", "end"]);

    let dir = directory(&[("kevents.jsonl", &start.as_bytes()[..30])]);
    assert!(matches!(Raw::open(dir.path()), Err(Error::NoStart(_))));
    let dir = directory(&[("dtrace.txt", b"B 1 2\n")]);
    assert!(matches!(Raw::open(dir.path()), Err(Error::NoKevents(_))));
}

#[test]
fn messages_come_first_and_the_exit_status_is_none() {
    let start = Lines::bundled().kevents[0].clone();
    for (text, messages) in [
        (
            &b"\ndtrace: 106 drops on CPU 0\ndtrace rc 0\n"[..],
            &b"\ndtrace: 106 drops on CPU 0\n"[..],
        ),
        (b"dtrace: 1 drop on CPU 0\n", b"dtrace: 1 drop on CPU 0\n"),
        (b"dtrace rc 1", b""),
        (b"", b""),
    ] {
        let dir = directory(&[
            ("kevents.jsonl", start.as_bytes()),
            ("dtrace.txt", b"B 1 2\n"),
            ("dtrace.err", text),
            ("cmd.txt", b"work exit 600 (stall 0ms)\n\n"),
        ]);
        let raw = Raw::open(dir.path()).unwrap();
        assert_eq!(raw.meta().note, "work exit 600 (stall 0ms)");
        let heard = Heard::of(&raw);
        assert_eq!(heard.stderr, messages);
        let stderr = heard.order.iter().position(|kind| *kind == "stderr");
        assert!(stderr < heard.order.iter().position(|kind| *kind == "stdout"));
    }
}

#[test]
fn an_import_is_heard_as_its_directory() {
    let raw = Lines::bundled().raw();
    let meta = Meta { osreldate: 1302001, ..Meta::default() };
    let file = raw.import(meta, vec![]).unwrap();
    let (mut heard, mut reader) = (Heard::default(), Reader::new(&file[..]).unwrap());
    while let Some(input) = reader.next().unwrap() {
        let _ = heard.hear(input);
    }
    assert_eq!(heard, Heard::of(&raw));
    assert_eq!(reader.meta().osreldate, 1302001);
    assert_eq!(reader.meta().start_mono_ns, raw.meta().start_mono_ns);
}

#[test]
fn what_is_missing_from_a_directory_is_said() {
    let lines = Lines::bundled();
    let kevents = lines.kevents.join("\n");
    let stdout = lines.stdout.join("\n");
    let all = [
        ("kevents.jsonl", kevents.as_bytes()),
        ("dtrace.txt", stdout.as_bytes()),
        ("dtrace.err", &b""[..]),
    ];
    for (missing, remark) in [(2, Some("what dtrace dropped")), (1, Some("no verdict")), (3, None)]
    {
        let mut files = all.to_vec();
        files.truncate(missing);
        let dir = directory(&files);
        let remarks = Raw::open(dir.path()).unwrap().remarks();
        assert_eq!(remarks.len(), usize::from(remark.is_some()), "{remarks:?}");
        let dir = dir.path().display().to_string();
        let says = |r: &String| r.starts_with(&dir) && r.contains(remark.unwrap_or_default());
        assert!(remarks.iter().all(says), "{remarks:?}");
    }
}

#[test]
fn without_dtrace_err_nobody_knows_what_was_dropped() {
    let lines = Lines::bundled();
    let dir = directory(&[
        ("kevents.jsonl", lines.kevents.join("\n").as_bytes()),
        ("dtrace.txt", (lines.stdout.join("\n") + "\n").as_bytes()),
    ]);
    let heard = Heard::of(&Raw::open(dir.path()).unwrap());
    assert_eq!(heard.stderr, NO_STDERR);
}

#[test]
fn a_compressed_part_is_not_a_missing_one() {
    for (there, packed) in [("dtrace.txt", "kevents.jsonl.gz"), ("kevents.jsonl", "dtrace.txt.zst")]
    {
        let start = Lines::bundled().kevents[0].clone();
        let dir = directory(&[(there, start.as_bytes()), (packed, b"?")]);
        let message = Raw::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains(packed) && message.contains("unpack it"), "{message}");
    }
}

/// What one witness said before or after the other is unknown then: a note that came without its create, for one.
#[test]
fn without_a_common_time_line_dtrace_counts_as_blind() {
    let lines = Lines::bundled();
    let mut deaf = lines.clone();
    deaf.stdout.retain(|line| !line.starts_with('K'));
    let blind = |raw: Raw| Heard::of(&raw).stderr.ends_with(UNALIGNED);
    assert!(!blind(lines.raw()) && blind(deaf.raw()));
}
