//! The fuzz targets on a stable compiler: each committed input as it is and, from a fixed seed, changed at random.
//! `FUZZ_SECONDS` says for how long in all (without it each target gets a few hundred), `FUZZ_TARGET` which one alone,
//! `FUZZ_SEED` where the random numbers begin. An input that fails is kept and named.

#[path = "../../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "shared with libFuzzer")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is tried where nothing says how long.
const TRIES: u64 = 300;

const MAX_INPUT: usize = 1 << 16;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 8] = [
    ("stdout", targets::stdout),
    ("stderr", targets::stderr),
    ("recording", targets::recording),
    ("directory", targets::directory),
    ("config", targets::config),
    ("web_config", targets::web_config),
    ("http", targets::http),
    ("checker", targets::checker),
];

/// Marsaglia's xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Numbers at the edges of what fits where.
const EDGES: [&str; 9] = [
    "0",
    "-1",
    "99999",
    "100000",
    "4294967295",
    "2147483648",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999",
];

/// Changes `input` in one way, with `other` to take pieces of.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let most = 1 << random.below(8);
    let end = (at + 1 + random.below(most)).min(input.len());
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => drop(input.drain(at.min(end)..end)),
        3 => {
            let n = random.below(16);
            let new = random.bytes(n);
            input.splice(at..at, new);
        }
        4 => {
            let piece = input[at.min(end)..end].to_vec();
            let times = 1 + random.below(8);
            input.splice(at..at, piece.repeat(times));
        }
        5 => input.truncate(at),
        6 => {
            let from = random.below(other.len() + 1);
            let to = (from + random.below(256)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        7 => number(input, at, random),
        _ => lines(input, random),
    }
    input.truncate(MAX_INPUT);
}

/// Another number in the place of the next one.
fn number(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(from) = input[at..].iter().position(u8::is_ascii_digit).map(|i| at + i) else {
        return;
    };
    let len = input[from..].iter().position(|b| !b.is_ascii_digit());
    let to = len.map_or(input.len(), |len| from + len);
    let edge = EDGES[random.below(EDGES.len())];
    let near = String::from_utf8_lossy(&input[from..to]).parse::<u64>().unwrap_or(0);
    let near = near.wrapping_add(random.next() >> random.below(64)).to_string();
    let new = if random.below(2) == 0 { edge } else { &near };
    input.splice(from..to, new.bytes());
}

/// One line elsewhere.
fn lines(input: &mut Vec<u8>, random: &mut Random) {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let line = lines.remove(random.below(lines.len()));
    lines.insert(random.below(lines.len() + 1), line);
    *input = lines.join(&b'\n');
}

/// The committed inputs of a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("fuzz/corpus").join(name)];
    if name == "recording" {
        folders.push(root.join("recordings"));
    }
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a corpus"));
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("an input")).collect()
}

fn attempt((name, target): Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&file, input).expect("the input is kept");
        panic!("{name}: this input fails: {}", file.display());
    }
}

fn fuzz(target: Target, seed: u64, time: Option<Duration>) {
    let inputs = corpus(target.0);
    assert!(!inputs.is_empty(), "no corpus of {}", target.0);
    inputs.iter().for_each(|input| attempt(target, input));
    let (began, mut random, mut tries) = (Instant::now(), Random(seed | 1), 0);
    while time.map_or(tries < TRIES, |time| began.elapsed() < time) {
        let mut input = inputs[random.below(inputs.len())].clone();
        let other = &inputs[random.below(inputs.len())];
        if target.0 == "checker" && random.below(2) == 0 {
            let n = 1 << random.below(13);
            input = random.bytes(n);
        }
        for _ in 0..=random.below(6) {
            change(&mut input, other, &mut random);
        }
        attempt(target, &input);
        tries += 1;
    }
    println!("{}: {tries} inputs in {:.1} s", target.0, began.elapsed().as_secs_f64());
}

#[test]
fn no_input_breaks_an_invariant() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("FUZZ_SEED").unwrap_or(180_385);
    let time = number("FUZZ_SECONDS").map(|s| Duration::from_secs(s) / TARGETS.len() as u32);
    let only = std::env::var("FUZZ_TARGET").ok();
    for target in TARGETS.into_iter().filter(|t| only.as_deref().is_none_or(|only| only == t.0)) {
        fuzz(target, seed, time);
    }
}
