//! The flags of the live source, the same for every command that watches this kernel.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::source::dtrace;
use crate::source::kqueue::Notes;
use crate::source::live::Config;
use crate::source::target::{Root, Target};

/// The tree of a command that was given after `--`.
pub const COMMAND_TREE: &str = "command";

/// What to watch on this kernel, and how.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Live source")]
pub struct LiveArgs {
    /// A process tree to watch: NAME=pid:NUMBER or NAME=pidfile:PATH; may be given several times
    #[arg(long = "kqueue.target", value_name = "TARGET")]
    targets: Vec<Target>,

    /// Notes to ask for beside NOTE_TRACK and NOTE_EXIT; with them the kernel delivers some events out of order
    #[arg(long = "kqueue.notes", value_name = "NOTE", value_enum, value_delimiter = ',')]
    notes: Vec<NoteArg>,

    /// Sleep so long before each kevent(2) call, to be a slow consumer on purpose: 50ms, 2s
    #[arg(long = "kqueue.stall", value_name = "DURATION", value_parser = duration)]
    stall: Option<Duration>,

    #[command(flatten)]
    dtrace: DtraceArgs,

    /// A command to start and watch, as a tree named "command"; it begins once both witnesses watch it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How dtrace(1) is run.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Live source")]
pub struct DtraceArgs {
    /// dtrace(1), where it is not /usr/sbin/dtrace
    #[arg(long = "dtrace.path", value_name = "FILE")]
    dtrace_path: Option<PathBuf>,

    /// dtrace's principal buffer on each CPU; it takes less where memory is short
    #[arg(long = "dtrace.bufsize", value_name = "SIZE", default_value = "8m")]
    bufsize: String,

    /// How often dtrace reads its buffers
    #[arg(long = "dtrace.switchrate", value_name = "RATE", default_value = "10hz")]
    switchrate: String,

    /// Leave out the fbt probes that name the causes of losses
    #[arg(long = "no-dtrace.causes")]
    no_causes: bool,
}

impl DtraceArgs {
    /// The supervisor's options.
    pub fn options(&self) -> dtrace::Options {
        dtrace::Options {
            path: self.dtrace_path.clone(),
            bufsize: self.bufsize.clone(),
            switchrate: self.switchrate.clone(),
            causes: !self.no_causes,
            ..dtrace::Options::default()
        }
    }
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum NoteArg {
    /// NOTE_FORK
    Fork,
    /// NOTE_EXEC
    Exec,
}

impl LiveArgs {
    /// Whether anything was named to be watched.
    pub fn names_a_target(&self) -> bool {
        !self.targets.is_empty() || !self.command.is_empty()
    }

    /// The configuration of the live source. With `linger` it ends so long after the command has ended.
    pub fn config(&self, linger: Option<Duration>) -> Config {
        let mut targets = self.targets.clone();
        if !self.command.is_empty() {
            let root = Root::Command(self.command.clone());
            targets.push(Target { name: COMMAND_TREE.to_owned(), root });
        }
        Config {
            targets,
            notes: Notes {
                fork: self.notes.contains(&NoteArg::Fork),
                exec: self.notes.contains(&NoteArg::Exec),
            },
            stall: self.stall.unwrap_or_default(),
            dtrace: self.dtrace.options(),
            linger,
            barrier: None,
        }
    }
}

/// A duration with its unit: `50ms`, `2s`, `1m`. At most an hour.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "give a number with its unit, such as 50ms, 2s or 1m, up to an hour";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| FORM)?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(FORM.to_owned()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= 3_600_000).ok_or(FORM)?;
    Ok(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        live: LiveArgs,
    }

    fn parse(line: &[&str]) -> Result<Config, clap::Error> {
        let line = ["test"].iter().chain(line);
        Line::try_parse_from(line).map(|line| line.live.config(None))
    }

    #[test]
    fn flags_become_a_configuration() {
        let config = parse(&[
            "--kqueue.target",
            "pg=pid:812",
            "--kqueue.notes=fork,exec",
            "--kqueue.stall=50ms",
            "--no-dtrace.causes",
            "--",
            "make",
            "-j4",
        ])
        .expect("it parses");
        let names: Vec<&str> = config.targets.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["pg", "command"]);
        assert_eq!(config.targets[1].root, Root::Command(vec!["make".into(), "-j4".into()]));
        assert_eq!(config.notes, Notes { fork: true, exec: true });
        assert_eq!(config.stall, Duration::from_millis(50));
        assert!(!config.dtrace.causes);
    }

    #[test]
    fn what_was_not_given_is_the_default() {
        let config = parse(&[]).expect("it parses");
        assert!(config.targets.is_empty());
        assert_eq!(config.dtrace, dtrace::Options::default());
    }

    #[test]
    fn bad_flags_are_refused() {
        for flag in [
            "--kqueue.target=812",
            "--kqueue.notes=track",
            "--kqueue.stall=50",
            "--kqueue.stall=-1s",
            "--kqueue.stall=99999999999999999999s",
            "--kqueue.stall=2h",
            "--kqueue.stall=\u{fc}s",
        ] {
            assert!(parse(&[flag]).is_err(), "{flag}");
        }
    }
}
