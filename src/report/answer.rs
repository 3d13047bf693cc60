//! The decision on a run, sound, unsound or undecided, and the sentence that states it.

use super::format::{Hue, count_of};
use crate::check::stats::{Stats, TreeStats};
use crate::model::{Fact, Verdict, named_enum, note};

named_enum! {
    /// Whether what kqueue reported was right.
    pub enum Soundness {
        /// At least one birth and one death agreed, or of a consumer at least one of what it asks for; none was lost,
        /// corrupt or overwritten, no kevent collided, the kernel does not merge the two notes, and at most 5 % of the
        /// births and 5 % of the deaths are without a decision.
        Sound = "sound",
        /// A fact was lost, corrupt or overwritten, or a kevent carried NOTE_CHILD and NOTE_EXIT at once. One is
        /// enough, however much is undecided. A kernel that merges the two notes is unsound without a collision too: a
        /// reader that comes later has one.
        Unsound = "unsound",
        /// Everything else: nothing was seen, or more than 5 % is without a decision.
        Undecided = "undecided",
    }
}

impl Soundness {
    /// What these counts say.
    pub fn of(stats: &Stats) -> Soundness {
        let totals = stats.totals();
        let (births, deaths) = (Tally::of(&totals, Fact::Birth), Tally::of(&totals, Fact::Death));
        let wrong = births.wrong() + deaths.wrong() + totals.collisions.iter().sum::<u64>();
        if wrong > 0 || stats.regime.is_merged() {
            Soundness::Unsound
        } else if births.total() + deaths.total() > 0
            && births.enough_for(totals.notes, note::TRACK)
            && deaths.enough_for(totals.notes, note::EXIT)
        {
            Soundness::Sound
        } else {
            Soundness::Undecided
        }
    }

    /// The exit status that says it: 0 sound, 1 unsound, 2 undecided.
    pub(crate) const fn exit_status(self) -> u8 {
        self as u8
    }

    pub(super) const fn hue(self) -> Hue {
        match self {
            Soundness::Sound => Hue::Good,
            Soundness::Unsound => Hue::Bad,
            Soundness::Undecided => Hue::Doubt,
        }
    }
}

/// The counts of one of the two facts, as far as a judge needs them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Both witnesses reported the same.
    pub agreed: u64,
    /// kqueue never reported it.
    pub lost: u64,
    /// kqueue reported it with the other note's data.
    pub overwritten: u64,
    /// kqueue reported a wrong value.
    pub corrupt: u64,
    /// Not known: a witness was blind, DTrace alone is silent (kqueue_only), or the verdict is still pending.
    pub open: u64,
}

impl Tally {
    /// The counts of this fact.
    pub(crate) fn of(tree: &TreeStats, fact: Fact) -> Tally {
        let by = tree.of(fact);
        let mut tally = Tally { open: tree.pending_of(fact), ..Tally::default() };
        for (verdict, n) in Verdict::ALL.iter().zip(by) {
            *match verdict {
                Verdict::Agreed => &mut tally.agreed,
                Verdict::Overwritten => &mut tally.overwritten,
                Verdict::Corrupt => &mut tally.corrupt,
                Verdict::LostReported | Verdict::LostSilent | Verdict::LostInherited => {
                    &mut tally.lost
                }
                Verdict::KqueueOnly | Verdict::Undecided => &mut tally.open,
            } += n;
        }
        tally
    }

    /// Facts that kqueue got wrong.
    pub(crate) const fn wrong(&self) -> u64 {
        self.lost + self.overwritten + self.corrupt
    }

    /// Facts with a decision.
    pub(crate) const fn decided(&self) -> u64 {
        self.agreed + self.wrong()
    }

    /// All facts.
    pub(crate) const fn total(&self) -> u64 {
        self.decided() + self.open
    }

    /// Something is decided, and at most 5 % is not.
    pub(crate) const fn enough(&self) -> bool {
        self.decided() > 0 && self.open.saturating_mul(20) <= self.total()
    }

    /// The same; or there are none, for of the `notes` that were asked for, as far as that is known, none reports them.
    const fn enough_for(&self, notes: u32, note: u32) -> bool {
        self.enough() || self.total() == 0 && notes != 0 && notes & note == 0
    }
}

