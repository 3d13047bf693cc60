//! Tests of the recording format: what is written is read again, and a damaged file is read up to the damage.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::input::{Attach, Batch, Config, Input, OwnedBatch, OwnedInput};
use crate::model::{Kevent, MonoTime, Pid, TreeId};
use crate::sim::rng::Rng;

const DAY_NS: u64 = 86_400_000_000_000;

prop_compose! {
    fn attach()(tree: u16, pid in 0..=Pid::MAX, root: bool, errno: i32, notes: u32) -> Attach {
        Attach { tree: TreeId(tree), pid: Pid::new(pid.into()).unwrap(), root, errno, notes }
    }
}

prop_compose! {
    fn kevent()(ident: u64, flags: u32, fflags: u32, data: i64, udata: u64) -> Kevent {
        Kevent { ident, flags, fflags, data, udata }
    }
}

fn batch(
    seq: u64,
    capacity: u32,
    (before, after): (u64, u64),
    attached: Vec<Attach>,
    events: Vec<Kevent>,
) -> OwnedInput {
    let (before, after) = (MonoTime(before), MonoTime(after));
    let head = Batch { seq, capacity, before, after, attached: &[], events: &[] };
    OwnedInput::Batch(OwnedBatch { head, attached, events })
}

fn input() -> impl Strategy<Value = OwnedInput> {
    let time = any::<u64>().prop_map(MonoTime);
    prop_oneof![
        (time.clone(), vec(any::<u8>(), 0..200)).prop_map(|(at, b)| OwnedInput::Stdout(at, b)),
        (time.clone(), vec(any::<u8>(), 0..200)).prop_map(|(at, b)| OwnedInput::Stderr(at, b)),
        (any::<(u64, u32, u64, u64)>(), vec(attach(), 0..3), vec(kevent(), 0..20))
            .prop_map(|((seq, cap, a, b), at, ev)| batch(seq, cap, (a, b), at, ev)),
        (any::<u16>(), ".{0,20}").prop_map(|(id, name)| OwnedInput::Tree(TreeId(id), name)),
        time.clone().prop_map(|at| OwnedInput::Other(Input::DtraceUp { at })),
        time.clone().prop_map(|at| OwnedInput::Other(Input::DtraceDown { at })),
        (any::<u64>(), any::<u64>(), time.clone(), time.clone()).prop_map(
            |(first, count, from, to)| OwnedInput::Other(Input::BatchesLost {
                first,
                count,
                from,
                to
            })
        ),
        (time, any::<u64>()).prop_map(|(at, total)| OwnedInput::Other(Input::Forks { at, total })),
        any::<u16>().prop_map(|id| OwnedInput::Other(Input::TreeGone { id: TreeId(id) })),
        (any::<u16>(), proptest::option::of(0..=Pid::MAX)).prop_map(|(id, pid)| {
            let pid = pid.and_then(|number| Pid::new(number.into()));
            OwnedInput::Other(Input::Consumer { id: TreeId(id), pid })
        }),
        (1..=DAY_NS, 1..=DAY_NS, 1..=DAY_NS, Config::CAPACITY).prop_map(
            |(settle, reorder, switch, capacity)| {
                let (settle_ns, reorder_ns, switch_ns) = (settle, reorder, switch);
                OwnedInput::Other(Input::Config(Config {
                    settle_ns,
                    reorder_ns,
                    switch_ns,
                    capacity,
                }))
            }
        ),
        Just(OwnedInput::Other(Input::End)),
    ]
}

fn meta() -> Meta {
    Meta {
        uname: "FreeBSD 13.2-RELEASE amd64".into(),
        osreldate: 1302001,
        program: "BEGIN { printf(\"B %d %d\\n\", timestamp, walltimestamp); }\n".into(),
        note: "ünïcode".into(),
        start_mono_ns: u64::MAX,
        start_real_ns: 1_795_512_560_283_763_589,
    }
}

/// Flushes after each `flush_every` inputs, so that there are several blocks.
fn write(inputs: &[OwnedInput], flush_every: usize) -> Vec<u8> {
    let mut writer = Writer::new(vec![], &meta()).unwrap();
    for (i, input) in inputs.iter().enumerate() {
        writer.append(&input.as_input()).unwrap();
        if (i + 1) % flush_every == 0 {
            writer.flush().unwrap();
        }
    }
    writer.finish().unwrap()
}

/// What can be read, and what is wrong with the rest.
fn read(file: &[u8]) -> (Vec<OwnedInput>, Option<RecordingError>) {
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (vec![], Some(error)),
    };
    let mut inputs = vec![];
    loop {
        match reader.next() {
            Ok(Some(input)) => inputs.push(OwnedInput::from(input)),
            Ok(None) => return (inputs, None),
            Err(error) => {
                assert!(matches!(reader.next(), Ok(None)), "an error comes once");
                return (inputs, Some(error));
            }
        }
    }
}

fn sample() -> Vec<OwnedInput> {
    let exit = Kevent { ident: 28, flags: 0x8030, fflags: 0x8000_0004, data: 32512, udata: 7 };
    let (tree, pid, notes) = (TreeId(0), Pid::new(27).unwrap(), Attach::USUAL_NOTES);
    let root = Attach { tree, pid, root: true, errno: 0, notes };
    vec![
        OwnedInput::Tree(TreeId(0), "default".into()),
        OwnedInput::Other(Input::DtraceUp { at: MonoTime(5) }),
        batch(0, 1024, (9_000, 9_100), vec![root], vec![]),
        OwnedInput::Stdout(MonoTime(9_200), b"C 10446144367 1 28 27 27 14\nX 104".to_vec()),
        batch(1, 1025, (9_300, 9_400), vec![], vec![exit; 3]),
        OwnedInput::Stderr(MonoTime(9_500), b"dtrace: 12 drops on CPU 0\n".to_vec()),
        OwnedInput::Other(Input::End),
    ]
}

