//! `load`: real forks in one of the known shapes, as a process of its own that others watch.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use clap::builder::PossibleValue;

use super::exit::{self, Failure, OrExit};
use super::output;
use crate::load::{self, LoadTally, Plan, Shape};
use crate::model::WaitStatus;
use crate::report::format::count_of;
use crate::source::live::CommandEnd;

/// Which processes to fork, and how many.
#[derive(clap::Args, Debug)]
pub(super) struct LoadArgs {
    /// What the processes do
    shape: Shape,
    /// Do not print what was forked
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    size: Size,
}

/// How much load; `stress` has the same flags.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Load")]
pub(super) struct Size {
    /// Rounds: forks of the first process, each followed by those of its children
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(super) count: u64,
    /// Rounds a second; 0: as fast as possible
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) rate: u32,
    /// Generations of shape chain below its first process. FreeBSD 12.3 and later repeat NOTE_CHILD 2^generation times: 14
    /// gives 32,767 notes a chain, 16 costs minutes of kernel time
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(0..=16))]
    pub(super) depth: u8,
    /// Threads of shape threads that fork at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) threads: u16,
    /// No new round begins after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(super) max_seconds: u64,
}

impl clap::ValueEnum for Shape {
    fn value_variants<'a>() -> &'a [Shape] {
        Shape::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()).help(self.help()))
    }
}

impl Size {
    /// The load of this size.
    pub(super) fn plan(&self, shape: Shape) -> Plan {
        Plan {
            shape,
            count: self.count,
            rate: self.rate,
            depth: self.depth,
            threads: self.threads,
            max: Duration::from_secs(self.max_seconds),
        }
    }
}

/// Runs the load: exit status 0 when every process was forked, 75 when the time was up before.
pub(super) fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let plan = args.size.plan(args.shape);
    let begun = Instant::now();
    let tally = load::run(&plan).or_exit(exit::OSERR)?;
    if !args.quiet {
        output::print(&summary(&tally, begun.elapsed()))?;
    }
    let complete = !tally.timed_out && tally.cut_short() == 0;
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(exit::TEMPFAIL) })
}

/// The command line with which `program`, which is this program, runs the load of `plan` for `stress`.
pub(super) fn command_line(program: OsString, plan: &Plan) -> Vec<OsString> {
    let Plan { shape, count, rate, depth, threads, max } = plan;
    let arguments = [
        "load".to_owned(),
        "--quiet".to_owned(),
        shape.to_string(),
        format!("--count={count}"),
        format!("--rate={rate}"),
        format!("--depth={depth}"),
        format!("--threads={threads}"),
        format!("--max-seconds={}", max.as_secs()),
    ];
    std::iter::once(program).chain(arguments.map(Into::into)).collect()
}

/// Whether the load of `stress` forked every process of its plan. One that ran out of time did not, but did fork.
///
/// # Errors
/// The load failed: it says nothing about the kernel. The process should exit with [`exit::SOFTWARE`].
pub(super) fn is_complete(
    command: &[OsString],
    ended: Option<&CommandEnd>,
) -> anyhow::Result<bool> {
    let Some(ended) = ended else {
        let error = anyhow::anyhow!(
            "the load did not begin, so nothing was learned about this kernel; why is in the log above"
        );
        return Err(Failure::new(exit::SOFTWARE, error).into());
    };
    let out_of_time = |status: ExitStatus| status.code() == Some(exit::TEMPFAIL.into());
    match ended.status {
        status if status.success() => Ok(true),
        status if out_of_time(status) => Ok(false),
        status => {
            let command: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
            let error = anyhow::anyhow!(
                "the load failed, so nothing was learned about this kernel: `{}` ended with {status}: {}",
                command.join(" "),
                match ended.stderr.trim() {
                    "" => "it printed no error",
                    stderr => stderr,
                }
            );
            Err(Failure::new(exit::SOFTWARE, error).into())
        }
    }
}

/// How many wait(2) statuses get a line of their own.
const LINES: usize = 8;