/// What was found, in one sentence.
pub fn sentence(stats: &Stats) -> String {
    let totals = stats.totals();
    let (births, deaths) = (Tally::of(&totals, Fact::Birth), Tally::of(&totals, Fact::Death));
    let seen =
        format!("{} and {}", count_of(births.total(), "birth"), count_of(deaths.total(), "death"));
    match Soundness::of(stats) {
        _ if births.total() + deaths.total() == 0 => {
            "Undecided: neither witness reported a birth or a death.".to_owned()
        }
        Soundness::Sound => match births.open + deaths.open {
            0 => format!("Sound: kqueue reported all of {seen} correctly."),
            open => format!(
                "Sound: kqueue reported correctly what both witnesses could see, {} of {seen} undecided.",
                count_of(open, "fact")
            ),
        },
        Soundness::Unsound => match wrongs(&totals) {
            wrongs if wrongs.is_empty() => format!(
                "Unsound: of {seen}, kqueue got none wrong in this run, but this kernel merges NOTE_CHILD and \
                 NOTE_EXIT into one kevent ({}) as soon as its reader is late.",
                stats.regime
            ),
            wrongs => format!("Unsound: of {seen}, kqueue {wrongs}."),
        },
        Soundness::Undecided if births.open + deaths.open == 0 => format!(
            "Undecided: {seen} are not enough, which takes one of each; nothing was found lost or corrupt."
        ),
        Soundness::Undecided => format!(
            "Undecided: of {seen}, {} and {} could not be decided; nothing was found lost or corrupt.",
            count_of(births.open, "birth"),
            count_of(deaths.open, "death")
        ),
    }
}

