//! The project's files, and how tests run the tools that check them.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Deserialize;

pub(crate) use crate::common::{path, read};

/// Runs a command; its stdout, or stdout and stderr if it fails.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|e| format!("{command:?}: {e} (scripts/test installs what is needed)"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stdout) + &text(&output.stderr)),
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
