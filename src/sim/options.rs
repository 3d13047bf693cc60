//! The knobs of a simulated kernel. Together with a seed they are the whole of a run.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::builder::{RangedI64ValueParser, RangedU64ValueParser};

use crate::model::{Regime, Shape};

/// Defines each knob once: the field, its flag, its value's name and default, and its place in `--help` and in the line
/// that repeats a run.
macro_rules! options {
    ($($heading:literal {
        $(
            $(#[doc = $doc:literal])+
            $name:ident($value:ident$(, $parser:expr)?): $type:ty = $default:expr,
        )+
    })+) => {
        /// The knobs of a simulated kernel, its load, its reader and its DTrace.
        /// [`Display`](fmt::Display) writes those that are not at their default as flags of `simulate`.
        #[derive(Clone, PartialEq, Debug, clap::Args)]
        pub struct Options {
            $($(
                $(#[doc = $doc])+
                #[arg(
                    long,
                    help_heading = $heading,
                    value_name = stringify!($value),
                    action = clap::ArgAction::Set,
                    default_value_t = $default
                )]
                $(#[arg(value_parser = $parser, allow_negative_numbers = true)])?
                pub $name: $type,
            )+)+
        }

        impl Default for Options {
            fn default() -> Options {
                Options { $($($name: $default,)+)+ }
            }
        }

        impl fmt::Display for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let default = Options::default();
                write!(f, "--regime {} --shape {}", self.regime, self.shape)?;
                $($(
                    let flag = stringify!($name);
                    if self.$name != default.$name && flag != "regime" && flag != "shape" {
                        write!(f, " --{} {}", flag.replace('_', "-"), self.$name)?;
                    }
                )+)+
                Ok(())
            }
        }
    };
}

/// A whole number within `range`: beyond it there is nothing to simulate, or it never ends.
fn within<T>(range: RangeInclusive<u64>) -> RangedU64ValueParser<T>
where
    T: TryFrom<u64> + Clone + Send + Sync,
{
    RangedU64ValueParser::new().range(range)
}

/// A minute in microseconds.
const MINUTE_US: u64 = 60_000_000;
/// An hour in milliseconds.
const HOUR_MS: u64 = 3_600_000;
/// The furthest that a clock may jump, in milliseconds: a run begins ten seconds after the clock's origin.
const STEP_MS: i64 = 9_000;

fn signed(range: RangeInclusive<i64>) -> RangedI64ValueParser<i64> {
    RangedI64ValueParser::new().range(range)
}

fn chance(text: &str) -> Result<f64, String> {
    let chance = text.parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
    chance.ok_or_else(|| "give a chance from 0, never, to 1, always".to_owned())
}

