//! The knobs of a simulated kernel. Together with a seed they are the whole of a run.

use std::fmt;
use std::str::FromStr;

use crate::model::{Regime, Shape};

/// Defines each knob once: the field, its flag, its default, and its place in the line that repeats a run.
macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr,)+) => {
        /// The knobs of a simulated kernel, its load, its reader and its DTrace.
        /// [`Display`](fmt::Display) writes those that are not at their default as flags of `simulate`.
        #[derive(Clone, PartialEq, Debug, clap::Args)]
        pub struct Options {
            $(
                $(#[doc = $doc])+
                #[arg(long, action = clap::ArgAction::Set, default_value_t = $default)]
                pub $name: $type,
            )+
        }

        impl Default for Options {
            fn default() -> Options {
                Options { $($name: $default,)+ }
            }
        }

        impl fmt::Display for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let default = Options::default();
                write!(f, "--regime {} --shape {}", self.regime, self.shape)?;
                $(
                    let flag = stringify!($name);
                    if self.$name != default.$name && flag != "regime" && flag != "shape" {
                        write!(f, " --{} {}", flag.replace('_', "-"), self.$name)?;
                    }
                )+
                Ok(())
            }
        }
    };
}

options! {
    /// How the kernel delivers: split, merged-status or merged-ppid
    regime: Regime = Regime::Split,
    /// What the processes do
    shape: Shape = Shape::Mix,
    /// How often the shape is repeated
    count: u32 = 200,
    /// Generations of a chain
    depth: u32 = 6,
    /// Threads that fork at the same time
    threads: u32 = 4,
    /// Mean time between two forks of one thread, in microseconds
    gap_us: u64 = 500,
    /// Number of CPUs
    cpus: u32 = 2,
    /// Highest pid; low ones are reused soon
    pid_max: u32 = 99_999,
    /// Mean time between forks outside the tree, in microseconds; 0 for none
    foreign_us: u64 = 20_000,
    /// Also ask for NOTE_FORK
    note_fork: bool = false,
    /// Also ask for NOTE_EXEC
    note_exec: bool = false,
    /// How long the reader stalls, in milliseconds
    stall_ms: u64 = 0,
    /// How many calls of the reader lie between two stalls
    stall_every: u64 = 2,
    /// Mean time from an event to the reader's wake-up, in microseconds
    reader_us: u64 = 50,
    /// How long the reader's call takes to copy one event, in nanoseconds
    scan_ns: u64 = 600,
    /// How long knote_fork keeps a knote in flux, in microseconds
    flux_us: u64 = 2,
    /// How often a thread is preempted between queueing a note and its probe
    preempt: f64 = 0.02,
    /// For how long it is preempted at most, in microseconds
    preempt_us: u64 = 5_000,
    /// How often a child runs before its knote exists (kernels up to 10.4; merged regimes only)
    race: f64 = 0.0,
    /// Whether NOTE_EXIT is queued before proc:::exit fires (kernels up to 12.3) or after it (13.2 and later)
    exit_note_first: bool = false,
    /// How often the allocation of a knote fails
    alloc_fail: f64 = 0.0,
    /// How many knotes there is memory for
    max_knotes: u32 = 20_000,
    /// How often an event's data is scribbled over (no kernel is known to do it)
    corrupt: f64 = 0.0,
    /// DTrace's buffer for each CPU, in bytes
    buffer: u32 = 4 << 20,
    /// How often DTrace's buffers are switched, per second
    switch_hz: u32 = 10,
    /// How far a CPU's clock may be off, in microseconds, either way
    skew_us: u64 = 0,
    /// When dtrace aborts, in milliseconds after its start; 0 for never
    abort_ms: u64 = 0,
}

impl FromStr for Regime {
    type Err = String;

    fn from_str(word: &str) -> Result<Regime, String> {
        match Regime::from_word(word) {
            Some(Regime::Unknown) | None => {
                Err("no such regime: use split, merged-status or merged-ppid".to_string())
            }
            Some(regime) => Ok(regime),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Options {
        Line::parse_from(std::iter::once("simulate").chain(line.split_whitespace())).options
    }

    #[test]
    fn options_are_written_as_the_flags_that_make_them() {
        assert_eq!(parse(""), Options::default());
        let options = Options {
            regime: Regime::MergedPpid,
            shape: Shape::Chain,
            stall_ms: 40,
            alloc_fail: 0.001,
            note_fork: true,
            ..Options::default()
        };
        let line = options.to_string();
        assert_eq!(
            line,
            "--regime merged-ppid --shape chain --note-fork true --stall-ms 40 --alloc-fail 0.001"
        );
        assert_eq!(parse(&line), options);
    }

    #[test]
    fn an_unknown_word_is_refused() {
        assert!("unknown".parse::<Regime>().is_err());
    }
}