/// What kqueue got wrong: `lost 1 birth and 1 death, overwrote 184 births`. Empty if it got nothing wrong.
pub(super) fn wrongs(tree: &TreeStats) -> String {
    let (births, deaths) = (Tally::of(tree, Fact::Birth), Tally::of(tree, Fact::Death));
    let parts = [
        ("lost", births.lost, deaths.lost),
        ("overwrote", births.overwritten, deaths.overwritten),
        ("corrupted", births.corrupt, deaths.corrupt),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(verb, b, d)| match (b, d) {
            (0, 0) => None,
            (b, 0) => Some(format!("{verb} {}", count_of(b, "birth"))),
            (0, d) => Some(format!("{verb} {}", count_of(d, "death"))),
            (b, d) => Some(format!("{verb} {} and {}", count_of(b, "birth"), count_of(d, "death"))),
        })
        .collect();
    if parts.is_empty() && tree.collisions.iter().sum::<u64>() > 0 {
        return "put NOTE_CHILD and NOTE_EXIT into one kevent".to_owned();
    }
    parts.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Regime, Winner};

    /// Counters of one tree with these births and deaths.
    pub(in crate::report) fn stats(births: &[(Verdict, u64)], deaths: &[(Verdict, u64)]) -> Stats {
        let mut tree = TreeStats { name: "work".to_owned(), ..TreeStats::default() };
        for (verdict, n) in births {
            tree.births[verdict.index()] += n;
            tree.births_reported += n;
        }
        for (verdict, n) in deaths {
            tree.deaths[verdict.index()] += n;
            tree.deaths_reported += n;
        }
        Stats { trees: vec![tree], ..Stats::default() }
    }

    #[test]
    fn all_agreed_is_sound() {
        let stats = stats(&[(Verdict::Agreed, 600)], &[(Verdict::Agreed, 601)]);
        assert_eq!(Soundness::of(&stats), Soundness::Sound);
        assert_eq!(Soundness::of(&stats).exit_status(), 0);
        assert_eq!(
            sentence(&stats),
            "Sound: kqueue reported all of 600 births and 601 deaths correctly."
        );
    }

    #[test]
    fn what_a_consumer_has_not_asked_for_is_not_needed_to_be_sound() {
        let mut exit_only = stats(&[], &[(Verdict::Agreed, 270)]);
        assert_eq!(Soundness::of(&exit_only), Soundness::Undecided, "it is not known");
        assert_eq!(
            sentence(&exit_only),
            "Undecided: 0 births and 270 deaths are not enough, which takes one of each; nothing was found lost or corrupt."
        );
        exit_only.trees[0].notes = note::EXIT;
        assert_eq!(Soundness::of(&exit_only), Soundness::Sound);
        exit_only.trees[0].notes = note::TRACK | note::EXIT;
        assert_eq!(Soundness::of(&exit_only), Soundness::Undecided);
        assert_eq!(Soundness::of(&Stats::default()), Soundness::Undecided);
    }

    #[test]
    fn one_wrong_fact_is_unsound_however_much_is_undecided() {
        for verdict in [
            Verdict::Overwritten,
            Verdict::Corrupt,
            Verdict::LostReported,
            Verdict::LostSilent,
            Verdict::LostInherited,
        ] {
            let bad = [(Verdict::Agreed, 3), (Verdict::Undecided, 900), (verdict, 1)];
            let good = [(Verdict::Agreed, 904)];
            assert_eq!(Soundness::of(&stats(&bad, &good)), Soundness::Unsound, "birth {verdict}");
            assert_eq!(Soundness::of(&stats(&good, &bad)), Soundness::Unsound, "death {verdict}");
        }
        assert_eq!(Soundness::Unsound.exit_status(), 1);
    }

    #[test]
    fn a_collision_is_evidence_even_where_dtrace_was_blind() {
        let mut stats = stats(&[(Verdict::Undecided, 1)], &[(Verdict::Undecided, 1)]);
        stats.trees[0].collisions[Winner::Status.index()] = 1;
        assert_eq!(Soundness::of(&stats), Soundness::Unsound);
        assert_eq!(
            sentence(&stats),
            "Unsound: of 1 birth and 1 death, kqueue put NOTE_CHILD and NOTE_EXIT into one kevent."
        );
    }

    #[test]
    fn a_kernel_that_merges_is_unsound_in_a_run_without_a_collision() {
        let mut stats = stats(&[(Verdict::Agreed, 600)], &[(Verdict::Agreed, 601)]);
        for regime in [Regime::MergedStatus, Regime::MergedPpid] {
            stats.regime = regime;
            assert_eq!(Soundness::of(&stats), Soundness::Unsound);
            let sentence = sentence(&stats);
            assert!(
                sentence
                    .starts_with("Unsound: of 600 births and 601 deaths, kqueue got none wrong")
            );
            assert!(sentence.contains(regime.as_str()), "{sentence}");
        }
    }

    #[test]
    fn up_to_5_percent_may_be_undecided() {
        let deaths = [(Verdict::Agreed, 100)];
        let births = |open| stats(&[(Verdict::Agreed, 95), (Verdict::Undecided, open)], &deaths);
        assert_eq!(Soundness::of(&births(5)), Soundness::Sound);
        assert_eq!(Soundness::of(&births(6)), Soundness::Undecided);
        assert_eq!(Soundness::Undecided.exit_status(), 2);
        let only = stats(&[(Verdict::Agreed, 90), (Verdict::KqueueOnly, 10)], &deaths);
        assert_eq!(
            Soundness::of(&only),
            Soundness::Undecided,
            "what DTrace never reported is not decided"
        );
        let mut pending = stats(&[(Verdict::Agreed, 90)], &deaths);
        pending.trees[0].births_reported = 100;
        assert_eq!(Soundness::of(&pending), Soundness::Undecided, "nor is what is still pending");
    }

    #[test]
    fn nothing_seen_is_undecided() {
        assert_eq!(Soundness::of(&Stats::default()), Soundness::Undecided);
        assert_eq!(
            sentence(&Stats::default()),
            "Undecided: neither witness reported a birth or a death."
        );
        let births_only = stats(&[(Verdict::Agreed, 9)], &[]);
        assert_eq!(Soundness::of(&births_only), Soundness::Undecided);
    }

    #[test]
    fn the_sentence_says_what_went_wrong() {
        let stats = stats(
            &[(Verdict::Agreed, 215), (Verdict::Overwritten, 184), (Verdict::LostSilent, 1)],
            &[(Verdict::Agreed, 400), (Verdict::LostSilent, 1)],
        );
        assert_eq!(
            sentence(&stats),
            "Unsound: of 400 births and 401 deaths, kqueue lost 1 birth and 1 death, overwrote 184 births."
        );
    }
}
