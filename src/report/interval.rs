//! Confidence intervals of rates.

use serde::Serialize;

/// Normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// A share of trials with its 95 % confidence interval, all from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Interval {
    /// What was observed; `None` without any trial.
    pub rate: Option<f64>,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// `events` of `trials` by Wilson's score: it holds for few trials and for none or all of them, where the
    /// textbook interval is empty (E. B. Wilson, 1927).
    pub(crate) fn wilson(events: u64, trials: u64) -> Interval {
        if trials == 0 {
            return Interval { rate: None, low: 0.0, high: 1.0 };
        }
        let n = trials as f64;
        let p = events.min(trials) as f64 / n;
        let scale = 1.0 + Z * Z / n;
        let centre = (p + Z * Z / (2.0 * n)) / scale;
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
        // Exact at the ends, where rounding would leave a crumb.
        let low = if events == 0 { 0.0 } else { (centre - half).max(0.0) };
        let high = if events >= trials { 1.0 } else { (centre + half).min(1.0) };
        Interval { rate: Some(p), low, high }
    }

    /// For a person: `33.0 % (32.1 to 34.0)`; `0, below 0.19 %` if nothing happened.
    pub(crate) fn text(&self) -> String {
        match self.rate {
            None => "-".to_owned(),
            Some(0.0) => format!("0, below {} %", percent(self.high)),
            Some(1.0) => format!("100 %, above {}", percent(self.low)),
            Some(rate) => {
                format!("{} % ({} to {})", percent(rate), percent(self.low), percent(self.high))
            }
        }
    }
}

/// A share in percent with so many digits that it never rounds to 0 or to 100.
fn percent(share: f64) -> String {
    let value = share * 100.0;
    let from_end = value.min(100.0 - value);
    let digits = match from_end {
        d if d <= 0.0 => 0,
        d if d >= 10.0 => 1,
        d if d >= 1.0 => 2,
        d => (1.0 - d.log10().floor()) as usize,
    };
    format!("{value:.*}", digits.min(12))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-5
    }

    #[test]
    fn textbook_values() {
        // Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29.
        for (events, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let interval = Interval::wilson(events, trials);
            assert!(close(interval.low, low), "{events}/{trials}: {interval:?}");
            assert!(close(interval.high, high), "{events}/{trials}: {interval:?}");
        }
    }

    #[test]
    fn none_and_all_have_one_open_end() {
        assert_eq!(Interval::wilson(0, 2000).low, 0.0);
        assert_eq!(Interval::wilson(0, 2000).text(), "0, below 0.19 %");
        assert_eq!(Interval::wilson(2000, 2000).high, 1.0);
        assert_eq!(Interval::wilson(2000, 2000).text(), "100 %, above 99.81");
        assert_eq!(Interval::wilson(0, 0).text(), "-");
    }

    #[test]
    fn a_share_never_rounds_to_nothing_or_to_all() {
        assert_eq!(percent(0.000_001_23), "0.00012");
        assert_eq!(percent(0.333), "33.3");
        assert_eq!(percent(0.0333), "3.33");
        assert_eq!(percent(0.999_87), "99.987");
        assert_eq!(percent(0.0), "0");
        assert_eq!(percent(1.0), "100");
    }

    proptest::proptest! {
        #[test]
        fn the_interval_holds_its_rate(events in 0u64..1_000_000, more in 0u64..1_000_000) {
            let interval = Interval::wilson(events, events + more);
            if let Some(rate) = interval.rate {
                proptest::prop_assert!(0.0 <= interval.low && interval.low <= rate);
                proptest::prop_assert!(rate <= interval.high && interval.high <= 1.0);
            }
        }
    }
}
