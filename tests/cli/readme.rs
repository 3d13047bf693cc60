//! The commands that README.md and CONTRIBUTING.md show: each is run, or, if it needs another system, an hour or the network,
//! checked against the names in it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use crate::common::exporter::{Exporter, PROGRAM, serve};
use crate::common::{path, read};
use clap::CommandFactory;
use kqproc_exporter::cli::Cli;

/// The parts of a text between fences, and those outside of them.
fn split(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for (i, part) in text.split("```").enumerate() {
        if i % 2 == 1 { inside.push(part) } else { outside.push(part) }
    }
    (inside, outside)
}

/// The commands of a text: the lines between fences, without comments, and the code spans that begin like a command.
fn commands(text: &str) -> Vec<String> {
    let (blocks, prose) = split(text);
    let mut found = Vec::new();
    for block in blocks {
        let (language, lines) = block.split_once('\n').expect("a line after the fence");
        assert_eq!(language, "", "commands have no language");
        match lines.strip_prefix("$ ") {
            Some(shown) => found.extend(shown.lines().take(1).map(str::to_owned)),
            None => found.extend(lines.lines().map(|l| l.split(" #").next().unwrap().to_owned())),
        }
    }
    let programs = ["kqproc_exporter ", "cargo ", "source ", "scripts/", "dashboards/", ".ci/"];
    for span in prose.iter().flat_map(|part| part.split('`').skip(1).step_by(2)) {
        if programs.iter().any(|program| span.starts_with(program)) {
            found.push(span.replace('\n', " "));
        }
    }
    found.iter().map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect()
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).current_dir(path("")).output().expect("it runs")
}

fn succeeds(command: &str, output: &Output) {
    assert!(output.status.success(), "{command}: {output:?}");
}

/// Checks a command line of the exporter: runs it if it ends by itself and needs no FreeBSD, parses it otherwise.
fn check_ours(command: &str, args: &[&str]) {
    let cli = Cli::command();
    match args {
        ["help", "COMMAND"] => {
            for each in cli.get_subcommands() {
                succeeds(command, &run(&["help", each.get_name()]));
            }
        }
        ["help" | "replay" | "completions", ..] => succeeds(command, &run(args)),
        // Live: only root of a FreeBSD host can run it.
        ["serve", flags @ ..]
            if flags.contains(&"--")
                || ["--kqueue.", "--consumer"].iter().any(|f| command.contains(f)) =>
        {
            let line = ["kqproc_exporter"].iter().chain(args);
            let parsed = cli.try_get_matches_from(line);
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
        }
        ["serve", flags @ ..] => {
            // On FreeBSD it would watch that kernel instead of a recording.
            let anywhere = cfg!(target_os = "freebsd").then_some("--source=replay");
            let exporter = Exporter::start(serve(flags.iter().copied().chain(anywhere)));
            assert_eq!(exporter.get("/-/healthy").status, 200, "{command}");
            assert!(exporter.stop().success(), "{command}");
        }
        [name] => assert!(cli.find_subcommand(name).is_some(), "{command}: no such command"),
        _ => {
            let parsed = cli.try_get_matches_from(["kqproc_exporter"].iter().chain(args));
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
        }
    }
}

fn check_cargo(command: &str, args: &[&str]) {
    match args {
        ["run", rest @ ..] => {
            let end = rest.iter().position(|arg| *arg == "--").expect("our flags come after --");
            let known = ["--release", "-r", "-q", "-qr"];
            assert!(rest[..end].iter().all(|flag| known.contains(flag)), "{command}");
            check_ours(command, &rest[end + 1..]);
        }
        ["install", "--locked", "--path", "."] => assert!(path("Cargo.toml").exists()),
        ["test", "--test", feature, "WORD"] => {
            assert!(path("tests").join(feature).join("main.rs").exists(), "{command}");
        }
        _ => panic!("{command}: this test does not know the command"),
    }
}

/// Checks a script: it exists, is executable, and has the flags that it is given.
fn check_script(command: &str, script: &str, flags: &[&str]) {
    let mode = fs::metadata(path(script)).expect(command).permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{command}: it is not executable");
    let text = read(script);
    assert!(flags.iter().all(|flag| text.contains(flag)), "{command}: an unknown flag");
}

/// Runs a line of bash with the exporter in its PATH.
fn check_bash(command: &str) {
    let program: PathBuf = Path::new(PROGRAM).parent().expect("a folder").into();
    let dirs = env::var_os("PATH").unwrap_or_default();
    let dirs = [program].into_iter().chain(env::split_paths(&dirs));
    let output = Command::new("bash")
        .args(["-ec", &format!("{command}\ncomplete -p kqproc_exporter")])
        .env("PATH", env::join_paths(dirs).expect("a path"))
        .output();
    succeeds(command, &output.expect("bash"));
}

#[test]
fn every_command_works() {
    let mut checked = BTreeSet::new();
    for command in ["README.md", "CONTRIBUTING.md"].iter().flat_map(|name| commands(&read(name))) {
        let parts: Vec<&str> = command.split_whitespace().collect();
        match parts[..] {
            ["kqproc_exporter", ref args @ ..] => check_ours(&command, args),
            ["cargo", ref args @ ..] => check_cargo(&command, args),
            ["source", ..] => check_bash(&command),
            ["make", "-C", folder, target] => {
                let makefile = read(&format!("{folder}/Makefile"));
                assert!(makefile.contains(&format!("\n{target}:")), "{command}: no such target");
            }
            [script, ref flags @ ..] => check_script(&command, script, flags),
            [] => {}
        }
        checked.insert(command);
    }
    for known in
        ["cargo run --release -- serve", "scripts/test", ".ci/run", "scripts/release --verify"]
    {
        assert!(checked.contains(known), "{known} was not found among {checked:?}");
    }
}

#[test]
fn every_shown_command_prints_what_is_shown() {
    let text = read("README.md");
    let (blocks, _) = split(&text);
    let shown: Vec<_> = blocks
        .iter()
        .filter_map(|b| b.strip_prefix("\n$ cargo run -qr -- ")?.split_once('\n'))
        .collect();
    assert!(shown.len() >= 2, "the README shows what the answer looks like");
    for (command, expected) in shown {
        let output = run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{command}");
    }
}

#[test]
fn the_table_of_commands_has_them_all() {
    let text = read("README.md");
    let (_, table) = text.split_once("| command | what it does |").expect("the table");
    let rows = table.split("\n\n").next().unwrap().lines().filter_map(|row| row.split('|').nth(1));
    let named: BTreeSet<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let cli = Cli::command();
    let all = cli.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name);
    assert_eq!(named, all.collect());
}

#[test]
fn every_file_that_is_linked_exists() {
    let text = read("README.md");
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(path(link).exists(), "{link}");
    }
}
