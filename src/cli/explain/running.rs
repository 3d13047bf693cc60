//! `explain` of a running exporter, which is asked for its incidents over HTTP.

use anyhow::anyhow;

use super::{ExplainFormat, ListArgs, shown};
use crate::cli::exit::{NOINPUT, OrExit};
use crate::cli::fetch::Exporter;
use crate::cli::terminal::paint_for_stdout;
use crate::model::Pid;
use crate::report::evidence::dto::{IncidentDto, IncidentList};

/// One incident with its time line.
pub(super) fn incident(
    exporter: &Exporter,
    id: u64,
    format: ExplainFormat,
) -> anyhow::Result<String> {
    let path = format!("/incidents/{id}?format=json");
    let (incident, answer) = exporter.ask::<IncidentDto>(&path)?;
    shown(format, &answer, || incident.text(paint_for_stdout()))
}

/// Both facts of a pid, as far as the witnesses did not agree on them, with their time line.
pub(super) fn lives(
    exporter: &Exporter,
    pid: Pid,
    format: ExplainFormat,
) -> anyhow::Result<String> {
    let path = format!("/incidents?pid={pid}&timeline=true&format=json");
    let (found, answer) = exporter.ask::<IncidentList>(&path)?;
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
    let (found, answer) = exporter.ask::<IncidentList>(&path)?;
    shown(format, &answer, || {
        found.of_exporter(&exporter.to_string(), list.is_filtered(), paint_for_stdout())
    })
}
