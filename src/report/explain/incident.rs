//! An incident of a running exporter, as its `/incidents/ID` tells it.

use std::fmt::Write as _;

use serde::Deserialize;

use super::text::because;
use super::{Life, Line, Voice};
use crate::model::{KernelTime, Verdict};
use crate::report::paint::{Hue, Paint, printable};
use crate::report::summary::row_hue;

/// One fact that the witnesses did not agree on. Keys that are not shown are ignored.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Incident {
    pub(super) id: u64,
    pub(super) time: Option<String>,
    pub(super) tree: String,
    pub(super) pid: u32,
    pub(super) fact: String,
    pub(super) verdict: String,
    kernel_path: Path,
    // The list has it only where that was asked for.
    #[serde(default)]
    timeline: Vec<Moment>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Path {
    sentence: String,
    function: String,
    condition: String,
    releases: String,
    sure: String,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Moment {
    at: u64,
    witness: Option<String>,
    said: String,
}

impl Incident {
    /// The time line, and under it why it went as it did.
    pub fn text(&self, paint: Paint) -> String {
        let title = format!("incident {}, pid {}, tree {}", self.id, self.pid, self.tree);
        let mut out = paint.dye(Hue::Title, &printable(&title));
        let time = self.time.as_deref().unwrap_or("time of day unknown");
        let _ = writeln!(out, "\n{}\n", printable(time));
        let life = Life {
            tree: None,
            since: None,
            lines: self.lines().collect(),
            judged: vec![],
            duplicates: None,
        };
        life.time_line(&mut out, paint);
        self.why(&mut out, paint, &format!("the {} is", self.fact));
        out
    }

    /// When its process is first spoken of, on DTrace's clock.
    pub(super) fn since(&self) -> Option<u64> {
        self.timeline.first().map(|moment| moment.at)
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        self.timeline.iter().map(Moment::line)
    }

    /// Whether the other fact has the same verdict for the same reason.
    pub(super) fn is_like(&self, other: &Incident) -> bool {
        self.verdict == other.verdict && self.kernel_path == other.kernel_path
    }

    /// Why `what`, such as "the birth is", has its verdict.
    pub(super) fn why(&self, out: &mut String, paint: Paint, what: &str) {
        let verdict = Verdict::from_word(&self.verdict);
        let hue = verdict.map_or(Hue::Doubt, |verdict| row_hue(verdict, 1));
        let why = printable(&format!("why {what} {}", self.verdict));
        let Path { sentence, function, condition, releases, sure } = &self.kernel_path;
        let words = [sentence, function, condition, releases, sure].map(|word| printable(word));
        because(out, &paint.dye(hue, &why), words.each_ref().map(String::as_str));
    }
}

impl Moment {
    fn line(&self) -> Line {
        let voice = match self.witness.as_deref() {
            Some("dtrace") => Voice::Dtrace,
            Some("kqueue") => Voice::Kqueue,
            _ => Voice::Check,
        };
        let verdict = self.said.rsplit_once(": ").and_then(|(_, word)| Verdict::from_word(word));
        Line {
            at: Some(KernelTime(self.at)),
            voice,
            text: self.said.clone(),
            times: 1,
            verdict: verdict.filter(|_| voice == Voice::Check),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_reads_like_a_life_and_steers_no_terminal() {
        let json = serde_json::json!({
            "id": 3, "time": null, "tree": "a\u{1b}[2J", "pid": 42, "fact": "birth", "verdict": "overwritten",
            "kernel_path": {
                "sentence": "It was overwritten.", "function": "filt_proc", "condition": "", "releases": "7.0 to 10.3",
                "sure": "certain\u{7}"
            },
            "timeline": [
                { "at": 1_000_000, "witness": "dtrace", "said": "proc:::create, forked by 41" },
                { "at": 3_500_000, "witness": "kqueue", "said": "call 7" },
                { "at": 4_000_000, "witness": null, "said": "verdict on the birth: overwritten" }
            ],
            "runbook": "/runbook"
        });
        let incident: Incident = serde_json::from_value(json).expect("an incident");
        assert_eq!(
            incident.text(Paint::Plain),
            "\
incident 3, pid 42, tree a\\u{1b}[2J
time of day unknown

      +0.000 ms  dtrace  proc:::create, forked by 41
      +2.500 ms  kqueue  call 7
      +3.000 ms  verdict verdict on the birth: overwritten

  why the birth is overwritten
    what      It was overwritten.
    where     filt_proc
    releases  7.0 to 10.3
    sure      certain\\u{7}
"
        );
        assert!(incident.text(Paint::Ansi).contains("\x1b[31mverdict"));
    }
}
