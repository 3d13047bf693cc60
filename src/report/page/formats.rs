//! The report page as HTML, as Markdown and as text for a terminal.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::ReportPage;
use crate::check::stats::TreeStats;
use crate::model::Fact;
use crate::report::answer::Tally;
use crate::report::format::{Hue, Paint, thousands};
use crate::report::html::{Header, page};
use crate::report::section::{literal, markdown, text};

impl ReportPage {
    pub(crate) fn html(&self) -> String {
        let summary = &self.report.summary;
        let header = Header {
            decision: summary.decision,
            answer: self.report.finding(),
            advice: &self.report.advice,
            more: self.cards(),
        };
        page(&self.report.kernel.uname, &self.origin.source, &header, &self.sections())
    }

    /// As Markdown, without the plots.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "# {}\n\n{}\n\n{}\n",
            literal(&self.origin.source),
            literal(&self.report.summary.answer),
            literal(&self.report.advice)
        );
        out + &markdown(&self.sections())
    }

    /// The sections for a terminal, without the plots.
    pub(crate) fn details(&self, paint: Paint) -> String {
        text(&self.sections(), paint)
    }

    /// What is wrong, each in one number.
    fn cards(&self) -> Markup {
        let TreeStats { collisions, duplicate_child_notes, trackerr_reports, .. } = &self.totals;
        let bad = |n: u64| if n > 0 { Hue::Bad } else { Hue::Plain };
        let doubt = |is: bool| if is { Hue::Doubt } else { Hue::Plain };
        let wrong = |fact| {
            let tally = Tally::of(&self.totals, fact);
            (tally.wrong(), format!("of {}", thousands(tally.total())))
        };
        let ((births, of_births), (deaths, of_deaths)) = (wrong(Fact::Birth), wrong(Fact::Death));
        let (collisions, none) = (collisions.iter().sum(), String::new());
        let (blind, length) = (self.report.summary.blind_seconds, self.report.run.seconds);
        let repeats = doubt(*duplicate_child_notes > 0);
        let cards = [
            ("births wrong", bad(births), thousands(births), of_births),
            ("deaths wrong", bad(deaths), thousands(deaths), of_deaths),
            ("collisions", bad(collisions), thousands(collisions), none.clone()),
            ("repeated NOTE_CHILD", repeats, thousands(*duplicate_child_notes), none.clone()),
            ("NOTE_TRACKERR", bad(*trackerr_reports), thousands(*trackerr_reports), none),
            ("blind", doubt(blind > 0.0), format!("{blind:.3} s"), format!("of {length:.1} s")),
        ];
        html! {
            dl.cards {
                @for (name, hue, value, of) in cards {
                    div class=(hue.class()) { dt { (name) } dd { (value) " " small { (of) } } }
                }
            }
        }
    }
}
