//! `--help` fits a terminal of 80 columns, explains every command and flag, and shows examples that can be parsed.

use clap::{Command, CommandFactory, Parser};
use kqproc_exporter::cli::Cli;

use crate::{program, run};

/// Every command that is not hidden.
fn commands() -> Vec<Command> {
    let cli = Cli::command();
    let all: Vec<Command> = cli.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
    assert!(all.len() >= 10);
    all
}

#[test]
fn no_line_of_any_help_is_wider_than_80_columns() {
    let commands = commands();
    let pages = commands.iter().map(|command| vec![command.get_name()]).chain([vec![]]);
    for page in pages {
        for flag in ["-h", "--help"] {
            for columns in ["80", "200", ""] {
                let mut args = page.clone();
                args.push(flag);
                let (status, text, _) = run(program(&args).env("COLUMNS", columns));
                assert_eq!(status, Some(0), "{args:?}");
                let wide = text.lines().find(|line| line.chars().count() > 80);
                assert_eq!(wide, None, "{args:?} with COLUMNS={columns}");
            }
        }
    }
}

#[test]
fn every_command_and_every_flag_is_explained() {
    for command in commands() {
        let name = command.get_name();
        let about = command.get_about().expect(name).to_string();
        assert!(about.chars().count() <= 65, "{name}: it wraps in the list of commands: {about}");
        assert!(command.get_after_help().is_some(), "{name} shows no example");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{name}: {}", argument.get_id());
        }
    }
}

#[test]
fn a_long_list_of_flags_is_divided() {
    for command in commands() {
        let loose = command.get_arguments().filter(|a| a.get_help_heading().is_none()).count();
        assert!(loose <= 7, "{}: {loose} flags under no heading", command.get_name());
    }
}

#[test]
fn every_example_can_be_parsed() {
    let mut shown = 0;
    for command in commands().iter().chain([&Cli::command()]) {
        let text = command.get_after_help().expect("examples").to_string();
        for line in text.lines().filter_map(|line| line.strip_prefix("  kqproc_exporter ")) {
            // Two blanks begin an explanation, > and | the shell's part.
            let line = line.split("  ").next().unwrap_or_default();
            let args = line.split([' ']).take_while(|arg| !arg.starts_with(['>', '|']));
            let line: Vec<&str> = ["kqproc_exporter"].into_iter().chain(args).collect();
            assert!(Cli::try_parse_from(&line).is_ok(), "{line:?}");
            shown += 1;
        }
    }
    assert!(shown >= 20, "{shown}");
}

#[test]
fn the_version_is_the_release_and_a_commit_where_the_build_knew_it() {
    let (status, text, _) = run(&mut program(&["--version"]));
    assert_eq!(status, Some(0));
    let version = text.strip_prefix("kqproc_exporter ").expect("the name").trim_end();
    match version.strip_prefix(env!("CARGO_PKG_VERSION")).expect("the release") {
        "" => assert_eq!(option_env!("KQPROC_REVISION"), None),
        commit => assert!(commit.starts_with(" (") && commit.ends_with(')'), "{text}"),
    }
}
