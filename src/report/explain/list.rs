//! Incidents as text for a terminal: one, a list of them, or those of one pid as its lives.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::life::{Judged, ProcessLife, hue_of};
use crate::model::{KernelTime, Pid};
use crate::report::evidence::dto::{IncidentDto, IncidentList, TimelineRow};
use crate::report::format::{Hue, Paint, printable, thousands};
use crate::report::kernel::KernelVersion;
use crate::report::table::Table;

impl IncidentList {
    /// A line for each incident of a running exporter, newest first. `is_filtered`: not all of them were asked for.
    pub(crate) fn of_exporter(&self, exporter: &str, is_filtered: bool, paint: Paint) -> String {
        let mut out = self.origin(exporter, paint);
        out += &self.rows(&format!("at {exporter}"), is_filtered, paint);
        if self.skipped > 0 {
            let skipped = thousands(self.skipped);
            let _ = writeln!(out, "\nOf too many at once a sample is kept: {skipped} were not.");
        }
        out
    }

    /// A line for each incident of a recording, newest first: some of the `matched` that were asked for.
    pub(crate) fn of_recording(
        &self,
        source: &str,
        kernel: &KernelVersion,
        matched: u64,
        is_filtered: bool,
        paint: Paint,
    ) -> String {
        let title = paint.dye(Hue::Title, &printable(&format!("incidents in {source}")));
        let mut out = format!("{title}\n{}\n\n", printable(&kernel.uname));
        out += &self.rows(&format!("in {source}"), is_filtered, paint);
        if matched > self.incidents.len() as u64 {
            let shown = thousands(self.incidents.len() as u64);
            let _ = writeln!(
                out,
                "\nThe newest {shown} of {}; --limit lists more.",
                thousands(matched)
            );
        }
        out
    }

    fn rows(&self, place: &str, is_filtered: bool, paint: Paint) -> String {
        if self.incidents.is_empty() {
            let why = match is_filtered {
                true => " that match what was asked for.",
                false => ": both witnesses agree on every fact.",
            };
            return format!("No incidents {}{why}\n", printable(place));
        }
        let mut table = Table::new(&["#INCIDENT", "TIME", "TREE", "#PID", "FACT", "VERDICT"]);
        for incident in &self.incidents {
            let IncidentDto { id, time, tree, pid, fact, verdict, .. } = incident;
            let time = time.clone().unwrap_or_else(|| "unknown".to_owned());
            let (fact, verdict) = (fact.to_string(), verdict.to_string());
            let row = [id.to_string(), time, tree.clone(), pid.to_string(), fact, verdict];
            table.row(hue_of(&incident.verdict), row);
        }
        table.text(paint)
    }

    /// The lives of a pid, newest first: the time line of each, and under it why it went as it did.
    pub(crate) fn lives(&self, pid: Pid, exporter: &str, paint: Paint) -> String {
        let mut out = self.origin(exporter, paint);
        let title = printable(&format!("pid {pid} at {exporter}"));
        let _ = writeln!(out, "{}", paint.dye(Hue::Title, &title));
        let lives = self.incarnations();
        for (i, life) in lives.iter().enumerate() {
            out.push('\n');
            life.text(&mut out, paint, i + 1, lives.len());
        }
        out
    }

    /// A recording must not be taken for this host.
    fn origin(&self, exporter: &str, paint: Paint) -> String {
        let what = match self.origin.as_ref() {
            "live" => return String::new(),
            "simulate" => "a simulated kernel",
            _ => "a recording of another kernel",
        };
        let IncidentList { osrelease, detail, .. } = self;
        let serves = format!("{exporter} serves {what}, not its host's: {osrelease}, {detail}");
        paint.dye(Hue::Doubt, &printable(&serves)) + "\n\n"
    }

    /// Incidents whose time line begins at the same moment are about one life; but each life has one of either fact: a
    /// recording that is played over and over has its times again and again.
    fn incarnations(&self) -> Vec<Incarnation<'_>> {
        let mut lives: Vec<Incarnation<'_>> = vec![];
        for incident in &self.incidents {
            let since = incident.since();
            let lacks = |life: &&mut Incarnation<'_>| {
                life.since == since && life.incidents.iter().all(|i| i.fact != incident.fact)
            };
            match lives.iter_mut().find(lacks) {
                Some(life) => life.incidents.push(incident),
                None => lives.push(Incarnation { since, incidents: vec![incident] }),
            }
        }
        lives.sort_by_key(|life| std::cmp::Reverse(life.since));
        // A life begins with its birth.
        lives.iter_mut().for_each(|life| life.incidents.sort_by_key(|incident| incident.id));
        lives
    }
}

/// One life of a pid, by the incidents about it.
struct Incarnation<'a> {
    since: Option<KernelTime>,
    incidents: Vec<&'a IncidentDto>,
}

impl Incarnation<'_> {
    fn text(&self, out: &mut String, paint: Paint, number: usize, of: usize) {
        let (Some(first), Some(last)) = (self.incidents.first(), self.incidents.last()) else {
            return;
        };
        let ids: Vec<String> = self.incidents.iter().map(|i| i.id.to_string()).collect();
        let s = if ids.len() == 1 { "" } else { "s" };
        let title = match of {
            1 => String::new(),
            _ => format!("life {number} of {of}, newest first, "),
        };
        let title = format!("{title}tree {}, incident{s} {}", first.tree, ids.join(" and "));
        let time = first.time.as_deref().or(last.time.as_deref()).unwrap_or("time of day unknown");
        let title = paint.dye(Hue::Title, &printable(&title));
        let _ = writeln!(out, "{title}\n{}\n", printable(time));
        life(&self.incidents).text(out, paint);
    }
}

