//! The parts that cost something, each on its own: `cargo bench`.

use std::ops::ControlFlow;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kqproc_exporter::check::stats::{Stats, TreeStats};
use kqproc_exporter::check::{Checker, Config};
use kqproc_exporter::input::{Batch, Input, OwnedInput};
use kqproc_exporter::metrics::{Facts, HostFacts, Origin, Pages};
use kqproc_exporter::model::{MonoTime, TreeId};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::recording::{Meta, Reader, Writer};
use kqproc_exporter::sim::{self, Options, Shape};
use kqproc_exporter::wire::record::Record;
use kqproc_exporter::wire::records::{Printed, Records};

fn main() {
    divan::main();
}

/// The batches and the output of dtrace from a simulated kernel with four forking threads.
struct Stream {
    inputs: Vec<OwnedInput>,
    text: Vec<u8>,
    events: usize,
}

fn stream() -> Stream {
    let options = Options {
        shape: Shape::Threads,
        count: 10_000,
        gap_us: 200,
        reader_us: 500,
        ..Options::default()
    };
    let mut stream = Stream { inputs: vec![], text: vec![], events: 0 };
    sim::run(1, &options, &mut |input: Input<'_>| {
        match input {
            Input::Batch(batch) => {
                stream.events += batch.events.len();
            }
            Input::Stdout { bytes, .. } => stream.text.extend_from_slice(bytes),
            _ => return ControlFlow::Continue(()),
        }
        stream.inputs.push(input.into());
        ControlFlow::Continue(())
    });
    stream.events += lines(&stream.text);
    stream
}

fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

#[divan::bench]
fn decode(bencher: Bencher) {
    let text = stream().text;
    bencher.counter(BytesCount::of_slice(&text)).counter(ItemsCount::new(lines(&text))).bench(
        || {
            let mut good = 0;
            let mut records = Records::default();
            for chunk in text.chunks(64 << 10) {
                records.feed(chunk, |printed| {
                    good += u64::from(matches!(divan::black_box(printed), Printed::Record(_)));
                });
            }
            good
        },
    );
}

#[divan::bench]
fn cross_check(bencher: Bencher) {
    enum Event<'a> {
        Record(Record, MonoTime),
        Batch(Batch<'a>),
    }
    let stream = stream();
    let (mut events, mut records) = (vec![], Records::default());
    for input in &stream.inputs {
        match input.as_input() {
            Input::Batch(batch) => events.push(Event::Batch(batch)),
            Input::Stdout { at, bytes } => records.feed(bytes, |printed| {
                if let Printed::Record(record) = printed {
                    events.push(Event::Record(record, at));
                }
            }),
            _ => {}
        }
    }
    bencher.counter(ItemsCount::new(stream.events)).bench(|| {
        let mut checker = Checker::new(Config::default());
        checker.tree(TreeId(0), "bench");
        for event in &events {
            match event {
                Event::Record(record, at) => checker.record(*record, *at, &mut ()),
                Event::Batch(batch) => checker.batch(batch, &mut ()),
            }
        }
        checker.end(&mut ());
        checker
    });
}

#[divan::bench]
fn decode_and_cross_check(bencher: Bencher) {
    let stream = stream();
    bencher.counter(ItemsCount::new(stream.events)).bench(|| {
        let mut pipeline = Pipeline::new(Config::default(), ());
        pipeline.push(Input::Tree { id: TreeId(0), name: "bench" });
        stream.inputs.iter().for_each(|input| pipeline.push(input.as_input()));
        pipeline
    });
}

#[divan::bench]
fn write_recording(bencher: Bencher) {
    let stream = stream();
    bencher.counter(ItemsCount::new(stream.events)).bench(|| record(&stream));
}

#[divan::bench]
fn read_recording(bencher: Bencher) {
    let stream = stream();
    let bytes = record(&stream);
    bencher.counter(ItemsCount::new(stream.events)).bench(|| {
        let mut reader = Reader::new(&bytes[..]).expect("a recording");
        let mut inputs = 0;
        while let Some(input) = reader.next().expect("an undamaged recording") {
            divan::black_box(&input);
            inputs += 1;
        }
        inputs
    });
}

fn record(stream: &Stream) -> Vec<u8> {
    let mut writer = Writer::new(vec![], &Meta::default()).expect("memory");
    stream.inputs.iter().for_each(|input| writer.append(&input.as_input()).expect("memory"));
    writer.finish().expect("memory")
}

/// `/metrics` in both formats, plain and gzipped, with this many trees.
#[divan::bench(args = [1, 100, 1000])]
fn encode_metrics(bencher: Bencher, trees: usize) {
    let tree = |n| TreeStats { name: format!("tree{n}"), ..TreeStats::default() };
    let stats = Arc::new(Stats { trees: (0..trees).map(tree).collect(), ..Stats::default() });
    let facts = || Facts {
        origin: Origin::Simulate,
        hosts: vec![HostFacts {
            name: String::new(),
            osrelease: "simulated".to_string(),
            osreldate: 0,
            sources: vec![],
            stats: Arc::clone(&stats),
        }],
        cpu: vec![],
        external_url: String::new(),
        reload_ok: true,
        reloaded_at: 0.0,
    };
    bencher.bench(|| Pages::default().get(&stats, facts).map(drop).is_ok());
}
