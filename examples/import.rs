//! Makes the files in `recordings/` from the raw directories that they were recorded into:
//! `cargo run --example import -- RAW_ROOT D_PROGRAM recordings`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use kqproc_exporter::recording::Meta;
use kqproc_exporter::source::raw::Raw;

const STOCK_13_2: (&str, u32, &str) = ("FreeBSD 13.2-RELEASE amd64", 1302001, "stock kernel");
const MERGED_13_2: (&str, u32, &str) =
    ("FreeBSD 13.2-RELEASE amd64", 1302001, "13.2 with r295012 reverted: one knote a child");
const STOCK_15_1: (&str, u32, &str) = ("FreeBSD 15.1-RELEASE-p1 amd64", 1501000, "stock kernel");

/// Kernel, raw directory, recording.
const RECORDINGS: [((&str, u32, &str), &str, &str); 8] = [
    (STOCK_13_2, "split/enoent-drain", "split-13.2-enoent-drain.kqr"),
    (STOCK_13_2, "split/chain-stall", "split-13.2-chain-stall.kqr"),
    (STOCK_13_2, "split/drops", "split-13.2-drops.kqr"),
    (STOCK_15_1, "split15/orphan", "split-15.1-orphan.kqr"),
    (MERGED_13_2, "merged/enoent-drain", "merged-enoent-drain.kqr"),
    (MERGED_13_2, "merged/exit-stall", "merged-exit-stall.kqr"),
    (MERGED_13_2, "merged/orphan", "merged-orphan.kqr"),
    (MERGED_13_2, "merged/drops", "merged-drops.kqr"),
];

fn main() -> anyhow::Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [root, program, out] = &args[..] else { bail!("usage: import RAW_ROOT D_PROGRAM OUT_DIR") };
    let program = fs::read_to_string(program).context("the D program")?;
    for ((uname, osreldate, kernel), dir, name) in RECORDINGS {
        let raw = Raw::open(&root.join(dir))?;
        let meta = Meta {
            uname: uname.into(),
            osreldate,
            program: program.clone(),
            note: format!("{kernel}, 2 CPUs, emulated; {}", raw.meta().note),
            ..Meta::default()
        };
        let bytes = raw.import(meta, Vec::new())?;
        println!("{name}: {} bytes, {} bad lines", bytes.len(), raw.bad_lines());
        fs::write(out.join(name), bytes).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}
