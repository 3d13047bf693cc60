//! `consumers`: lists the processes of a host that use EVFILT_PROC, with the flag to watch each of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::exit::{OrExit, UNAVAILABLE};
use super::live_args::{CommandWords, command_words};
use super::log_args::LogArgs;
use super::output::{self, Format};
use super::terminal::paint_for_stdout;
use crate::model::note;
use crate::report::format::{Hue, Paint};
use crate::report::table::Table;
use crate::source::dtrace::DtraceOptions;
use crate::source::dtrace::survey::{Survey, User, survey};

/// How long to look, and how to answer.
#[derive(clap::Args, Debug)]
pub(super) struct ConsumersArgs {
    /// How long to look
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Where dtrace(1) is [default: /usr/sbin/dtrace]
    #[arg(long = "dtrace.path", value_name = "FILE", conflicts_with = "command")]
    dtrace: Option<PathBuf>,
    /// A command that runs dtrace(1) on another host, which is looked at: 'ssh -T root@HOST dtrace'
    #[arg(long = "dtrace.command", value_name = "COMMAND", value_parser = command_words)]
    command: Option<CommandWords>,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn run(args: &ConsumersArgs) -> anyhow::Result<ExitCode> {
    args.log.init();
    let program =
        std::env::current_exe().context("cannot find this program").or_exit(UNAVAILABLE)?;
    let command = args.command.clone().map(|words| words.0);
    let options = DtraceOptions { path: args.dtrace.clone(), command, ..DtraceOptions::default() };
    let duration = Duration::from_secs(args.seconds);
    let survey = survey(&program, &options, duration).or_exit(UNAVAILABLE)?;
    output::print(&match args.format {
        Format::Text => text(&survey, paint_for_stdout()),
        Format::Json => output::json(&json(&survey))?,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn text(survey: &Survey, paint: Paint) -> String {
    let seconds = survey.seconds;
    if survey.users.is_empty() {
        return format!(
            "In {seconds:.0} s no process registered EVFILT_PROC or got an event of it. One that had registered before and\n\
             got no event is not seen: look for longer with --seconds.\n"
        );
    }
    let mut table =
        Table::new(&["process", "#pid", "notes", "#registrations", "#events/s", "to watch it"]);
    for user in &survey.users {
        let notes = match user.notes {
            0 => "registered before".to_owned(),
            notes => note::names(notes),
        };
        let rate = format!("{:.1}", rate(user, survey));
        let (pid, registrations) = (user.pid.to_string(), user.registrations.to_string());
        table.row(
            Hue::Plain,
            [user.name.clone(), pid, notes, registrations, rate, flag(user, survey)],
        );
    }
    table.text(paint)
}

fn json(survey: &Survey) -> serde_json::Value {
    let user = |user: &User| {
        json!({
            "process": user.name,
            "pid": user.pid,
            "notes": (user.notes != 0).then(|| note::names(user.notes)),
            "registrations": user.registrations,
            "events": user.events,
            "events_per_second": rate(user, survey),
            "flag": flag(user, survey),
        })
    };
    let consumers: Vec<_> = survey.users.iter().map(user).collect();
    json!({ "seconds": survey.seconds, "consumers": consumers })
}

/// Events a second.
fn rate(user: &User, survey: &Survey) -> f64 {
    user.events as f64 / survey.seconds.max(f64::MIN_POSITIVE)
}

/// The flag of `serve` and `record`. No shell takes the name for something else, and no other process of the survey has it.
fn flag(user: &User, survey: &Survey) -> String {
    let (name, pid) = (tree_name(user), user.pid);
    let is_shared = survey.users.iter().any(|other| other.pid != pid && tree_name(other) == name);
    match is_shared {
        true => format!("--consumer={name}-{pid}=pid:{pid}"),
        false => format!("--consumer={name}=pid:{pid}"),
    }
}

fn tree_name(user: &User) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    user.name.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_two_processes_of_one_name_can_be_given_together() {
        let user = |name: &str, pid| User { name: name.to_owned(), pid, ..User::default() };
        let users = vec![user("my sv", 7), user("my_sv", 812), user("init", 1)];
        let survey = Survey { seconds: 1.0, users };
        let flags: Vec<String> = survey.users.iter().map(|user| flag(user, &survey)).collect();
        let expected =
            ["--consumer=my_sv-7=pid:7", "--consumer=my_sv-812=pid:812", "--consumer=init=pid:1"];
        assert_eq!(flags, expected);
    }
}
