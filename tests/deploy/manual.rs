//! The man page: mandoc accepts it, and its lists of verdicts, commands, flags, metrics and exit statuses are those of the code.

use std::process::Command;
use std::{env, fs};

use clap::{Arg, CommandFactory, Parser};
use kqproc_exporter::cli::{Cli, exit};
use kqproc_exporter::metrics::table::{Def, TABLE};
use kqproc_exporter::model::Verdict;
use kqproc_exporter::report::answer::Soundness;

use crate::project::{path, read, run};

const PAGE: &str = "docs/kqproc_exporter.8";

/// Prose as mdoc(7) wants it: a sentence a line, nothing that looks like a request.
fn prose(text: &str) -> String {
    // A flag that the configuration file can stand in for has a default that clap does not know.
    let text = match text.strip_suffix(']').and_then(|text| text.split_once(" [default: ")) {
        Some((text, default)) => format!("{text}. Default: {default}"),
        None => text.to_string(),
    };
    let text = text.replace('\\', "\\e").replace("\n\n", " ").replace('\n', " ");
    let text = text.replace(". ", ".\n").replace("? ", "?\n");
    let end = if text.ends_with(['.', '?']) { "" } else { "." };
    let line = |line: &str| {
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_string() }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n") + end + "\n"
}

/// The arguments of a macro, with those escaped that could be macros themselves.
fn macro_arguments(text: &str) -> String {
    text.split(' ')
        .map(|w| if w.len() <= 3 { format!("\\&{w}") } else { w.to_string() })
        .collect::<Vec<_>>()
        .join(" ")
}

fn argument(arg: &Arg) -> String {
    let value = arg
        .get_value_names()
        .into_iter()
        .flatten()
        .map(|v| v.to_lowercase())
        .collect::<Vec<_>>()
        .join(" ");
    let takes_value = arg.get_action().takes_values();
    let name = match arg.get_long() {
        Some(long) if takes_value => format!(".It Fl -{long} Ar {}", macro_arguments(&value)),
        Some(long) => format!(".It Fl -{long}"),
        None => format!(".It Ar {}", macro_arguments(&value)),
    };
    let mut text = prose(&arg.get_help().expect("every argument is explained").to_string());
    let values = arg.get_possible_values();
    if takes_value && !values.is_empty() && !arg.is_hide_possible_values_set() {
        let names: Vec<_> = values.iter().map(|v| v.get_name()).collect();
        text += &format!("One of: {}.\n", names.join(", "));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if takes_value && !defaults.is_empty() && !arg.is_hide_default_value_set() {
        text += &format!("Default: {}.\n", defaults.join(", "));
    }
    format!("{name}\n{text}")
}

/// A section for each command, made from the definition of the command line.
fn commands() -> String {
    let cli = Cli::command();
    let section = |command: &clap::Command| {
        let about = prose(&command.get_about().expect("every command is explained").to_string());
        let arguments =
            command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str()));
        let list: String = arguments.map(argument).collect();
        format!(
            ".Ss {}\n{about}.Bl -tag -width Ds\n{list}.El\n",
            macro_arguments(command.get_name())
        )
    };
    cli.get_subcommands().filter(|c| !c.is_hide_set()).map(section).collect()
}

/// The list of metrics, made from the table.
fn metrics() -> String {
    let item = |def: &Def| {
        let labels = match def.labels {
            [] => String::new(),
            labels => format!(" Brq {}", labels.join(" , ")),
        };
        format!(".It Li {}{labels} Pq {}\n{}", def.name, def.kind.as_str(), prose(def.help))
    };
    format!(".Bl -tag -width Ds\n{}.El\n", TABLE.iter().map(item).collect::<String>())
}

