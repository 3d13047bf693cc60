//! The parts of the exporter on one big stream, one at a time: what `benches/compare.sh` runs.

mod measure;
mod stream;

use std::path::Path;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text}: not a number"));
    match args[..] {
        ["stream", dir, records] => stream::write(Path::new(dir), number(records)?),
        ["decode", file] => measure::decode(Path::new(file)),
        ["check", file, events] => measure::check(Path::new(file), number(events)?),
        ["churn", births] => measure::churn(number(births)?),
        _ => bail!(
            "usage: bench stream DIR RECORDS | decode DTRACE_TXT | check RECORDING EVENTS | churn BIRTHS"
        ),
    }
}
