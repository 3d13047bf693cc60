//! Colours and progress: on a terminal only, and not if NO_COLOR, TERM=dumb or CLICOLOR=0 forbids them.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::common::recording;
use crate::{program, run};

/// The master side of a terminal: what the program has written to it.
struct Screen(File);

impl Screen {
    /// Reads until `text` has come or the terminal is closed; everything that was read.
    fn until(&mut self, text: &str) -> String {
        let (mut shown, mut buffer) = (String::new(), [0; 4096]);
        while !shown.contains(text) {
            // Linux returns EIO once the other side is closed.
            match self.0.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => shown += &String::from_utf8_lossy(&buffer[..n]),
            }
        }
        shown
    }

    fn rest(&mut self) -> String {
        self.until("\0")
    }
}

/// Which streams of a program are on a terminal.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Both,
    Stderr,
}

/// Starts a command on a terminal; its stdout may be a pipe.
fn on_terminal(mut command: Command, on: On) -> (Child, Screen) {
    let terminal = openpty(None, None).expect("a terminal");
    let slave =
        |slave: &std::os::fd::OwnedFd| Stdio::from(slave.try_clone().expect("a descriptor"));
    command.stderr(slave(&terminal.slave)).stdin(Stdio::null());
    command.stdout(if on == On::Both { slave(&terminal.slave) } else { Stdio::piped() });
    let child = command.spawn().expect("it runs");
    (child, Screen(File::from(terminal.master)))
}

/// Runs a command on a terminal; everything that it has written there.
fn shown(mut command: Command) -> String {
    command.env("TERM", "xterm-256color");
    let (mut child, mut screen) = on_terminal(command, On::Both);
    let shown = screen.rest();
    child.wait().expect("it ends");
    shown
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const BOLD: &str = "\x1b[1m";

/// Commands with coloured output, and a part of it.
fn painted() -> Vec<(Vec<String>, String)> {
    let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let bad = recording("merged-orphan").display().to_string();
    let good = recording("split-13.2-chain-stall").display().to_string();
    vec![
        (line(&format!("replay {bad}")), format!("{RED}Unsound")),
        (line(&format!("replay {good}")), format!("{GREEN}Sound")),
        (line("explain 4463 --bundled"), RED.to_owned()),
        (line("simulate --count 20"), format!("{GREEN}Sound")),
        (line("check"), format!("{RED}fail")),
        (line("replay /nowhere.kqr"), format!("{RED}kqproc_exporter:")),
        (line("replay --nothing"), format!("{RED}error:")),
        (line("--help"), format!("{BOLD}Usage:")),
        (line("help serve"), format!("{BOLD}Web:")),
    ]
}

#[test]
fn a_terminal_gets_colours_that_mean_the_same_everywhere() {
    for (args, wanted) in painted() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let shown = shown(program(&args));
        assert!(shown.contains(&wanted), "{args:?} without {wanted:?}: {shown:?}");
    }
}

#[test]
fn a_terminal_that_does_not_want_or_know_colours_gets_none() {
    for (args, _) in painted() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
            let mut command = program(&args);
            command.env("TERM", "xterm-256color").env(variable, value);
            let (mut child, mut screen) = on_terminal(command, On::Both);
            let shown = screen.rest();
            child.wait().expect("it ends");
            assert!(
                !shown.is_empty() && !shown.contains('\x1b'),
                "{variable}, {args:?}: {shown:?}"
            );
        }
    }
}

#[test]
fn a_pipe_gets_plain_text() {
    for (args, _) in painted() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (_, out, error) = run(program(&args).env("TERM", "xterm-256color"));
        assert!(!out.is_empty() || !error.is_empty());
        assert!(!out.contains('\x1b') && !error.contains('\x1b'), "{args:?}: {out}{error}");
    }
}

#[test]
fn what_a_program_reads_is_plain_on_a_terminal_too() {
    let recording = recording("merged-orphan").display().to_string();
    for args in [
        vec!["replay", &recording, "--format", "json"],
        vec!["report", &recording, "--format", "html"],
        vec!["report", &recording, "--format", "markdown"],
        vec!["explain", "4463", "--bundled", "--format", "json"],
        vec!["completions", "bash"],
    ] {
        let shown = shown(program(&args));
        assert!(!shown.is_empty() && !shown.contains('\x1b'), "{args:?}");
    }
}

/// A replay of a named pipe, and a function that fills the pipe.
fn replay_of_a_pipe(folder: &std::path::Path) -> (Command, impl FnOnce() + use<>) {
    let pipe = folder.join("slow.kqr");
    mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
    let mut command = program(&["replay", pipe.to_str().expect("text"), "--format", "json"]);
    command.env("TERM", "xterm-256color");
    let fill = move || {
        let bytes = std::fs::read(recording("merged-orphan")).expect("a recording");
        File::create(pipe).expect("a pipe").write_all(&bytes).expect("it is read");
    };
    (command, fill)
}

#[test]
fn progress_is_shown_on_a_terminal_and_gone_when_it_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let (command, fill) = replay_of_a_pipe(folder.path());
    let (child, mut screen) = on_terminal(command, On::Stderr);
    let before = screen.until("reading slow.kqr");
    assert!(before.contains("reading slow.kqr"), "{before:?}");
    fill();
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("nothing but JSON");
    let after = screen.rest();
    let line = after.rsplit(['\r', '\n']).next().expect("the last line");
    assert_eq!(line.replace("\x1b[2K", ""), "", "left on the terminal: {after:?}");
}

#[test]
fn progress_is_for_terminals() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut command, fill) = replay_of_a_pipe(folder.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    fill();
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}
