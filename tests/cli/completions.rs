//! `completions`: every shell gets every command, and bash completes with its script.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use kqproc_exporter::cli::Cli;

use crate::{program, run};

fn completions(shell: &str) -> String {
    let (status, text, error) = run(&mut program(&["completions", shell]));
    assert_eq!((status, error.as_str()), (Some(0), ""), "{shell}");
    text
}

#[test]
fn every_shell_completes_every_command_and_nothing_hidden() {
    let cli = Cli::command();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = completions(shell);
        for command in cli.get_subcommands().filter(|c| !c.is_hide_set()) {
            assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
        assert!(text.contains("rotate.keep"), "{shell}: no flags");
        assert!(!text.contains("run-behind-barrier"), "{shell} offers what is not for people");
    }
}

#[test]
fn bash_accepts_its_completions_and_completes_with_them() {
    let script = completions("bash")
        + r#"
COMP_WORDS=(kqproc_exporter st) COMP_CWORD=1
_kqproc_exporter kqproc_exporter st kqproc_exporter
echo "${COMPREPLY[@]}"
"#;
    let mut bash = Command::new("bash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash");
    bash.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("written");
    let output = bash.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "stress\n");
}
