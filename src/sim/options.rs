//! The options of a simulated run, as flags of `simulate` and as keys of `--set`. With a seed they are the whole of a run.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::model::{Regime, Shape};

/// How the keys of `--set` are shown: the columns of a line, and where the explanation begins.
const WIDTH: usize = 68;
const INDENT: usize = 20;

/// Defines each knob once: the field, its value's name, its parser and its default; from them the key of `--set` with its
/// place in `--help` and in the line that repeats a run.
macro_rules! options {
    ($($heading:literal {
        $(
            #[doc = $doc:literal]
            $name:ident($value:literal, $parser:expr): $type:ty = $default:expr,
        )+
    })+) => {
        /// The knobs of a simulated kernel, its load, its reader and its DTrace.
        /// [`Display`](fmt::Display) writes those that are not at their default as flags of `simulate`.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Options {
            /// How the kernel delivers NOTE_CHILD and NOTE_EXIT.
            pub regime: Regime,
            /// What the processes do.
            pub shape: Shape,
            /// How often the shape is repeated.
            pub count: u32,
            $($(
                #[doc = $doc]
                pub $name: $type,
            )+)+
        }

        impl Default for Options {
            fn default() -> Options {
                Options {
                    regime: Regime::Split,
                    shape: Shape::Mix,
                    count: 200,
                    $($($name: $default,)+)+
                }
            }
        }

        impl Options {
            /// Gives the knob with this key a value.
            ///
            /// # Errors
            /// An unknown key (the text lists all), or a value that the knob cannot have.
            fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
                let name = key.replace('-', "_");
                $($(if name == stringify!($name) {
                    self.$name = $parser(value).map_err(|error: String| format!("{key}: {error}"))?;
                    return Ok(());
                })+)+
                let keys = [$($(stringify!($name)),+),+].join(" ").replace('_', "-");
                Err(format!("there is no key {key}; the keys are: {keys}"))
            }

            /// The keys of `--set`, one under the other, with what they mean and what they are without it.
            fn keys() -> String {
                let mut text = String::new();
                $(
                    text += concat!("\n\n", $heading, ":");
                    $(text += &line(stringify!($name), $value, $doc, &$default.to_string());)+
                )+
                text
            }
        }

        impl fmt::Display for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let default = Options::default();
                write!(f, "--regime {} --shape {}", self.regime, self.shape)?;
                if self.count != default.count {
                    write!(f, " --count {}", self.count)?;
                }
                $($(if self.$name != default.$name {
                    let key = stringify!($name).replace('_', "-");
                    write!(f, " --set {key}={}", self.$name)?;
                })+)+
                Ok(())
            }
        }
    };
}

/// A key with its explanation, broken into lines.
fn line(name: &str, value: &str, doc: &str, default: &str) -> String {
    let mut text = format!("\n{:INDENT$}", format!("{}={value}", name.replace('_', "-")));
    let mut column = INDENT;
    for word in format!("{} [{default}]", doc.trim()).split(' ') {
        if column + word.len() > WIDTH {
            text += &format!("\n{:INDENT$}", "");
            column = INDENT;
        }
        text += word;
        text += " ";
        column += word.len() + 1;
    }
    text
}

/// A whole number within `range`: beyond it there is nothing to simulate, or it never ends.
fn within<T: FromStr + PartialOrd + fmt::Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("give a number from {} to {}", range.start(), range.end()))
    }
}

fn chance(text: &str) -> Result<f64, String> {
    let chance = text.parse().ok().filter(|chance| (0.0..=1.0).contains(chance));
    chance.ok_or_else(|| "give a chance from 0, never, to 1, always".to_owned())
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "give true or false".to_owned())
}

/// A minute in microseconds.
const MINUTE_US: u64 = 60_000_000;
/// An hour in milliseconds.
const HOUR_MS: u64 = 3_600_000;
/// The furthest that a clock may jump, in milliseconds: a run begins ten seconds after the clock's origin.
const STEP_MS: i64 = 9_000;

