//! What the README shows is what the program prints.

use std::path::Path;
use std::process::Command;

/// The commands that the README shows with their output.
fn shown(text: &str) -> Vec<(&str, &str)> {
    text.split("```\n")
        .filter_map(|block| block.strip_prefix("$ kqproc_exporter ")?.split_once('\n'))
        .collect()
}

#[test]
fn every_shown_command_prints_what_is_shown() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let shown = shown(&text);
    assert!(shown.len() >= 2, "the README shows what the answer looks like");
    for (command, expected) in shown {
        let output = Command::new(env!("CARGO_BIN_EXE_kqproc_exporter"))
            .args(command.split(' '))
            .current_dir(root)
            .output()
            .expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{command}");
    }
}

#[test]
fn every_file_that_is_linked_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("README.md")).expect("the README");
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(root.join(link).exists(), "{link}");
    }
}
