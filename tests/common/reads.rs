//! A recording as it was read, one line of dtrace's stdout at a time, and ways to change it.

use std::ops::ControlFlow;
use std::path::Path;

use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::input::{Batch, Input};
use kqproc_exporter::model::{MonoTime, TreeId};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::source::replay::Replay;

use super::owned::Owned;

/// Everything that a recording holds, in the order in which it was read.
pub fn reads(file: &Path) -> Vec<Owned> {
    let (mut reads, mut partial) = (Vec::new(), Vec::new());
    let mut keep = |input: Input<'_>| {
        match input {
            Input::Stdout { at, bytes } => {
                partial.extend_from_slice(bytes);
                while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
                    reads.push(Owned::Stdout(at, partial.drain(..=end).collect()));
                }
            }
            Input::End => {}
            input => reads.push(Owned::of(input)),
        }
        ControlFlow::Continue(())
    };
    Replay::open(file).expect("a recording").play(&mut keep).expect("undamaged");
    reads
}

/// What the checker makes of it. The conservation law is checked after every input.
pub fn play(reads: &[Owned]) -> Stats {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let mut push = |input: Input<'_>| {
        pipeline.push(input);
        pipeline.stats().assert_conserved();
    };
    push(Input::Tree { id: TreeId(0), name: "tree" });
    reads.iter().for_each(|read| read.with(&mut push));
    push(Input::End);
    let stats = pipeline.stats().clone();
    assert!(stats.trees.iter().all(|tree| tree.pending() == 0), "pending at the end");
    stats
}

/// The time stamp of a line.
pub fn stamp(line: &str) -> u64 {
    line.split(' ').nth(1).and_then(|field| field.trim_end().parse().ok()).unwrap_or_default()
}

/// The line with its time stamps, two in a mark, moved by `by_ns`.
pub fn moved(line: &str, by_ns: i64) -> String {
    let stamps: &[usize] = if line.starts_with("M ") { &[1, 3] } else { &[1] };
    let mut fields: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for stamp in stamps {
        // The empty line at the end has none.
        let Some(field) = fields.get_mut(*stamp) else { continue };
        let at: u64 = field.parse().expect("a time stamp");
        *field = at.saturating_add_signed(by_ns).to_string();
    }
    fields.join(" ")
}

/// Puts other lines in the place of each line of dtrace's stdout.
pub fn each_line(reads: &[Owned], mut change: impl FnMut(&str) -> Vec<String>) -> Vec<Owned> {
    let mut changed = Vec::new();
    for read in reads {
        match read {
            Owned::Stdout(at, line) => {
                let lines = change(std::str::from_utf8(line).expect("text"));
                changed.extend(lines.into_iter().map(|l| Owned::Stdout(*at, l.into_bytes())));
            }
            other => changed.push(other.clone()),
        }
    }
    changed
}

/// dtrace prints what it takes from the buffers of all CPUs in one pass in the order of the time stamps.
pub fn sorted_in_passes(mut reads: Vec<Owned>) -> Vec<Owned> {
    let lines: Vec<usize> =
        (0..reads.len()).filter(|i| matches!(reads[*i], Owned::Stdout(..))).collect();
    let read_at = |i: &usize| reads[*i].at();
    let passes: Vec<Vec<usize>> =
        lines.chunk_by(|a, b| read_at(a) == read_at(b)).map(<[usize]>::to_vec).collect();
    for pass in passes {
        let mut sorted: Vec<Owned> = pass.iter().map(|i| reads[*i].clone()).collect();
        sorted.sort_by_key(|read| match read {
            Owned::Stdout(_, line) => stamp(std::str::from_utf8(line).expect("text")),
            _ => 0,
        });
        for (place, read) in pass.into_iter().zip(sorted) {
            reads[place] = read;
        }
    }
    reads
}

/// The clock of this CPU is off by `by_ns`.
pub fn skewed(reads: &[Owned], cpu: &str, by_ns: i64) -> Vec<Owned> {
    let of_cpu = |line: &str| {
        line.starts_with(['C', 'X', 'E', 'F', 'M']) && line.split(' ').nth(2) == Some(cpu)
    };
    let skewed = each_line(reads, |line| {
        vec![if of_cpu(line) { moved(line, by_ns) } else { line.to_owned() }]
    });
    sorted_in_passes(skewed)
}

/// DTrace's clock steps by `by_ns` after this share of the reads.
pub fn stepped(reads: &[Owned], after: f64, by_ns: i64) -> Vec<Owned> {
    let step = (reads.len() as f64 * after) as usize;
    let (before, behind) = reads.split_at(step);
    let behind = each_line(behind, |line| vec![moved(line, by_ns)]);
    before.iter().cloned().chain(behind).collect()
}

/// The reader's clock steps by `by_ns` after this share of the reads.
pub fn reader_stepped(reads: &[Owned], after: f64, by_ns: i64) -> Vec<Owned> {
    let step = (reads.len() as f64 * after) as usize;
    let mut reads = reads.to_vec();
    for read in &mut reads[step..] {
        if let Owned::Batch { head: Batch { before, after, .. }, .. } = read {
            *before = MonoTime(before.0.saturating_add_signed(by_ns));
            *after = MonoTime(after.0.saturating_add_signed(by_ns));
        }
    }
    reads
}