options! {
    "The simulated kernel" {
        /// Number of CPUs
        cpus("N", within(1..=256)): u32 = 2,
        /// Highest pid; low ones are reused soon
        pid_max("PID", within(200..=99_999)): u32 = 99_999,
        /// How long knote_fork keeps a knote in flux, in microseconds
        flux_us("US", within(0..=MINUTE_US)): u64 = 2,
        /// The chance, 0 to 1, that a thread is preempted between queueing a note and its probe
        preempt("P", chance): f64 = 0.02,
        /// For how long it is preempted at most, in microseconds
        preempt_us("US", within(0..=MINUTE_US)): u64 = 5_000,
        /// The chance that a child runs before its knote exists (kernels up to 10.4; merged regimes only)
        race("P", chance): f64 = 0.0,
        /// Whether NOTE_EXIT is queued before proc:::exit fires (kernels up to 12.3) or after it (13.2 and later)
        exit_note_first("BOOL", yes_or_no): bool = false,
        /// The chance that the allocation of a knote fails
        alloc_fail("P", chance): f64 = 0.0,
        /// How many knotes there is memory for
        max_knotes("N", within(0..=10_000_000)): u32 = 20_000,
        /// The chance that a process that ends while kevent(2) scans one of its pending notes loses them and NOTE_EXIT
        lost_exit("P", chance): f64 = 0.0,
        /// The chance that an event's data is scribbled over (no kernel is known to do it)
        corrupt("P", chance): f64 = 0.0,
    }
    "Its load" {
        /// Generations of a chain
        depth("N", within(0..=1000)): u32 = 6,
        /// Threads that fork at the same time
        threads("N", within(1..=1000)): u32 = 4,
        /// Mean time between two forks of one thread, in microseconds
        gap_us("US", within(0..=MINUTE_US)): u64 = 500,
        /// Mean time between forks outside the tree, in microseconds; 0 for none
        foreign_us("US", within(0..=MINUTE_US)): u64 = 20_000,
    }
    "Its kqueue reader" {
        /// Also ask for NOTE_FORK
        note_fork("BOOL", yes_or_no): bool = false,
        /// Also ask for NOTE_EXEC
        note_exec("BOOL", yes_or_no): bool = false,
        /// How long the reader stalls, in milliseconds
        stall_ms("MS", within(0..=HOUR_MS)): u64 = 0,
        /// How many calls of the reader lie between two stalls
        stall_every("N", within(1..=1_000_000_000)): u64 = 2,
        /// Mean time from an event to the reader's wake-up, in microseconds
        reader_us("US", within(0..=MINUTE_US)): u64 = 50,
        /// How long the reader's call takes to copy one event, in nanoseconds
        scan_ns("NS", within(0..=1_000_000_000)): u64 = 600,
        /// By how much the reader's clock jumps in the middle of the run, in milliseconds
        reader_step_ms("MS", within(-STEP_MS..=STEP_MS)): i64 = 0,
    }
    "Its consumers" {
        /// How many processes use kqueue themselves, each in its own way; DTrace alone watches them
        consumers("N", within(0..=64)): u32 = 0,
        /// Whether the exporter's own reader watches the tree too
        mirror("BOOL", yes_or_no): bool = true,
    }
    "Its DTrace" {
        /// DTrace's buffer for each CPU, in bytes
        buffer("BYTES", within(0..=1 << 30)): u32 = 4 << 20,
        /// How often DTrace's buffers are switched, per second
        switch_hz("HZ", within(1..=5000)): u32 = 10,
        /// How long dtrace takes to print one record, in microseconds
        print_us("US", within(0..=MINUTE_US)): u64 = 1,
        /// How far a CPU's clock may be off, in microseconds, either way
        skew_us("US", within(0..=MINUTE_US)): u64 = 0,
        /// By how much DTrace's clock jumps in the middle of the run, in milliseconds
        clock_step_ms("MS", within(-STEP_MS..=STEP_MS)): i64 = 0,
        /// When a clock jumps, in milliseconds after the start
        step_at_ms("MS", within(0..=HOUR_MS)): u64 = 400,
        /// The chance that a fork or an exit is printed twice, some hundred nanoseconds apart
        twice("P", chance): f64 = 0.0,
        /// Whether the buffers are printed one CPU after the other, not merged by their time stamps
        in_turn("BOOL", yes_or_no): bool = false,
        /// Whether the causes are traced too: which registrations fail, and which forks are passed over
        causes("BOOL", yes_or_no): bool = false,
        /// When dtrace aborts, in milliseconds after its start; 0 for never
        abort_ms("MS", within(0..=HOUR_MS)): u64 = 0,
    }
}