/// `sample` in blocks of three inputs: how many of them are in whole blocks if the file ends at `cut`.
fn whole_blocks(file: &[u8], cut: usize) -> usize {
    let (mut at, mut inputs) = (12, 0);
    for held in [0, 3, 3, 1, 0] {
        at += 12 + u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize;
        if cut < at {
            break;
        }
        inputs += held;
    }
    inputs
}

proptest! {
    #[test]
    fn what_was_written_is_read_bit_for_bit(inputs in vec(input(), 0..30), flush in 1usize..10) {
        let (read, error) = read(&write(&inputs, flush));
        prop_assert!(error.is_none());
        prop_assert_eq!(read, inputs);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        read(&bytes);
        read(&[&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat());
    }

    #[test]
    fn no_block_panics(block in vec(any::<u8>(), 1..200)) {
        let mut writer = Writer::new(vec![], &meta()).unwrap();
        writer.put_block_for_test(&block);
        read(&writer.finish().unwrap());
    }
}

#[test]
fn the_meta_survives() {
    assert_eq!(Reader::new(&write(&[], 1)[..]).unwrap().meta(), &meta());
}

#[test]
fn a_cut_costs_the_block_that_it_hits_and_says_where() {
    let (inputs, file) = (sample(), write(&sample(), 3));
    for cut in 0..file.len() {
        let (read, error) = read(&file[..cut]);
        assert_eq!(read, inputs[..whole_blocks(&file, cut)], "cut at {cut}");
        match (cut, error) {
            (0, Some(RecordingError::Empty)) => {}
            (_, Some(RecordingError::Cut { offset })) => assert!(offset <= cut as u64),
            (_, other) => panic!("cut at {cut}: {other:?}"),
        }
    }
}

#[test]
fn a_flipped_bit_costs_at_most_the_rest_and_never_goes_unnoticed() {
    let (inputs, file) = (sample(), write(&sample(), 3));
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (read, error) = read(&damaged);
        assert!(error.is_some(), "bit {bit}");
        assert_eq!(read, inputs[..whole_blocks(&file, bit / 8)], "bit {bit}");
    }
}

#[test]
fn a_missing_or_repeated_block_does_not_go_unnoticed() {
    let file = write(&sample(), 3);
    let start = |n: usize| {
        (0..n).fold(12, |at, _| {
            at + 12 + u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize
        })
    };
    let missing = [&file[..start(1)], &file[start(2)..]].concat();
    let repeated = [&file[..start(2)], &file[start(1)..]].concat();
    let trailing = [&file[..], b"x"].concat();
    for (file, held) in [(missing, 0), (repeated, 3), (trailing, 7)] {
        let (read, error) = read(&file);
        assert_eq!(read, sample()[..held]);
        assert!(matches!(error, Some(RecordingError::Damaged { .. })), "{error:?}");
    }
}

#[test]
fn what_is_no_recording_says_so() {
    assert!(matches!(read(b"B 1 2\nC 3 4").1, Some(RecordingError::NotARecording)));
    let mut newer = write(&[], 1);
    newer[8] = 9;
    assert!(matches!(read(&newer).1, Some(RecordingError::Version(9))));
}

#[test]
fn an_input_that_no_reader_would_take_is_refused() {
    let mut writer = Writer::new(vec![], &meta()).unwrap();
    let bytes = vec![b'x'; MAX_BLOCK];
    assert!(writer.append(&Input::Stdout { at: MonoTime(1), bytes: &bytes }).is_err());
    writer.append(&Input::End).unwrap();
    assert_eq!(read(&writer.finish().unwrap()).0, [OwnedInput::Other(Input::End)]);
}

#[test]
fn noise_that_cannot_be_compressed_survives() {
    let mut rng = Rng::new(1);
    let noise = std::iter::repeat_with(|| rng.bits() as u8).take(MAX_BLOCK - 2 * BLOCK).collect();
    let inputs = [OwnedInput::Stdout(MonoTime(1), noise)];
    let (read, error) = read(&write(&inputs, 1));
    assert!(read == inputs && error.is_none());
}

#[test]
fn a_recording_of_version_1_has_the_usual_notes_and_neither_configuration_nor_consumers() {
    let mut reader = Reader::new(BUNDLED).unwrap();
    let mut attached = vec![];
    while let Some(input) = reader.next().unwrap() {
        match input {
            Input::Batch(batch) => attached.extend_from_slice(batch.attached),
            Input::Config(_) | Input::Consumer { .. } => panic!("{input:?}"),
            _ => {}
        }
    }
    assert_eq!(attached.iter().map(|a| a.notes).collect::<Vec<_>>(), [0x8000_0001]);
}

#[test]
fn a_configuration_that_no_checker_can_have_is_refused() {
    let good = Config::default();
    for (config, expected) in [
        (good, true),
        (Config { settle_ns: 0, ..good }, false),
        (Config { reorder_ns: DAY_NS + 1, ..good }, false),
        (Config { switch_ns: u64::MAX, ..good }, false),
        (Config { capacity: 1 << 25, ..good }, false),
    ] {
        let (inputs, error) = read(&write(&[OwnedInput::Other(Input::Config(config))], 1));
        assert_eq!((inputs.len() == 1, error.is_none()), (expected, expected), "{config:?}");
    }
}
