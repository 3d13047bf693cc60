//! One part at a time, with the time that it takes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kqproc_exporter::check::Config;
use kqproc_exporter::input::{Attach, Batch, Input};
use kqproc_exporter::model::{Kevent, MonoTime, TreeId};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::recording::Reader;
use kqproc_exporter::sim;
use kqproc_exporter::wire::records::{Printed, Records};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::stream;

/// The processor time of this process so far. On a shared machine the wall clock depends on other processes.
fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(us.unsigned_abs()))
}

/// dtrace's stdout from a file, decoded and forgotten.
pub fn decode(path: &Path) -> anyhow::Result<()> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut buffer = vec![0; 64 << 10];
    let (mut records, mut good, mut bad) = (Records::default(), 0u64, 0u64);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        records.feed(&buffer[..read], |printed| match std::hint::black_box(printed) {
            Printed::Record(_) => good += 1,
            Printed::Message(_) | Printed::Bad(_) => bad += 1,
        });
    }
    println!("{good} records, {bad} bad lines, {:.3} s", cpu()?.as_secs_f64());
    Ok(())
}

/// An input that can wait.
enum Waiting {
    Batch(Batch<'static>, Vec<Attach>, Vec<Kevent>),
    Stdout(MonoTime, Vec<u8>),
}

/// Decoding and the cross-check on the first `events` records and kevents of a recording, without the time that reading
/// and decompressing it takes.
pub fn check(path: &Path, events: u64) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader = Reader::new(BufReader::new(file))?;
    let mut pipeline = Pipeline::new(Config::default(), ());
    pipeline.push(Input::Tree { id: TreeId(0), name: "bench" });
    let (mut spent, mut seen) = (Duration::ZERO, 0);
    while seen < events {
        let waiting = some(&mut reader)?;
        if waiting.is_empty() {
            break;
        }
        let before = cpu()?;
        for input in &waiting {
            match input {
                Waiting::Stdout(at, bytes) => pipeline.push(Input::Stdout { at: *at, bytes }),
                Waiting::Batch(head, attached, events) => {
                    seen += events.len() as u64;
                    pipeline.push(Input::Batch(Batch { attached, events, ..*head }));
                }
            }
            if seen + pipeline.stats().records.iter().sum::<u64>() >= events {
                break;
            }
        }
        spent += cpu()? - before;
        if seen + pipeline.stats().records.iter().sum::<u64>() >= events {
            break;
        }
    }
    seen += pipeline.stats().records.iter().sum::<u64>();
    let seconds = spent.as_secs_f64();
    println!("{seen} events, {seconds:.4} s, {:.1} ns each", seconds * 1e9 / seen as f64);
    Ok(())
}

/// The next few megabytes of inputs.
fn some(reader: &mut Reader<BufReader<File>>) -> anyhow::Result<Vec<Waiting>> {
    let mut waiting = vec![];
    let mut size = 0;
    while size < 4 << 20
        && let Some(input) = reader.next()?
    {
        match input {
            Input::Batch(batch) => {
                size += 64 + size_of_val(batch.events);
                let head = Batch { attached: &[], events: &[], ..batch };
                waiting.push(Waiting::Batch(head, batch.attached.to_vec(), batch.events.to_vec()));
            }
            Input::Stdout { at, bytes } => {
                size += bytes.len();
                waiting.push(Waiting::Stdout(at, bytes.to_vec()));
            }
            _ => {}
        }
    }
    Ok(waiting)
}

/// Resident memory while so many processes of a simulated kernel are born and die.
pub fn churn(births: u64) -> anyhow::Result<()> {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let mut next = births / 10;
    let mut resident = vec![];
    sim::run_endless(1, &stream::options(), &mut |input: Input<'_>| {
        pipeline.push(input);
        let seen = pipeline.stats().trees.first().map_or(0, |tree| tree.births_reported);
        if seen >= next {
            next += births / 10;
            resident.extend(resident_kib());
        }
        if seen >= births { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    pipeline.stats().assert_conserved();
    let text: Vec<String> =
        resident.iter().map(|kib| format!("{:.1}", *kib as f64 / 1024.0)).collect();
    println!("{}", text.join(" "));
    Ok(())
}

/// Of this process; the simulated kernel is part of it.
fn resident_kib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