options! {
    "The simulated kernel" {
        /// How it delivers: split (FreeBSD 10.4, 11.0 and later), merged-status (7.0 to 10.3), merged-ppid (others)
        regime(REGIME): Regime = Regime::Split,
        /// Number of CPUs
        cpus(N, within::<u32>(1..=256)): u32 = 2,
        /// Highest pid; low ones are reused soon
        pid_max(PID, within::<u32>(200..=99_999)): u32 = 99_999,
        /// How long knote_fork keeps a knote in flux, in microseconds
        flux_us(US, within::<u64>(0..=MINUTE_US)): u64 = 2,
        /// The chance, 0 to 1, that a thread is preempted between queueing a note and its probe
        preempt(P, chance): f64 = 0.02,
        /// For how long it is preempted at most, in microseconds
        preempt_us(US, within::<u64>(0..=MINUTE_US)): u64 = 5_000,
        /// The chance that a child runs before its knote exists (kernels up to 10.4; merged regimes only)
        race(P, chance): f64 = 0.0,
        /// Whether NOTE_EXIT is queued before proc:::exit fires (kernels up to 12.3) or after it (13.2 and later)
        exit_note_first(BOOL): bool = false,
        /// The chance that the allocation of a knote fails
        alloc_fail(P, chance): f64 = 0.0,
        /// How many knotes there is memory for
        max_knotes(N, within::<u32>(0..=10_000_000)): u32 = 20_000,
        /// The chance that a process that ends while kevent(2) scans one of its pending notes loses them and NOTE_EXIT
        lost_exit(P, chance): f64 = 0.0,
        /// The chance that an event's data is scribbled over (no kernel is known to do it)
        corrupt(P, chance): f64 = 0.0,
    }
    "Its load" {
        /// What the processes do
        shape(SHAPE): Shape = Shape::Mix,
        /// How often the shape is repeated
        count(N, within::<u32>(0..=10_000_000)): u32 = 200,
        /// Generations of a chain
        depth(N, within::<u32>(0..=1000)): u32 = 6,
        /// Threads that fork at the same time
        threads(N, within::<u32>(1..=1000)): u32 = 4,
        /// Mean time between two forks of one thread, in microseconds
        gap_us(US, within::<u64>(0..=MINUTE_US)): u64 = 500,
        /// Mean time between forks outside the tree, in microseconds; 0 for none
        foreign_us(US, within::<u64>(0..=MINUTE_US)): u64 = 20_000,
    }
    "Its kqueue reader" {
        /// Also ask for NOTE_FORK
        note_fork(BOOL): bool = false,
        /// Also ask for NOTE_EXEC
        note_exec(BOOL): bool = false,
        /// How long the reader stalls, in milliseconds
        stall_ms(MS, within::<u64>(0..=HOUR_MS)): u64 = 0,
        /// How many calls of the reader lie between two stalls
        stall_every(N, within::<u64>(1..=1_000_000_000)): u64 = 2,
        /// Mean time from an event to the reader's wake-up, in microseconds
        reader_us(US, within::<u64>(0..=MINUTE_US)): u64 = 50,
        /// How long the reader's call takes to copy one event, in nanoseconds
        scan_ns(NS, within::<u64>(0..=1_000_000_000)): u64 = 600,
        /// By how much the reader's clock jumps in the middle of the run, in milliseconds
        reader_step_ms(MS, signed(-STEP_MS..=STEP_MS)): i64 = 0,
    }
    "Its DTrace" {
        /// DTrace's buffer for each CPU, in bytes
        buffer(BYTES, within::<u32>(0..=1 << 30)): u32 = 4 << 20,
        /// How often DTrace's buffers are switched, per second
        switch_hz(HZ, within::<u32>(1..=5000)): u32 = 10,
        /// How long dtrace takes to print one record, in microseconds
        print_us(US, within::<u64>(0..=MINUTE_US)): u64 = 1,
        /// How far a CPU's clock may be off, in microseconds, either way
        skew_us(US, within::<u64>(0..=MINUTE_US)): u64 = 0,
        /// By how much DTrace's clock jumps in the middle of the run, in milliseconds
        clock_step_ms(MS, signed(-STEP_MS..=STEP_MS)): i64 = 0,
        /// When a clock jumps, in milliseconds after the start
        step_at_ms(MS, within::<u64>(0..=HOUR_MS)): u64 = 400,
        /// The chance that a fork or an exit is printed twice, some hundred nanoseconds apart
        twice(P, chance): f64 = 0.0,
        /// Whether the buffers are printed one CPU after the other, not merged by their time stamps
        in_turn(BOOL): bool = false,
        /// When dtrace aborts, in milliseconds after its start; 0 for never
        abort_ms(MS, within::<u64>(0..=HOUR_MS)): u64 = 0,
    }
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
            "--regime merged-ppid --shape chain --alloc-fail 0.001 --note-fork true --stall-ms 40"
        );
        assert_eq!(parse(&line), options);
    }

    #[test]
    fn what_cannot_be_simulated_is_refused() {
        for line in [
            "--cpus=0",
            "--threads=0",
            "--switch-hz=0",
            "--pid-max=100",
            "--preempt=7",
            "--corrupt=NaN",
            "--race -1",
            "--reader-us=18446744073709551615",
        ] {
            let line = std::iter::once("simulate").chain(line.split_whitespace());
            assert!(Line::try_parse_from(line.clone()).is_err(), "{:?}", line.collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_unknown_word_is_refused() {
        assert!("unknown".parse::<Regime>().is_err());
    }
}