/// The statuses of sysexits(3) that there are, and the answers of `stress`.
fn exit_statuses() -> String {
    let list = |statuses: Vec<String>| statuses.join(", ");
    let others = exit::ALL.iter().map(|(status, meaning)| format!("{status} {meaning}"));
    let answers = Soundness::ALL.iter().enumerate().map(|(status, a)| format!("{status} {a}"));
    format!(
        "0 on success, otherwise as in\n.Xr sysexits 3 :\n{}.\n.Cm stress\nanswers with {}.\n",
        list(others.collect()),
        list(answers.collect())
    )
}

#[test]
fn the_page_lists_every_command_flag_metric_and_exit_status() {
    let page = read(PAGE);
    let mut made = page.clone();
    let lists =
        [("commands", commands()), ("metrics", metrics()), ("exit statuses", exit_statuses())];
    for (name, list) in lists {
        let begin = format!(".\\\" Begin of {name}: made from the code.\n");
        let end = format!(".\\\" End of {name}.\n");
        let (head, rest) = made.split_once(&begin).expect(&begin);
        let (_, tail) = rest.split_once(&end).expect(&end);
        made = format!("{head}{begin}{list}{end}{tail}");
    }
    if env::var_os("KQPROC_WRITE_DOCS").is_some() {
        fs::write(path(PAGE), made).unwrap();
    } else {
        assert!(page == made, "{PAGE}: run scripts/generate");
    }
}

#[test]
fn the_page_explains_every_verdict() {
    let page = read(PAGE);
    let (_, list) = page.split_once(".Bl -tag -width lost_inherited\n").expect("the list");
    let (list, _) = list.split_once(".El\n").expect("its end");
    let explained = list.lines().filter_map(|line| line.strip_prefix(".It Sy "));
    assert!(explained.eq(Verdict::ALL.iter().map(|verdict| verdict.as_str())), "{list}");
}

#[test]
fn mandoc_accepts_the_page() {
    let complaints =
        run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(path(PAGE)));
    assert_eq!(complaints, Ok(String::new()));
}

#[test]
fn every_flag_in_the_prose_exists() {
    let cli = Cli::command();
    let known = |flag: &str| {
        let has =
            |command: &clap::Command| command.get_arguments().any(|a| a.get_long() == Some(flag));
        ["help", "version"].contains(&flag) || cli.get_subcommands().any(has)
    };
    let page = read(PAGE);
    for flag in page.split("Fl -").skip(1).map(|rest| rest.split([' ', '\n', ',']).next().unwrap())
    {
        assert!(known(flag), "{PAGE}: no command takes --{flag}");
    }
}

/// The commands in a document, `kqproc_exporter COMMAND ...`: the name and the arguments of each.
fn shown_commands(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let after = text.split("kqproc_exporter ").skip(1);
    after.map(|rest| {
        rest.split(['\n', '`', '"', '|', ';']).next().unwrap_or("").split_whitespace().collect()
    })
}

#[test]
fn every_example_of_the_page_can_be_parsed() {
    let page = read(PAGE);
    let (_, examples) = page.split_once(".Sh EXAMPLES\n").expect("examples");
    let lines: Vec<&str> = examples.lines().filter_map(|line| line.strip_prefix(".Dl ")).collect();
    assert!(lines.len() >= 4, "{lines:?}");
    for line in lines {
        let words = shlex::split(line.trim_matches('"')).expect(line);
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{line}: {parsed:?}");
    }
}

#[test]
fn documents_show_commands_with_the_flags_that_they_have() {
    let cli = Cli::command();
    for place in ["README.md", "docs/runbook.md", "deploy/README.md", "docs/recordings.md", PAGE] {
        for shown in shown_commands(&read(place)) {
            let Some(command) = shown.first().and_then(|name| cli.find_subcommand(name)) else {
                continue;
            };
            for flag in shown.iter().filter_map(|arg| arg.strip_prefix("--")) {
                let flag = flag.split('=').next().unwrap();
                let known = command.get_arguments().any(|arg| arg.get_long() == Some(flag));
                assert!(known, "{place}: {} has no --{flag}", command.get_name());
            }
        }
    }
}
