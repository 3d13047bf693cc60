//! Recordings and simulated runs, played through the checker.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use kqproc_exporter::check::Config;
use kqproc_exporter::check::stats::Stats;
use kqproc_exporter::model::{Fact, Verdict};
use kqproc_exporter::pipeline::Pipeline;
use kqproc_exporter::recording::Meta;
use kqproc_exporter::sim::{self, Options};
use kqproc_exporter::source::replay::Replay;

/// The counters at the end of an undamaged recording, and what it says of itself.
pub fn replay(path: &Path) -> (Stats, Meta) {
    let mut pipeline = Pipeline::new(Config::default(), ());
    let replay = Replay::open(path).expect("a recording");
    let meta = replay.meta();
    replay.play(&mut pipeline).expect("an undamaged recording");
    (pipeline.stats().clone(), meta)
}

/// The counters at the end of the simulated run with seed 1 and these options.
pub fn simulate(options: &Options) -> Stats {
    let mut pipeline = Pipeline::new(Config::default(), ());
    sim::run(1, options, &mut pipeline);
    pipeline.stats().clone()
}

/// The verdicts on this fact in the first tree, each with its number, without the zeros.
pub fn verdicts(stats: &Stats, fact: Fact) -> Vec<(Verdict, u64)> {
    let by = stats.trees[0].of(fact);
    Verdict::ALL.iter().map(|v| (*v, by[v.index()])).filter(|(_, n)| *n > 0).collect()
}

/// What dtrace printed: dtrace.txt of a directory, or dtrace.txt.gz.
pub fn dtrace_output(dir: &Path) -> String {
    let mut text = String::new();
    match File::open(dir.join("dtrace.txt.gz")) {
        Ok(packed) => {
            GzDecoder::new(packed).read_to_string(&mut text).expect("text");
            text
        }
        Err(_) => fs::read_to_string(dir.join("dtrace.txt")).expect("dtrace's output"),
    }
}
