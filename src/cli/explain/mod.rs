//! `explain`: what happened to one process, and why; and which processes there are to ask about.

mod recorded;
mod running;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};

use super::fetch::ExporterArgs;
use super::output;
use crate::model::Pid;
use crate::report::escape::is_invisible;
use crate::report::verdict_filter::VerdictFilter;

/// Which process, and who is asked.
#[derive(clap::Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The process, as the running exporter or a recording knows it; without it, the latest incidents are listed
    #[arg(value_parser = StringValueParser::new().try_map(|text| pid(&text)))]
    pid: Option<Pid>,
    /// Instead of a pid: an incident, by its number in the list
    #[arg(
        long,
        value_name = "ID",
        conflicts_with = "pid",
        value_parser = StringValueParser::new().try_map(|text| number(&text, "the number of an incident"))
    )]
    incident: Option<u64>,
    /// Instead of the running exporter: a recording or its parts in their order, or a folder with dtrace.txt
    /// and pid.txt or kevents.jsonl
    #[arg(long, value_name = "PATH", num_args = 1..)]
    recording: Vec<PathBuf>,
    /// Instead of the running exporter: the recording that is part of the program
    #[arg(long, conflicts_with = "recording")]
    bundled: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ExplainFormat::Text)]
    format: ExplainFormat,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    exporter: ExporterArgs,
}

/// Which incidents are listed.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "List of incidents")]
struct ListArgs {
    /// List the incidents of this tree alone
    #[arg(long, value_name = "NAME", conflicts_with_all = ["pid", "incident"])]
    tree: Option<String>,
    /// List those with this verdict alone; lost is every lost_*
    #[arg(
        long,
        value_name = "VERDICT",
        value_parser = verdicts(),
        conflicts_with_all = ["pid", "incident"]
    )]
    verdict: Option<String>,
    /// List so many at most, the newest
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        value_parser = StringValueParser::new().try_map(|text| number(&text, "how many incidents to list")),
        conflicts_with_all = ["pid", "incident"]
    )]
    limit: u64,
}

impl ListArgs {
    /// Whether not all incidents are asked for.
    fn is_filtered(&self) -> bool {
        self.tree.is_some() || self.verdict.is_some()
    }
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
enum ExplainFormat {
    /// a time line for a person
    Text,
    /// one object for a program
    Json,
}

fn verdicts() -> PossibleValuesParser {
    VerdictFilter::all()
        .map(|wanted| PossibleValue::new(wanted.as_str()))
        .collect::<Vec<_>>()
        .into()
}

fn pid(text: &str) -> Result<Pid, String> {
    let known = text.parse().ok().and_then(Pid::new);
    known.ok_or_else(|| format!("this is no pid: give a number from 0 to {}", Pid::MAX))
}

fn number(text: &str, wanted: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("give {wanted}: 0, 1, 2 ..."))
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    if args.bundled || !args.recording.is_empty() {
        return recorded::explain(args);
    }
    let exporter = args.exporter.exporter()?;
    let text = match (args.incident, args.pid) {
        (Some(id), _) => running::incident(&exporter, id, args.format)?,
        (None, Some(pid)) => running::lives(&exporter, pid, args.format)?,
        (None, None) => running::list(&exporter, &args.list, args.format)?,
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The answer itself for a program, and what it says for a person.
fn shown(
    format: ExplainFormat,
    answer: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<String> {
    match format {
        ExplainFormat::Text => Ok(text()),
        ExplainFormat::Json => Ok(escaped(&output::json(answer)?)),
    }
}

/// JSON whose strings steer no terminal: what can do so, and JSON leaves as it is, is written as `\u` escapes.
fn escaped(json: &str) -> String {
    let steers = |c: char| c != '\n' && is_invisible(c);
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_from_elsewhere_steers_no_terminal() {
        let answer = serde_json::json!({ "tree": "a\u{9b}2J\u{202e}\u{7f}\u{1b}[2J\n" });
        let found = shown(ExplainFormat::Json, &answer, String::new).unwrap();
        assert!(found.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()), "{found}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&found).unwrap(), answer);
    }
}