/// The life that these incidents are about, each row of their time lines once.
fn life(incidents: &[&IncidentDto]) -> ProcessLife {
    let mut seen = HashSet::new();
    let all = incidents.iter().flat_map(|incident| &incident.timeline);
    let new = all.filter(|row| seen.insert((row.at, &row.text)));
    let mut timeline: Vec<TimelineRow> = new.cloned().collect();
    timeline.sort_by_key(|row| row.at);
    let judge = |incident: &&IncidentDto| Judged {
        fact: incident.fact.clone(),
        verdict: incident.verdict.clone(),
        path: incident.kernel_path.clone(),
    };
    ProcessLife {
        timeline,
        judged: incidents.iter().map(judge).collect(),
        ..ProcessLife::default()
    }
}

impl IncidentDto {
    /// For a person: the time line, and under it why it went as it did.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let title = format!("incident {}, pid {}, tree {}", self.id, self.pid, self.tree);
        let mut out = paint.dye(Hue::Title, &printable(&title));
        let time = self.time.as_deref().unwrap_or("time of day unknown");
        let _ = writeln!(out, "\n{}\n", printable(time));
        life(&[self]).text(&mut out, paint);
        out
    }

    /// When its process is first mentioned, on DTrace's clock.
    fn since(&self) -> Option<KernelTime> {
        self.timeline.first().map(|row| row.at)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn incident(id: u64, fact: &str, since: u64, text: &str) -> Value {
        json!({
            "id": id, "time": null, "tree": "a\u{1b}[2J", "pid": 42, "fact": fact, "verdict": "lost_silent",
            "kernel_path": {
                "sentence": "It was lost.", "function": "knote_fork", "condition": "", "releases": "all", "sure": "possible"
            },
            "timeline": [
                { "at": since, "witness": "dtrace", "text": "create, forked by 41" },
                { "at": since + 1_000_000 * id, "witness": null, "text": text },
            ],
        })
    }

    fn list(incidents: Vec<Value>) -> IncidentList {
        let list = json!({
            "origin": "live", "detail": "", "osrelease": "13.2-RELEASE", "skipped": 1200, "incidents": incidents
        });
        serde_json::from_value(list).expect("what an exporter says")
    }

    #[test]
    fn the_newest_life_comes_first_and_each_begins_with_its_birth() {
        let list = list(vec![
            incident(4, "birth", 9_000_000, "birth lost_silent"),
            incident(3, "death", 1_000_000, "death lost_silent"),
            incident(2, "birth", 1_000_000, "birth lost_silent"),
        ]);
        assert_eq!(
            list.lives(Pid::new(42).expect("a pid"), "http://h:1", Paint::Plain),
            "\
pid 42 at http://h:1

life 1 of 2, newest first, tree a\\u{1b}[2J, incident 4
time of day unknown

      +0.000 ms  dtrace  create, forked by 41
      +4.000 ms  verdict birth lost_silent

  why the birth is lost_silent
    what      It was lost.
    where     knote_fork
    releases  all
    sure      possible

life 2 of 2, newest first, tree a\\u{1b}[2J, incidents 2 and 3
time of day unknown

      +0.000 ms  dtrace  create, forked by 41
      +2.000 ms  verdict birth lost_silent
      +3.000 ms  verdict death lost_silent

  why birth and death are lost_silent
    what      It was lost.
    where     knote_fork
    releases  all
    sure      possible
"
        );
    }

    #[test]
    fn a_recording_that_is_played_again_has_other_lives() {
        let incidents = [(4, "death"), (3, "birth"), (2, "death"), (1, "birth")];
        let list = list(incidents.map(|(id, fact)| incident(id, fact, 5, "x")).to_vec());
        let lives: Vec<Vec<u64>> = list
            .incarnations()
            .iter()
            .map(|life| life.incidents.iter().map(|incident| incident.id).collect())
            .collect();
        assert_eq!(lives, [[3, 4], [1, 2]]);
    }

    #[test]
    fn a_list_has_a_line_for_each_and_steers_no_terminal() {
        let list = list(vec![incident(12, "birth", 1, "")]);
        assert_eq!(
            list.of_exporter("http://h:1", false, Paint::Plain),
            "\
INCIDENT  TIME     TREE        PID  FACT   VERDICT
      12  unknown  a\\u{1b}[2J   42  birth  lost_silent

Of too many at once a sample is kept: 1,200 were not.
"
        );
        assert!(list.of_exporter("http://h:1", false, Paint::Ansi).contains("\x1b[31m"));
    }

    #[test]
    fn nobody_takes_a_recording_for_a_host() {
        let other =
            IncidentList { origin: "replay".into(), detail: "a.kqr".into(), ..list(vec![]) };
        let text = other.of_exporter("http://h:1", false, Paint::Plain);
        assert!(text.starts_with("http://h:1 serves a recording of another kernel"), "{text}");
        assert!(
            text.contains("\nNo incidents at http://h:1: both witnesses agree on every fact.\n")
        );
        let text = other.of_exporter("http://h:1", true, Paint::Plain);
        assert!(text.contains("\nNo incidents at http://h:1 that match what was asked for.\n"));
    }

    #[test]
    fn an_incident_reads_like_a_life_and_steers_no_terminal() {
        let json = json!({
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
