//! `check`: says whether `serve` would work here, and what to do if not.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::config::Settings;
use super::cost;
use super::exit::{CONFIG, OrExit};
use super::live_args::{CommandWords, command_words};
use super::output::{self, Format};
use super::preflight::facts::{PlannedService, PreflightFacts};
use super::preflight::judge::judge;
use super::preflight::{CheckStatus, Prerequisite, exit_status};
use super::progress::ProgressLine;
use super::terminal::paint_for_stdout;
use super::user::UserArgs;
use crate::http::web_args::WebArgs;
use crate::model::Pid;
use crate::report::format::{Hue, Paint, count_of, printable};
use crate::source::dtrace::DtraceOptions;
use crate::source::live::RemoteConfig;
use crate::source::target::{Root, Target};

/// What serve would be given.
#[derive(clap::Args, Debug)]
pub(super) struct CheckArgs {
    /// The TOML file that serve would be given
    #[arg(id = "config.file", long = "config.file", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where dtrace(1) is; without it, where the TOML file says, or /usr/sbin/dtrace
    #[arg(long = "dtrace.path", value_name = "FILE", conflicts_with = "command")]
    dtrace: Option<PathBuf>,
    /// Measure instead what watching costs others: how often a busy process can fork and call kevent(2) in a second of
    /// its processor time, without and with dtrace(1) in turn
    #[arg(long, conflicts_with = "command")]
    cost: bool,
    /// How long to measure; dtrace(1) takes its time to begin and to end besides, three times
    #[arg(long, value_name = "N", default_value_t = 12, requires = "cost", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How to print what was measured
    #[arg(long, value_enum, default_value_t = Format::Text, requires = "cost")]
    format: Format,
    /// A command that runs dtrace(1) on another host; this one is not looked at then
    #[arg(long = "dtrace.command", value_name = "COMMAND", value_parser = command_words)]
    command: Option<CommandWords>,
    #[command(flatten)]
    user: UserArgs,
    #[command(flatten)]
    web: WebArgs,
}

/// Prints a line for each prerequisite, or what watching costs. Exit status 0 when serve would work; otherwise what the first
/// failing line says: 69 (something is missing), 77 (a permission is) or 78 (the configuration is wrong).
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let settings = args.config.as_deref().map(Settings::read).transpose();
    if args.cost {
        return measure_cost(args, &settings.or_exit(CONFIG)?.unwrap_or_default());
    }
    // A configuration file that cannot be used has a line of its own.
    let settings = settings.ok().flatten().unwrap_or_default();
    let planned = PlannedService {
        user: &args.user,
        config: args.config.as_deref(),
        this_host: args.command.is_none() && settings.watches_this_host(),
        dtrace: args.dtrace_of(&settings),
        remotes: args.command.iter().map(remote).chain(settings.remotes()).collect(),
        web: &args.web,
    };
    let progress = ProgressLine::new("looking", None);
    let lines = judge(&PreflightFacts::gather(&planned));
    drop(progress);
    output::print(&text(&lines, paint_for_stdout()))?;
    Ok(ExitCode::from(exit_status(&lines)))
}

impl CheckArgs {
    /// How dtrace(1) would be run with these settings.
    fn dtrace_of(&self, settings: &Settings) -> DtraceOptions {
        let mut dtrace = settings.live.dtrace.clone();
        dtrace.path = self.dtrace.clone().or(dtrace.path);
        dtrace
    }
}

fn measure_cost(args: &CheckArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let cost = cost::measure(&args.dtrace_of(settings), Duration::from_secs(args.seconds))?;
    output::print(&match args.format {
        Format::Text => cost.text(paint_for_stdout()),
        Format::Json => output::json(&cost)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The host behind a command, with init(8) in the place of its consumers.
fn remote(command: &CommandWords) -> RemoteConfig {
    let init = Pid::new(1).map(|pid| Target { name: "init".to_owned(), root: Root::Pid(pid) });
    RemoteConfig {
        host: String::new(),
        command: command.0.clone(),
        dtrace: DtraceOptions::default(),
        consumers: init.into_iter().collect(),
    }
}

/// The lines, and whether serve would work.
fn text(lines: &[Prerequisite], paint: Paint) -> String {
    let mut out = String::new();
    for Prerequisite { what, status, found, remedy, .. } in lines {
        let hue = match status {
            CheckStatus::Ok => Hue::Good,
            CheckStatus::Warn => Hue::Doubt,
            CheckStatus::Fail => Hue::Bad,
            CheckStatus::Skip => Hue::Dim,
        };
        let status = paint.dye(hue, &format!("{status:<5}"));
        out += &format!("{status} {what:<12} {}", printable(found));
        if !remedy.is_empty() {
            out += &format!(" -> {remedy}");
        }
        out.push('\n');
    }
    let failed = lines.iter().filter(|line| line.status == CheckStatus::Fail).count() as u64;
    out += &match failed {
        0 => "serve --source live works here.\n".to_owned(),
        n => format!("serve --source live does not work here: {}.\n", count_of(n, "failure")),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(what: &'static str, status: CheckStatus, remedy: &str, exit: u8) -> Prerequisite {
        Prerequisite { what, status, found: "found".to_owned(), remedy: remedy.to_owned(), exit }
    }

    #[test]
    fn a_line_says_what_was_found_and_what_to_do() {
        let lines = [
            line("kernel", CheckStatus::Ok, "", 69),
            line("root", CheckStatus::Fail, "run as root", 77),
        ];
        assert_eq!(
            text(&lines, Paint::Plain),
            "\
ok    kernel       found
fail  root         found -> run as root
serve --source live does not work here: 1 failure.
"
        );
        assert!(text(&lines[..1], Paint::Plain).ends_with("serve --source live works here.\n"));
    }

    #[test]
    fn the_first_failure_decides_the_exit_status() {
        let fail = |exit| line("x", CheckStatus::Fail, "", exit);
        assert_eq!(exit_status(&[line("x", CheckStatus::Warn, "", 69)]), 0);
        assert_eq!(exit_status(&[line("x", CheckStatus::Skip, "", 69), fail(77), fail(69)]), 77);
        assert_eq!(exit_status(&[fail(69), fail(77)]), 69);
    }
}
