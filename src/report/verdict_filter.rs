//! A choice of verdicts by name: one of them, or `lost` for every way of losing.

use std::fmt;

use crate::model::Verdict;

/// Which incidents are asked for by their verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VerdictFilter {
    /// Every `lost_*`.
    Lost,
    One(Verdict),
}

impl VerdictFilter {
    pub(crate) fn all() -> impl Iterator<Item = VerdictFilter> {
        let others = Verdict::ALL.iter().filter(|verdict| !verdict.is_good());
        [VerdictFilter::Lost].into_iter().chain(others.map(|verdict| VerdictFilter::One(*verdict)))
    }

    /// The filter of this name.
    pub(crate) fn from_name(word: &str) -> Option<VerdictFilter> {
        VerdictFilter::all().find(|wanted| wanted.as_str() == word)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            VerdictFilter::Lost => "lost",
            VerdictFilter::One(verdict) => verdict.as_str(),
        }
    }

    /// Whether this verdict is asked for.
    pub(crate) fn has(self, verdict: Verdict) -> bool {
        match self {
            VerdictFilter::Lost => verdict.is_lost(),
            VerdictFilter::One(one) => one == verdict,
        }
    }
}

impl fmt::Display for VerdictFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_is_every_way_of_losing() {
        let lost = VerdictFilter::from_name("lost").unwrap();
        let all: Vec<&str> =
            Verdict::ALL.iter().filter(|v| lost.has(**v)).map(|v| v.as_str()).collect();
        assert_eq!(all, ["lost_reported", "lost_silent", "lost_inherited"]);
    }

    #[test]
    fn every_verdict_but_agreed_has_its_question() {
        for verdict in Verdict::ALL {
            let wanted = VerdictFilter::from_name(verdict.as_str());
            assert_eq!(wanted, (!verdict.is_good()).then_some(VerdictFilter::One(*verdict)));
        }
    }
}
