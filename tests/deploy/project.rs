//! The project's files, and the tools that they are held against.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// A path below the project's root.
pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The text of a file of the project.
pub(crate) fn read(relative: &str) -> String {
    let path = path(relative);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs a command; its output, or what it complained about.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|e| format!("{command:?}: {e} (scripts/test installs what is needed)"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(said(&output.stdout) + &said(&output.stderr)),
    }
}

/// A file of Prometheus rules.
#[derive(Deserialize)]
pub(crate) struct RuleFile {
    pub(crate) groups: Vec<Group>,
}

#[derive(Deserialize)]
pub(crate) struct Group {
    pub(crate) rules: Vec<Rule>,
}

/// An alert or a recording rule.
#[derive(Deserialize)]
pub(crate) struct Rule {
    pub(crate) alert: Option<String>,
    pub(crate) record: Option<String>,
    pub(crate) expr: String,
    #[serde(rename = "for")]
    pub(crate) hold: Option<String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The rules of a file below deploy/prometheus.
pub(crate) fn rules(file: &str) -> Vec<Rule> {
    let text = read(&format!("deploy/prometheus/{file}"));
    let file: RuleFile = serde_saphyr::from_str(&text).expect(file);
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The anchors that a renderer of Markdown makes of a document's headings.
pub(crate) fn headings(markdown: &str) -> Vec<String> {
    let heading =
        |line: &str| line.strip_prefix('#').map(|l| l.trim_start_matches('#').trim().to_string());
    let slug = |title: String| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    markdown.lines().filter_map(heading).map(slug).collect()
}
