//! What a running exporter knows.

use anyhow::anyhow;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Format, ListArgs};
use crate::cli::exit::{NOINPUT, OrExit};
use crate::cli::fetch::Exporter;
use crate::cli::terminal::paint_for_stdout;
use crate::model::Pid;
use crate::report::evidence::told::{List, Told};

/// One incident with its time line.
pub(super) fn incident(exporter: &Exporter, id: u64, format: Format) -> anyhow::Result<String> {
    let answer = exporter.json(&format!("/incidents/{id}?format=json"))?;
    let incident: Told = understood(exporter, &answer)?;
    shown(format, &answer, || incident.text(paint_for_stdout()))
}

/// Both facts of a pid, as far as the witnesses did not agree on them, with their time line.
pub(super) fn lives(exporter: &Exporter, pid: Pid, format: Format) -> anyhow::Result<String> {
    let answer = exporter.json(&format!("/incidents?pid={pid}&timeline=true&format=json"))?;
    let told: List = understood(exporter, &answer)?;
    if told.incidents.is_empty() {
        let skipped = match told.skipped {
            0 => String::new(),
            n => format!(" ({n} of too many at once were not kept)"),
        };
        return Err(anyhow!(
            "the exporter at {exporter} has no incident of pid {pid}{skipped}: both witnesses agree on it, or it is not \
             in a watched tree, or too long ago; a recording tells every life of a pid: explain {pid} --recording FILE"
        ))
        .or_exit(NOINPUT);
    }
    shown(format, &answer, || told.lives(pid, &exporter.to_string(), paint_for_stdout()))
}

/// The latest incidents, a line each.
pub(super) fn list(exporter: &Exporter, list: &ListArgs, format: Format) -> anyhow::Result<String> {
    let mut path = format!("/incidents?format=json&limit={}", list.limit);
    for (name, value) in [("tree", &list.tree), ("verdict", &list.verdict)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", crate::http::encode(value)));
        }
    }
    let answer = exporter.json(&path)?;
    let told: List = understood(exporter, &answer)?;
    shown(format, &answer, || told.list(&exporter.to_string(), paint_for_stdout()))
}

fn understood<T: DeserializeOwned>(exporter: &Exporter, answer: &Value) -> anyhow::Result<T> {
    exporter.understood(T::deserialize(answer))
}

/// The answer itself for a program, and what it says for a person.
fn shown(format: Format, answer: &Value, text: impl FnOnce() -> String) -> anyhow::Result<String> {
    match format {
        Format::Text => Ok(text()),
        Format::Json => Ok(serde_json::to_string_pretty(answer)? + "\n"),
    }
}
