//! The fuzz targets on a stable compiler: no input may break an invariant. Each target gets the committed inputs, and then
//! changed ones from a fixed seed: `FUZZ_SECONDS` is the time for all targets (a few hundred inputs each if it is not set),
//! `FUZZ_TARGET` names one target, `FUZZ_SEED` is the seed. An input that fails is written to a file, which the error names.

#[path = "../../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "shared with libFuzzer")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::path;
use kqproc_exporter::sim::rng::Rng;

/// How many changed inputs each target gets without `FUZZ_SECONDS`.
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

/// Numbers at the limits of integer types and of pids.
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

fn below(rng: &mut Rng, n: usize) -> usize {
    rng.below(n as u64) as usize
}

fn bytes(rng: &mut Rng, n: usize) -> Vec<u8> {
    (0..n).map(|_| rng.bits() as u8).collect()
}

/// Changes `input` in one way; pieces of `other` may be inserted.
fn change(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = below(rng, input.len() + 1);
    let most = 1 << below(rng, 8);
    let end = (at + 1 + below(rng, most)).min(input.len());
    match below(rng, 9) {
        0 if at < input.len() => input[at] ^= 1 << below(rng, 8),
        1 if at < input.len() => input[at] = rng.bits() as u8,
        2 => drop(input.drain(at.min(end)..end)),
        3 => {
            let n = below(rng, 16);
            let new = bytes(rng, n);
            input.splice(at..at, new);
        }
        4 => {
            let piece = input[at.min(end)..end].to_vec();
            let times = 1 + below(rng, 8);
            input.splice(at..at, piece.repeat(times));
        }
        5 => input.truncate(at),
        6 => {
            let from = below(rng, other.len() + 1);
            let to = (from + below(rng, 256)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        7 => number(input, at, rng),
        _ => lines(input, rng),
    }
    input.truncate(MAX_INPUT);
}

/// Replaces the next number.
fn number(input: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let Some(from) = input[at..].iter().position(u8::is_ascii_digit).map(|i| at + i) else {
        return;
    };
    let len = input[from..].iter().position(|b| !b.is_ascii_digit());
    let to = len.map_or(input.len(), |len| from + len);
    let edge = EDGES[below(rng, EDGES.len())];
    let near = String::from_utf8_lossy(&input[from..to]).parse::<u64>().unwrap_or(0);
    let near = near.wrapping_add(rng.bits() >> below(rng, 64)).to_string();
    let new = if below(rng, 2) == 0 { edge } else { &near };
    input.splice(from..to, new.bytes());
}

/// Moves one line.
fn lines(input: &mut Vec<u8>, rng: &mut Rng) {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let line = lines.remove(below(rng, lines.len()));
    lines.insert(below(rng, lines.len() + 1), line);
    *input = lines.join(&b'\n');
}

/// The committed inputs of a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut folders = vec![path("fuzz/corpus").join(name)];
    if name == "recording" {
        folders.push(path("recordings"));
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
    let (began, mut rng, mut tries) = (Instant::now(), Rng::new(seed), 0);
    while time.map_or(tries < TRIES, |time| began.elapsed() < time) {
        let mut input = inputs[below(&mut rng, inputs.len())].clone();
        let other = &inputs[below(&mut rng, inputs.len())];
        if target.0 == "checker" && below(&mut rng, 2) == 0 {
            let n = 1 << below(&mut rng, 13);
            input = bytes(&mut rng, n);
        }
        for _ in 0..=below(&mut rng, 6) {
            change(&mut input, other, &mut rng);
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