/// The flags of `simulate` that say what to simulate.
#[derive(clap::Args)]
#[command(next_help_heading = "What is simulated")]
struct Flags {
    /// How the kernel delivers: split (FreeBSD 10.4, 11.0 and later), merged-status (7.0 to 10.3), merged-ppid (others)
    #[arg(long, value_name = "REGIME", default_value_t = Regime::Split)]
    regime: Regime,
    /// What the processes do
    #[arg(long, value_name = "SHAPE", default_value_t = Shape::Mix)]
    shape: Shape,
    /// How often the shape is repeated
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    count: u32,
    /// Turn a knob of the kernel, the load, the reader or DTrace; can be given many times. --help lists the keys
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

/// A key and its value, both of which are known to be right.
fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    Options::default().set(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

impl clap::Args for Options {
    fn augment_args(command: clap::Command) -> clap::Command {
        let help = "Turn a knob; can be given many times. The keys, each with its default:";
        Flags::augment_args(command)
            .mut_arg("set", |set| set.long_help(format!("{help}{}", Options::keys())))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Options::augment_args(command)
    }
}

impl clap::FromArgMatches for Options {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Options, clap::Error> {
        let Flags { regime, shape, count, set } = Flags::from_arg_matches(matches)?;
        let mut options = Options { regime, shape, count, ..Options::default() };
        for (key, value) in set {
            options.set(&key, &value).map_err(|error| {
                clap::Error::raw(clap::error::ErrorKind::ValueValidation, error)
            })?;
        }
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Options::from_arg_matches(matches)?;
        Ok(())
    }
}

impl FromStr for Regime {
    type Err = String;

    fn from_str(word: &str) -> Result<Regime, String> {
        match Regime::from_name(word) {
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
            "--regime merged-ppid --shape chain --set alloc-fail=0.001 --set note-fork=true \
             --set stall-ms=40"
        );
        assert_eq!(parse(&line), options);
    }

    #[test]
    fn what_cannot_be_simulated_is_refused() {
        for line in [
            "--count -1",
            "--set cpus=0",
            "--set threads=0",
            "--set switch-hz=0",
            "--set pid-max=100",
            "--set preempt=7",
            "--set corrupt=NaN",
            "--set race=-1",
            "--set clock-step-ms=-9001",
            "--set note-fork=maybe",
            "--set reader-us=18446744073709551615",
            "--set stall-ms",
            "--set no-such-key=1",
        ] {
            let line = std::iter::once("simulate").chain(line.split_whitespace());
            assert!(Line::try_parse_from(line.clone()).is_err(), "{:?}", line.collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_lists_the_keys() {
        let error = setting("stall=4").expect_err("no such key");
        assert!(error.starts_with("there is no key stall; the keys are: cpus pid-max "), "{error}");
        for key in Options::keys().lines().filter_map(|line| line.split_once('=')) {
            assert!(error.split(' ').any(|known| known == key.0) || key.0.contains(' '), "{key:?}");
        }
        assert!(Options::keys().lines().all(|line| line.trim_end().len() <= WIDTH));
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        assert_eq!(parse("--set stall-ms=4 --set stall-ms=7").stall_ms, 7);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!("unknown".parse::<Regime>().is_err());
    }
}