/// What the load did, a line for each of the most frequent wait(2) statuses.
fn summary(tally: &LoadTally, took: Duration) -> String {
    let mut out = format!(
        "{} in {:.1} s, {}\n",
        count_of(tally.rounds(), "round"),
        took.as_secs_f64(),
        count_of(tally.fork_failures, "failed fork")
    );
    let mut statuses: Vec<(u32, u64)> = tally.statuses.iter().map(|(s, n)| (*s, *n)).collect();
    statuses.sort_by_key(|(status, n)| (Reverse(*n), *status));
    let (first, others) = statuses.split_at(statuses.len().min(LINES));
    for (status, n) in first {
        out += &format!("{:>10}  {}\n", n, WaitStatus(*status));
    }
    if !others.is_empty() {
        let n: u64 = others.iter().map(|(_, n)| n).sum();
        out += &format!("{n:>10}  {} other statuses\n", others.len());
    }
    if tally.timed_out {
        out += "Time was up before all was done: allow more with --max-seconds.\n";
    }
    if tally.cut_short() > 0 {
        out += &format!(
            "In {} a child could not fork: the process table is full.\n",
            count_of(tally.cut_short(), "round")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::process::ExitStatusExt;

    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn the_command_line_of_a_plan_means_that_plan() {
        let size = Size { count: 7, rate: 3, depth: 2, threads: 5, max_seconds: 9 };
        for shape in Shape::ALL {
            let plan = size.plan(*shape);
            let line = command_line("kqproc_exporter".into(), &plan);
            let Command::Load(args) = Cli::parse_from(line).command else { panic!("load") };
            assert!(args.quiet);
            assert_eq!(args.size.plan(args.shape), plan);
        }
    }

    #[test]
    fn a_load_that_failed_is_an_error_with_its_command_line_status_and_last_words() {
        let command = ["kqproc_exporter", "load", "exit"].map(OsString::from);
        let ended = |status, stderr: &str| CommandEnd {
            status: ExitStatus::from_raw(status),
            stderr: stderr.to_owned(),
        };
        assert!(is_complete(&command, Some(&ended(0, ""))).expect("it succeeded"));
        assert!(!is_complete(&command, Some(&ended(75 << 8, ""))).expect("it ran out of time"));
        let error = is_complete(&command, Some(&ended(64 << 8, "error: no such shape\n")));
        let error = error.expect_err("it failed");
        assert_eq!(exit::status_of(&error), exit::SOFTWARE);
        assert_eq!(
            error.to_string(),
            "the load failed, so nothing was learned about this kernel: `kqproc_exporter load exit` ended with \
             exit status: 64: error: no such shape"
        );
        let none = is_complete(&command, None).expect_err("it did not begin");
        assert_eq!(exit::status_of(&none), exit::SOFTWARE);
        let killed = is_complete(&command, Some(&ended(9, ""))).expect_err("it was killed");
        assert!(
            killed.to_string().ends_with("signal: 9 (SIGKILL): it printed no error"),
            "{killed}"
        );
    }

    #[test]
    fn what_it_did_is_printed() {
        let tally = LoadTally {
            statuses: BTreeMap::from([(0, 4), (9, 1), (75 << 8, 2), (127 << 8, 3)]),
            fork_failures: 1,
            timed_out: true,
        };
        assert_eq!(
            summary(&tally, Duration::from_millis(1500)),
            "\
10 rounds in 1.5 s, 1 failed fork
         4  exit 0
         3  exit 127
         2  exit 75
         1  signal 9
Time was up before all was done: allow more with --max-seconds.
In 2 rounds a child could not fork: the process table is full.
"
        );
    }

    #[test]
    fn rare_statuses_share_a_line() {
        let tally =
            LoadTally { statuses: (0..20).map(|n| (n << 8, 2)).collect(), ..LoadTally::default() };
        let summary = summary(&tally, Duration::ZERO);
        assert_eq!(summary.lines().count(), 1 + LINES + 1);
        assert!(summary.ends_with("        24  12 other statuses\n"), "{summary}");
    }
}
