//! Writes one run of a simulated kernel in every format that the benchmarks read.

use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use kqproc_exporter::check::Config;
use kqproc_exporter::input::{Batch, Input};
use kqproc_exporter::model::{MonoTime, Pid, Verdict, note};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::recording::{Meta, Writer};
use kqproc_exporter::sim::{self, Options, Shape};

/// The reader's pid in the raw directory: not one that the simulated kernel hands out soon.
const READER: u32 = Pid::MAX;

/// The load of every figure: four threads fork children that exit, and the reader wakes up late, as it does when forks come
/// fast. The kernel loses nothing and no other process forks, so that even a naive join counts correctly.
pub fn options() -> Options {
    Options {
        shape: Shape::Threads,
        count: 2_000,
        threads: 4,
        gap_us: 200,
        reader_us: 500,
        foreign_us: 0,
        flux_us: 0,
        preempt: 0.0,
        ..Options::default()
    }
}

/// The files of one stream.
struct Files {
    /// dtrace's stdout.
    dtrace: BufWriter<File>,
    /// dtrace's stdout and one line for each kevent, as they are read: the naive join's input.
    both: BufWriter<File>,
    recording: Writer<BufWriter<File>>,
    raw_dtrace: BufWriter<File>,
    raw_kevents: BufWriter<File>,
    /// A line that is not whole yet.
    partial: Vec<u8>,
    started: bool,
    records: u64,
}

/// Writes the stream into `dir` and prints what the naive join should count.
pub fn write(dir: &Path, records: u64) -> anyhow::Result<()> {
    let raw = dir.join("raw");
    create_dir_all(&raw)?;
    let create = |path: std::path::PathBuf| -> anyhow::Result<BufWriter<File>> {
        Ok(BufWriter::new(File::create(&path).with_context(|| path.display().to_string())?))
    };
    // An empty file: dtrace reported no drops.
    create(raw.join("dtrace.err"))?;
    let meta = Meta { uname: "simulated".into(), note: options().to_string(), ..Meta::default() };
    let mut files = Files {
        dtrace: create(dir.join("dtrace.txt"))?,
        both: create(dir.join("both.txt"))?,
        recording: Writer::new(create(dir.join("stream.kqr"))?, &meta)?,
        raw_dtrace: create(raw.join("dtrace.txt"))?,
        raw_kevents: create(raw.join("kevents.jsonl"))?,
        partial: vec![],
        started: false,
        records: 0,
    };
    let mut pipeline = Pipeline::new(Config::default(), ());
    let mut written = Ok(());
    sim::run_endless(1, &options(), &mut |input: Input<'_>| {
        pipeline.push(input);
        written = files.add(&input);
        match written.is_ok() && files.records < records {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    written?;
    pipeline.push(Input::End);
    files.finish()?;
    let stats = pipeline.stats();
    let agreed = |by: &[u64]| by[Verdict::Agreed.index()];
    let (births, deaths) = (agreed(&stats.trees[0].births), agreed(&stats.trees[0].deaths));
    println!("{births} {deaths}");
    Ok(())
}

impl Files {
    fn add(&mut self, input: &Input<'_>) -> anyhow::Result<()> {
        self.recording.append(input)?;
        match *input {
            Input::Stdout { bytes, .. } => self.stdout(bytes),
            Input::Batch(batch) => self.batch(&batch),
            _ => Ok(()),
        }
    }

    fn stdout(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.partial.extend_from_slice(bytes);
        let whole = self.partial.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        for line in self.partial[..whole].split_inclusive(|b| *b == b'\n') {
            self.records += 1;
            self.dtrace.write_all(line)?;
            self.both.write_all(line)?;
            self.raw_dtrace.write_all(&raw_line(line))?;
        }
        self.partial.drain(..whole);
        Ok(())
    }

    fn batch(&mut self, batch: &Batch<'_>) -> anyhow::Result<()> {
        if let Some(root) = batch.attached.first().filter(|_| !self.started) {
            self.started = true;
            let MonoTime(at) = batch.before;
            writeln!(
                self.raw_kevents,
                r#"{{"start":{{"reader":{READER},"root":{},"notes":0,"mono_ns":{at},"real_ns":{at}}}}}"#,
                root.pid
            )?;
        }
        let events: Vec<_> =
            batch.events.iter().map(|e| (e.ident, e.flags, e.fflags, e.data)).collect();
        writeln!(
            self.raw_kevents,
            r#"{{"batch":{},"cap":{},"before_ns":{},"after_ns":{},"events":{}}}"#,
            batch.seq,
            batch.capacity,
            batch.before.0,
            batch.after.0,
            serde_json::to_string(&events)?
        )?;
        for event in batch.events {
            let notes = match event.fflags & (note::CHILD | note::EXIT) {
                note::CHILD => "CHILD",
                note::EXIT => "EXIT",
                0 => "OTHER",
                _ => "CHILD|EXIT",
            };
            writeln!(self.both, "N {} {notes} {}", event.ident, event.data)?;
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.recording.append(&Input::End)?;
        self.recording.finish()?.flush()?;
        for mut file in [self.dtrace, self.both, self.raw_dtrace, self.raw_kevents] {
            file.flush()?;
        }
        Ok(())
    }
}

/// A mark as the programs of raw recordings print it: `K` with the reader's pid.
fn raw_line(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    match fields[..] {
        ["M", at, cpu, _, _, returned, _] => format!("K {at} {cpu} {READER} {returned}\n").into(),
        _ => line.to_vec(),
    }
}
