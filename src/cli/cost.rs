//! `check --cost`: measures on the spot what the D program costs a busy process that is not watched.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::busy;
use super::exit::{NOPERM, OSERR, OrExit, UNAVAILABLE};
use super::progress::ProgressLine;
use crate::load::busy::{Busy, CALL};
use crate::report::cost::{Cost, Speed};
use crate::source::dtrace::{DtraceOptions, DtraceWitness, KeeperScope};

/// How often dtrace(1) is started. Each time the busy processes run without, with, with and without it: a host that
/// becomes slower or faster meanwhile does not shift the ratios.
const ROUNDS: u32 = 3;

/// How often each of [`Busy`] was done in a second of processor time.
type Speeds = [f64; Busy::COUNT];

/// Measures for `time` in all; dtrace(1) takes its time to begin and to end besides.
pub(super) fn measure(options: &DtraceOptions, time: Duration) -> anyhow::Result<Cost> {
    let begun = Instant::now();
    let program =
        std::env::current_exe().context("cannot find this program").or_exit(UNAVAILABLE)?;
    let missing = if nix::unistd::geteuid().is_root() { UNAVAILABLE } else { NOPERM };
    let scope = KeeperScope { trees: true, ..KeeperScope::default() };
    let (mut dtrace, _keeper) =
        DtraceWitness::by_keeper(&program, options, scope).or_exit(missing)?;
    dtrace.choose(&[]).or_exit(missing)?;
    let each = time / (4 * ROUNDS * Busy::COUNT as u32);
    let speeds = || speeds(&program, each);
    let progress = ProgressLine::new("measuring", Some(ROUNDS.into()));
    let mut pairs: Vec<(Speeds, Speeds)> = Vec::new();
    for round in 0..ROUNDS {
        progress.set(round.into());
        let before = speeds()?;
        let cost_run = dtrace.cost_run().or_exit(UNAVAILABLE)?;
        let (first, second) = (speeds()?, speeds()?);
        cost_run.end().or_exit(UNAVAILABLE)?;
        pairs.extend([(before, first), (speeds()?, second)]);
    }
    let speed = |what: &Busy| {
        let pairs: Vec<(f64, f64)> = pairs
            .iter()
            .map(|(without, with)| (without[what.index()], with[what.index()]))
            .collect();
        let name = match what {
            Busy::Forks => "forks".to_owned(),
            Busy::Calls => format!("{CALL} calls"),
        };
        Speed::of(&name, &pairs)
    };
    Ok(Cost {
        program: dtrace.program_name().to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        speeds: Busy::ALL.iter().map(speed).collect(),
    })
}

/// One busy process after the other.
fn speeds(program: &Path, time: Duration) -> anyhow::Result<Speeds> {
    let mut speeds = Speeds::default();
    for what in Busy::ALL {
        speeds[what.index()] = speed(program, *what, time).or_exit(OSERR)?;
    }
    Ok(speeds)
}

fn speed(program: &Path, what: Busy, time: Duration) -> anyhow::Result<f64> {
    let output = Command::new(program)
        .args([busy::SUBCOMMAND, what.as_str(), &time.as_micros().to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot start a busy process")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().parse() {
        // In no processor time at all it would be infinite.
        Ok(speed) if output.status.success() && f64::is_normal(speed) => Ok(speed),
        _ => {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!("a busy process ({what}) failed: {} {}", output.status, why.trim())
        }
    }
}
