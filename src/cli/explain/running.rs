//! `explain` of a running exporter, which is asked for its incidents over HTTP.

use std::fmt::Write;

use anyhow::anyhow;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ExplainFormat, ListArgs};
use crate::cli::exit::{NOINPUT, OrExit};
use crate::cli::fetch::Exporter;
use crate::cli::terminal::paint_for_stdout;
use crate::model::Pid;
use crate::report::escape::is_directional;
use crate::report::evidence::dto::{IncidentDto, IncidentList};

/// One incident with its time line.
pub(super) fn incident(
    exporter: &Exporter,
    id: u64,
    format: ExplainFormat,
) -> anyhow::Result<String> {
    let answer = exporter.json(&format!("/incidents/{id}?format=json"))?;
    let incident: IncidentDto = understood(exporter, &answer)?;
    shown(format, &answer, || incident.text(paint_for_stdout()))
}

/// Both facts of a pid, as far as the witnesses did not agree on them, with their time line.
pub(super) fn lives(
    exporter: &Exporter,
    pid: Pid,
    format: ExplainFormat,
) -> anyhow::Result<String> {
    let answer = exporter.json(&format!("/incidents?pid={pid}&timeline=true&format=json"))?;
    let found: IncidentList = understood(exporter, &answer)?;
    if found.incidents.is_empty() {
        let skipped = match found.skipped {
            0 => String::new(),
            n => format!(" ({n} of too many at once were not kept)"),
        };
        return Err(anyhow!(
            "the exporter at {exporter} has no incident of pid {pid}{skipped}: both witnesses agree on it, or it is not \
             in a watched tree, or too long ago; a recording tells every life of a pid: explain {pid} --recording FILE"
        ))
        .or_exit(NOINPUT);
    }
    shown(format, &answer, || found.lives(pid, &exporter.to_string(), paint_for_stdout()))
}

/// The latest incidents, a line each.
pub(super) fn list(
    exporter: &Exporter,
    list: &ListArgs,
    format: ExplainFormat,
) -> anyhow::Result<String> {
    let mut path = format!("/incidents?format=json&limit={}", list.limit);
    for (name, value) in [("tree", &list.tree), ("verdict", &list.verdict)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", crate::http::encode(value)));
        }
    }
    let answer = exporter.json(&path)?;
    let found: IncidentList = understood(exporter, &answer)?;
    shown(format, &answer, || {
        found.of_exporter(&exporter.to_string(), list.is_filtered(), paint_for_stdout())
    })
}

fn understood<T: DeserializeOwned>(exporter: &Exporter, answer: &Value) -> anyhow::Result<T> {
    exporter.understood(T::deserialize(answer))
}

/// The answer itself for a program, and what it says for a person.
fn shown(
    format: ExplainFormat,
    answer: &Value,
    text: impl FnOnce() -> String,
) -> anyhow::Result<String> {
    match format {
        ExplainFormat::Text => Ok(text()),
        ExplainFormat::Json => Ok(escaped(&serde_json::to_string_pretty(answer)?) + "\n"),
    }
}

/// JSON whose strings steer no terminal: what can do so, and JSON leaves as it is, is written as `\u` escapes.
fn escaped(json: &str) -> String {
    let steers = |c: char| c != '\n' && (c.is_control() || is_directional(c));
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
        assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), answer);
    }
}
