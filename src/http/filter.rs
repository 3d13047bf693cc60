//! The filters of `/incidents?...`, and the list of incidents that they select.

use super::about::About;
use super::incidents::{Incidents, NumberedFinding};
use super::negotiate::AnswerFormat;
use super::query::{self, BadQuery};
use super::snapshot::Snapshot;
use crate::check::stats::Stats;
use crate::model::{Fact, Pid};
use crate::report::evidence::dto::IncidentList;
use crate::report::evidence::tree_name;
use crate::report::verdict_filter::VerdictFilter;

/// How many incidents are given unless another number is asked for.
const SHOWN: usize = 100;

/// Which incidents are listed, how many, and in which format.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Filter {
    pub(super) tree: Option<String>,
    pub(super) verdict: Option<VerdictFilter>,
    pub(super) fact: Option<Fact>,
    pub(super) pid: Option<Pid>,
    pub(super) limit: usize,
    /// Each with its time line.
    timeline: bool,
    pub(super) format: Option<AnswerFormat>,
}

impl Filter {
    /// # Errors
    /// A name or a value that is not known. A name without a value, as a form sends it, asks for nothing.
    pub(super) fn parse(text: &str) -> Result<Filter, BadQuery> {
        let mut filter = Filter {
            tree: None,
            verdict: None,
            fact: None,
            pid: None,
            limit: SHOWN,
            timeline: false,
            format: AnswerFormat::asked(text)?,
        };
        for (name, value) in query::pairs(text) {
            let bad = |wanted: &str| BadQuery::Value { name: name.clone(), wanted: wanted.into() };
            match name.as_str() {
                "tree" | "verdict" | "fact" | "pid" | "limit" | "timeline" if value.is_empty() => {}
                "tree" => filter.tree = Some(value),
                "verdict" => {
                    let verdict = VerdictFilter::from_name(&value);
                    filter.verdict = Some(verdict.ok_or_else(|| bad(&known_verdicts()))?);
                }
                "fact" => {
                    let fact = Fact::from_name(&value);
                    filter.fact = Some(fact.ok_or_else(|| bad("birth or death"))?);
                }
                "pid" => {
                    let pid = value.trim().parse().ok().and_then(Pid::new);
                    let wanted = format!("a pid, 0 to {}", Pid::MAX);
                    filter.pid = Some(pid.ok_or_else(|| bad(&wanted))?);
                }
                "limit" => filter.limit = value.trim().parse().map_err(|_| bad("a number"))?,
                "timeline" => filter.timeline = value.parse().map_err(|_| bad("true or false"))?,
                "format" => {}
                _ => return Err(BadQuery::Name { name }),
            }
        }
        Ok(filter)
    }

    /// The query string of the same filter, without its format.
    pub(super) fn query(&self) -> String {
        let pairs = [
            ("tree", self.tree.clone()),
            ("verdict", self.verdict.map(|verdict| verdict.to_string())),
            ("fact", self.fact.map(|fact| fact.to_string())),
            ("pid", self.pid.map(|pid| pid.to_string())),
            ("timeline", self.timeline.then(|| "true".to_owned())),
            ("limit", (self.limit != SHOWN).then(|| self.limit.to_string())),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let pairs: Vec<String> =
            pairs.map(|(name, value)| format!("{name}={}", query::encode(&value))).collect();
        pairs.join("&")
    }

    fn lets_through(
        &self,
        NumberedFinding { finding, .. }: &NumberedFinding,
        stats: &Stats,
    ) -> bool {
        self.tree.as_ref().is_none_or(|tree| tree == tree_name(finding, stats))
            && self.verdict.is_none_or(|verdict| verdict.has(finding.verdict))
            && self.fact.is_none_or(|fact| fact == finding.fact)
            && self.pid.is_none_or(|pid| pid == finding.pid)
    }
}

fn known_verdicts() -> String {
    let known: Vec<&str> = VerdictFilter::all().skip(1).map(VerdictFilter::as_str).collect();
    format!("lost, which is every lost_*, or one of {}", known.join(", "))
}

/// The incidents that a filter lets through, of one moment.
pub(super) struct Listed<'a> {
    pub(super) about: &'a About,
    pub(super) filter: &'a Filter,
    pub(super) snapshot: &'a Snapshot,
    /// Newest first.
    pub(super) incidents: Vec<NumberedFinding>,
    /// There are more than the filter's limit.
    pub(super) more: bool,
    /// Incidents of a flood that were not kept since the start; the filter does not apply to them.
    pub(super) skipped: u64,
}

impl<'a> Listed<'a> {
    pub(super) fn new(
        filter: &'a Filter,
        incidents: &Incidents,
        snapshot: &'a Snapshot,
        about: &'a About,
    ) -> Listed<'a> {
        let one_more = filter.limit.saturating_add(1);
        let lets_through = |incident: &NumberedFinding| {
            filter.lets_through(incident, snapshot.of_incident(incident))
        };
        let mut latest = incidents.latest(one_more, lets_through);
        let more = latest.len() > filter.limit;
        latest.truncate(filter.limit);
        Listed { about, filter, snapshot, incidents: latest, more, skipped: incidents.skipped() }
    }

    /// With links that begin with `base`.
    pub(super) fn json(&self, base: &str) -> serde_json::Result<Vec<u8>> {
        let About { origin, detail, osrelease, .. } = self.about;
        let dto = |incident: &NumberedFinding| {
            let stats = self.snapshot.of_incident(incident);
            let mut dto = match self.filter.timeline {
                true => incident.dto_in_full(stats),
                false => incident.dto(stats),
            };
            dto.runbook.insert_str(0, base);
            dto
        };
        serde_json::to_vec(&IncidentList {
            origin: origin.as_str().into(),
            detail: detail.clone(),
            osrelease: osrelease.clone(),
            skipped: self.skipped,
            incidents: self.incidents.iter().map(dto).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Verdict;

    #[test]
    fn filters_are_understood_or_refused() {
        let text = "tree=a+b&verdict=lost_silent&fact=death&pid=7&timeline=true&limit=2";
        let filter = Filter::parse(&format!("{text}&timeline=true&format=json")).unwrap();
        assert_eq!(
            filter,
            Filter {
                tree: Some("a b".into()),
                verdict: Some(VerdictFilter::One(Verdict::LostSilent)),
                fact: Some(Fact::Death),
                pid: Pid::new(7),
                limit: 2,
                timeline: true,
                format: Some(AnswerFormat::Json),
            }
        );
        assert_eq!(filter.query(), text);
        assert_eq!(Filter::parse("verdict=lost").unwrap().verdict, Some(VerdictFilter::Lost));
        for bad in [
            "verdict=gone",
            "verdict=agreed",
            "fact=life",
            "pid=100000",
            "pid=-1",
            "limit=x",
            "timeline=2",
            "format=xml",
            "tre=a",
            "tre=",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Filter::parse("").unwrap().limit, SHOWN);
    }

    #[test]
    fn the_empty_fields_of_a_form_ask_for_nothing() {
        let form = Filter::parse("tree=&verdict=&fact=&pid=&limit=").unwrap();
        assert_eq!(form, Filter::parse("").unwrap());
    }

    #[test]
    fn a_refused_verdict_names_the_known_ones() {
        let error = Filter::parse("verdict=gone").unwrap_err().to_string();
        for wanted in VerdictFilter::all() {
            assert!(error.contains(wanted.as_str()), "{error}");
        }
    }
}
