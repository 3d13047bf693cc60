//! The advice on a report card: a sentence with what a tracker must do on a kernel on which several loads were run.

use super::{Loaded, Row, extra_notes, together};
use crate::check::stats::Stats;
use crate::model::{Fact, Regime};
use crate::report::advice::{advice, conditions, sound};
use crate::report::answer::{Soundness, Tally};
use crate::report::exit_race::ExitRace;
use crate::report::format::{count_of, thousands};

/// One sentence. `decision` is that on all `runs`, and `rows` are what the card says of each; `expected` is what the kernel's
/// version promises.
pub(super) fn answer(
    decision: Soundness,
    runs: &[Loaded],
    rows: &[Row],
    expected: Regime,
    race: Option<ExitRace>,
) -> String {
    let all = together(runs);
    match decision {
        Soundness::Sound => {
            sound(&all, expected, if rows.len() == 1 { "this load" } else { "these loads" })
        }
        Soundness::Unsound => {
            let (plain, costly): (Vec<&Loaded>, Vec<&Loaded>) =
                runs.iter().partition(|loaded| extra_notes(&loaded.stats.totals()).is_empty());
            match Soundness::of(&together(plain)) {
                Soundness::Sound => {
                    only_without_costly_notes(&all, &together(costly), expected, race)
                }
                Soundness::Unsound | Soundness::Undecided => advice(&all, decision, expected),
            }
        }
        Soundness::Undecided => undecided(rows),
    }
}

/// A kernel that kept everything for a tracker that asks for NOTE_TRACK and NOTE_EXIT alone, and not for one that asks for
/// more.
fn only_without_costly_notes(
    all: &Stats,
    costly: &Stats,
    expected: Regime,
    race: Option<ExitRace>,
) -> String {
    let lost = Tally::of(&costly.totals(), Fact::Death);
    let Some(race) = race.filter(|race| race.with.lost > 0) else {
        return advice(costly, Soundness::of(costly), expected);
    };
    format!(
        "A tracker can trust this kernel only if it {}: beside NOTE_FORK it lost {} of {}, without NOTE_FORK {} of {}.",
        conditions(&all.totals()),
        thousands(lost.lost),
        count_of(lost.decided(), "exit"),
        if race.without.lost == 0 { "none".to_owned() } else { thousands(race.without.lost) },
        thousands(race.without.deaths),
    )
}

/// The loads that could not be decided.
fn undecided(rows: &[Row]) -> String {
    let open = rows.iter().filter(|row| row.report.summary.decision == Soundness::Undecided);
    let names: Vec<&str> = open.map(|row| row.shape.as_str()).collect();
    match (&names[..], rows) {
        ([], _) => {
            "Whether a tracker can trust this kernel is not known: nothing was run.".to_owned()
        }
        (_, [row]) => row.report.advice.clone(),
        ([first, ..], _) => format!(
            "Whether a tracker can trust this kernel is not known: {} could not be decided; run it alone (--shape \
             {first}) to see why.",
            names.join(", ")
        ),
    }
}
