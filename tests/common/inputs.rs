//! A recording as a list of inputs, a line of dtrace's stdout each, and ways to change it: clocks that step or are off,
//! other lines, other reading times.

use std::ops::ControlFlow;
use std::path::Path;

use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::input::{Batch, Input, OwnedBatch, OwnedInput};
use kqproc_exporter::model::{MonoTime, TreeId};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::source::replay::Replay;

/// The inputs of a recording in the order of reading, without [`Input::End`].
pub fn inputs(file: &Path) -> Vec<OwnedInput> {
    let (mut inputs, mut partial) = (Vec::new(), Vec::new());
    let mut keep = |input: Input<'_>| {
        match input {
            Input::Stdout { at, bytes } => {
                partial.extend_from_slice(bytes);
                while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
                    inputs.push(OwnedInput::Stdout(at, partial.drain(..=end).collect()));
                }
            }
            Input::End => {}
            input => inputs.push(input.into()),
        }
        ControlFlow::Continue(())
    };
    Replay::open(file).expect("a recording").play(&mut keep).expect("undamaged");
    inputs
}

/// The checker's statistics after these inputs. The law of conservation is checked after each of them.
pub fn play(inputs: &[OwnedInput]) -> Stats {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let mut push = |input: Input<'_>| {
        pipeline.push(input);
        pipeline.stats().assert_conserved();
    };
    push(Input::Tree { id: TreeId(0), name: "tree" });
    inputs.iter().for_each(|input| push(input.as_input()));
    push(Input::End);
    let stats = pipeline.stats().clone();
    assert!(stats.trees.iter().all(|tree| tree.pending() == 0), "pending at the end");
    stats
}

/// When an input was read: the reader's clock, if the input has a time.
pub fn read_at(input: &OwnedInput) -> Option<MonoTime> {
    match input {
        OwnedInput::Batch(batch) => Some(batch.head.after),
        OwnedInput::Stdout(at, _) | OwnedInput::Stderr(at, _) => Some(*at),
        OwnedInput::Other(
            Input::DtraceUp { at } | Input::DtraceDown { at } | Input::Forks { at, .. },
        ) => Some(*at),
        OwnedInput::Tree(..) | OwnedInput::Other(_) => None,
    }
}

/// Moves the times of an input as if the reader's clock had been `by_ns` ahead.
pub fn delay(input: &mut OwnedInput, by_ns: u64) {
    match input {
        OwnedInput::Batch(OwnedBatch { head: Batch { before, after, .. }, .. }) => {
            (before.0, after.0) = (before.0 + by_ns, after.0 + by_ns);
        }
        OwnedInput::Stdout(at, _)
        | OwnedInput::Stderr(at, _)
        | OwnedInput::Other(
            Input::DtraceUp { at } | Input::DtraceDown { at } | Input::Forks { at, .. },
        ) => at.0 += by_ns,
        OwnedInput::Tree(..) | OwnedInput::Other(_) => {}
    }
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

/// Replaces each line of dtrace's stdout by the lines that `change` returns.
pub fn each_line(
    inputs: &[OwnedInput],
    mut change: impl FnMut(&str) -> Vec<String>,
) -> Vec<OwnedInput> {
    let mut changed = Vec::new();
    for input in inputs {
        match input {
            OwnedInput::Stdout(at, line) => {
                let lines = change(std::str::from_utf8(line).expect("text"));
                changed.extend(lines.into_iter().map(|l| OwnedInput::Stdout(*at, l.into_bytes())));
            }
            other => changed.push(other.clone()),
        }
    }
    changed
}

/// Sorts what dtrace printed at one time by its time stamps: dtrace does so with what it takes from the buffers of all
/// CPUs in one pass.
pub fn sorted_in_passes(mut inputs: Vec<OwnedInput>) -> Vec<OwnedInput> {
    let lines: Vec<usize> =
        (0..inputs.len()).filter(|i| matches!(inputs[*i], OwnedInput::Stdout(..))).collect();
    let read_at = |i: &usize| read_at(&inputs[*i]);
    let passes: Vec<Vec<usize>> =
        lines.chunk_by(|a, b| read_at(a) == read_at(b)).map(<[usize]>::to_vec).collect();
    for pass in passes {
        let mut sorted: Vec<OwnedInput> = pass.iter().map(|i| inputs[*i].clone()).collect();
        sorted.sort_by_key(|input| match input {
            OwnedInput::Stdout(_, line) => stamp(std::str::from_utf8(line).expect("text")),
            _ => 0,
        });
        for (place, input) in pass.into_iter().zip(sorted) {
            inputs[place] = input;
        }
    }
    inputs
}

/// As if the clock of this CPU were off by `by_ns`.
pub fn skewed(inputs: &[OwnedInput], cpu: &str, by_ns: i64) -> Vec<OwnedInput> {
    let of_cpu = |line: &str| {
        line.starts_with(['C', 'X', 'E', 'F', 'M']) && line.split(' ').nth(2) == Some(cpu)
    };
    let skewed = each_line(inputs, |line| {
        vec![if of_cpu(line) { moved(line, by_ns) } else { line.to_owned() }]
    });
    sorted_in_passes(skewed)
}

/// As if DTrace's clock stepped by `by_ns` after this share of the inputs.
pub fn stepped(inputs: &[OwnedInput], after: f64, by_ns: i64) -> Vec<OwnedInput> {
    let step = (inputs.len() as f64 * after) as usize;
    let (before, behind) = inputs.split_at(step);
    let behind = each_line(behind, |line| vec![moved(line, by_ns)]);
    before.iter().cloned().chain(behind).collect()
}

/// As if the reader's clock stepped by `by_ns` after this share of the inputs.
pub fn reader_stepped(inputs: &[OwnedInput], after: f64, by_ns: i64) -> Vec<OwnedInput> {
    let step = (inputs.len() as f64 * after) as usize;
    let mut inputs = inputs.to_vec();
    for input in &mut inputs[step..] {
        if let OwnedInput::Batch(OwnedBatch { head: Batch { before, after, .. }, .. }) = input {
            *before = MonoTime(before.0.saturating_add_signed(by_ns));
            *after = MonoTime(after.0.saturating_add_signed(by_ns));
        }
    }
    inputs
}
