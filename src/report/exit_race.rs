//! The experiment that shows whether NOTE_FORK costs exits: one load for a tracker that asks for it, and for one that does not.

use serde::Serialize;

use super::answer::Tally;
use super::card::Row;
use super::format::{count_of, thousands};
use crate::model::{Fact, Shape};

/// The same load for a tracker that asks for NOTE_TRACK and NOTE_EXIT alone, and for one that asks for NOTE_FORK or
/// NOTE_EXEC too: a kernel that throws an exit away because of a queued note (docs/strategies.md) does so for the latter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ExitRace {
    /// The load.
    pub shape: Shape,
    /// For the tracker that asks for NOTE_TRACK and NOTE_EXIT alone.
    pub without: Lost,
    /// For the tracker that asks for more.
    pub with: Lost,
}

/// Deaths that were never delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Lost {
    /// How many.
    pub lost: u64,
    /// Of so many with a decision.
    pub deaths: u64,
}

impl ExitRace {
    /// The first shape that was run with and without a costly note.
    pub(super) fn of(rows: &[Row]) -> Option<ExitRace> {
        let with = rows.iter().find(|row| {
            !row.notes.is_empty() && rows.iter().any(|r| r.shape == row.shape && r.notes.is_empty())
        })?;
        let without = rows.iter().find(|row| row.shape == with.shape && row.notes.is_empty())?;
        let lost = |row: &Row| {
            let deaths = Tally::of(&row.totals, Fact::Death);
            Lost { lost: deaths.lost, deaths: deaths.decided() }
        };
        Some(ExitRace { shape: with.shape, without: lost(without), with: lost(with) })
    }

    /// Which of the two lost exits.
    pub(super) fn sentence(&self) -> String {
        let ExitRace { shape, without, with } = self;
        let of = |Lost { lost, deaths }: &Lost| match lost {
            0 => format!("none of {}", count_of(*deaths, "exit")),
            n => format!("{} of {}", thousands(*n), count_of(*deaths, "exit")),
        };
        let counts = format!(
            "Shape {shape}: the tracker that also asks for NOTE_FORK lost {}, the one that does not lost {}.",
            of(with),
            of(without)
        );
        match (with.lost, without.lost) {
            (0, 0) => {
                counts
                    + " FreeBSD 13.2 and 15.1 lose up to 4 of 16,000 that way: a larger --count may show it."
            }
            _ => counts,
        }
    }
}
