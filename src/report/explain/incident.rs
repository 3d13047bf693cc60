//! An incident of a running exporter, as its `/incidents/ID` tells it.

use std::fmt::Write as _;

use super::text::because;
use super::{Life, Line, Voice};
use crate::model::{KernelTime, Verdict};
use crate::report::evidence::dto::{IncidentDto, PathDto, TimelineRow};
use crate::report::format::{Hue, Paint, printable};
use crate::report::summary::row_hue;

impl IncidentDto {
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
    pub(super) fn since(&self) -> Option<KernelTime> {
        self.timeline.first().map(|moment| moment.at)
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        self.timeline.iter().map(line)
    }

    /// Whether the other fact has the same verdict for the same reason.
    pub(super) fn is_like(&self, other: &IncidentDto) -> bool {
        self.verdict == other.verdict && self.kernel_path == other.kernel_path
    }

    /// Why `what`, such as "the birth is", has its verdict.
    pub(super) fn why(&self, out: &mut String, paint: Paint, what: &str) {
        let verdict = Verdict::from_word(&self.verdict);
        let hue = verdict.map_or(Hue::Doubt, |verdict| row_hue(verdict, 1));
        let why = printable(&format!("why {what} {}", self.verdict));
        let PathDto { sentence, function, condition, releases, sure } = &self.kernel_path;
        let words = [sentence, function, condition, releases, sure].map(|word| printable(word));
        because(out, &paint.dye(hue, &why), words.each_ref().map(String::as_str));
    }
}

fn line(moment: &TimelineRow) -> Line {
    let voice = match moment.witness.as_deref() {
        Some("dtrace") => Voice::Dtrace,
        Some("kqueue") => Voice::Kqueue,
        _ => Voice::Check,
    };
    Line {
        at: Some(moment.at),
        voice,
        text: moment.said.clone(),
        times: 1,
        verdict: moment.verdict.as_deref().and_then(Verdict::from_word),
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
                { "at": 1_000_000, "witness": "dtrace", "said": "create, forked by 41" },
                { "at": 3_500_000, "witness": "kqueue", "said": "call 7" },
                { "at": 4_000_000, "witness": null, "said": "birth overwritten", "verdict": "overwritten" }
            ],
            "of_another_release": 1
        });
        let incident: IncidentDto = serde_json::from_value(json).expect("an incident");
        assert_eq!(
            incident.text(Paint::Plain),
            "\
incident 3, pid 42, tree a\\u{1b}[2J
time of day unknown

      +0.000 ms  dtrace  create, forked by 41
      +2.500 ms  kqueue  call 7
      +3.000 ms  verdict birth overwritten

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
