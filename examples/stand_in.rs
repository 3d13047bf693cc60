//! The exporter with a stand-in for FreeBSD's kernel: tests run the commands that watch a kernel on any system. Everything but
//! the kernel is the exporter's own. The released exporter does not contain the stand-in.
//!
//! `KQPROC_STAND_IN` is `FOLDER:BEHAVIOUR:ROUNDS`: the folder with the stand-in's dtrace(1), and the behaviour and the number of
//! forks of the kernel. With a fourth field the load runs before it is tracked, and so many microseconds lie between two forks.

#[path = "../tests/common/stand_in.rs"]
mod stand_in;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kqproc_exporter::cli;
use kqproc_exporter::source::kqueue::KqueueApi;
use stand_in::StandInKernel;

fn main() -> ExitCode {
    cli::main(open)
}

fn open() -> io::Result<Box<dyn KqueueApi>> {
    let what = std::env::var("KQPROC_STAND_IN").map_err(io::Error::other)?;
    let mut fields = what.split(':');
    let (Some(folder), Some(behaviour), Some(rounds)) =
        (fields.next(), fields.next(), fields.next())
    else {
        return Err(io::Error::other(what));
    };
    let behaviour = behaviour.parse().map_err(io::Error::other)?;
    let rounds = rounds.parse().map_err(io::Error::other)?;
    let period = fields.next();
    let is_running = period.is_some();
    let period = period.unwrap_or("0").parse().map_err(io::Error::other)?;
    let period = Duration::from_micros(period);
    let kernel = StandInKernel::new(Path::new(folder), rounds, period, is_running);
    Ok(Box::new(kernel.behaving(behaviour)))
}
