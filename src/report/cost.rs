//! The result of `check --cost`: how fast a busy process is with dtrace(1) watching and without.

use serde::Serialize;

use super::format::{Hue, Paint, thousands};
use super::table::Table;

/// Speeds that were measured in turn without and with a D program, as `check --cost` prints them.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct Cost {
    pub program: String,
    /// How long it all took, the starts and ends of dtrace among it.
    pub seconds: f64,
    pub speeds: Vec<Speed>,
}

/// The speed of one busy process, without and with a D program.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct Speed {
    /// What it does, in the plural: `forks`.
    pub what: String,
    /// How often in a second of its processor time without the D program: the median.
    pub without: f64,
    /// The same with it.
    pub with: f64,
    /// Of each pair of measurements, the speed with the D program as a part of the speed without it.
    pub ratio: Spread,
    /// The ratios differ among each other by less than their median differs from 1.
    pub(crate) is_beyond_noise: bool,
}

/// Values of one thing.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub(crate) struct Spread {
    pub min: f64,
    /// As many are below as above.
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of values that are numbers; all 0 without any.
    fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
        let (last, half) = (sorted.len().saturating_sub(1), sorted.len() / 2);
        Spread { min: at(0), median: (at(half) + at(last - last.min(half))) / 2.0, max: at(last) }
    }
}

impl Speed {
    /// Of pairs of speeds, each without and then with the D program, measured one right after the other.
    pub(crate) fn of(what: &str, pairs: &[(f64, f64)]) -> Speed {
        let ratio = Spread::of(pairs.iter().map(|(without, with)| with / without));
        Speed {
            what: what.to_owned(),
            without: Spread::of(pairs.iter().map(|pair| pair.0)).median,
            with: Spread::of(pairs.iter().map(|pair| pair.1)).median,
            ratio,
            is_beyond_noise: ratio.max - ratio.min < (1.0 - ratio.median).abs(),
        }
    }

    fn sentence(&self) -> String {
        let Speed { what, ratio, .. } = self;
        let (spread, effect) = (ratio.max - ratio.min, (1.0 - ratio.median).abs());
        match self.is_beyond_noise {
            true => format!(
                "A process that does nothing else makes {:.0} % {} {what} while dtrace runs.",
                effect * 100.0,
                if ratio.median < 1.0 { "fewer" } else { "more" }
            ),
            false => format!(
                "{what}: the spread ({spread:.2}) is not smaller than the effect ({effect:.2}), so that cannot be told from \
                 noise. Measure on a quieter host, or for longer (--seconds)."
            ),
        }
    }
}

impl Cost {
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut table = Table::new(&[
            "a CPU second",
            "#without",
            "#with dtrace",
            "#of that",
            "#least",
            "#most",
        ]);
        for Speed { what, without, with, ratio, is_beyond_noise } in &self.speeds {
            let hue = if *is_beyond_noise { Hue::Plain } else { Hue::Doubt };
            let [without, with] = [without, with].map(|speed| thousands(speed.round() as u64));
            let [median, min, max] =
                [ratio.median, ratio.min, ratio.max].map(|ratio| format!("{ratio:.2}"));
            table.row(hue, [what.clone(), without, with, median, min, max]);
        }
        let mut out = table.text(paint);
        for speed in &self.speeds {
            out += &speed.sentence();
            out.push('\n');
        }
        out += &format!(
            "Measured in {:.0} s with {}, without and with it in turn, by the processor time of the busy process. What the\n\
             exporter, its keeper and dtrace use themselves is kqproc_self_cpu_seconds_total.\n",
            self.seconds, self.program
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        let of = |values: &[f64]| {
            let Spread { min, median, max } = Spread::of(values.iter().copied());
            (min, median, max)
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), (1.0, 2.0, 3.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), (1.0, 2.5, 4.0));
        assert_eq!(of(&[]), (0.0, 0.0, 0.0));
    }

    #[test]
    fn an_effect_is_one_only_if_it_is_larger_than_the_spread() {
        let clear = Speed::of("kevent(2) calls", &[(340_000.0, 306_000.0), (100_000.0, 88_000.0)]);
        assert!(clear.is_beyond_noise);
        let noise = Speed::of("forks", &[(1000.0, 980.0), (1000.0, 1010.0), (990.0, 940.5)]);
        assert!(!noise.is_beyond_noise);
        let cost = Cost { program: "proc.d".to_owned(), seconds: 14.4, speeds: vec![clear, noise] };
        let text = cost.text(Paint::Plain);
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words, ["kevent(2)", "calls", "220,000", "197,000", "0.89", "0.88", "0.90"]);
        assert_eq!(
            lines[3],
            "A process that does nothing else makes 11 % fewer kevent(2) calls while dtrace runs."
        );
        assert!(
            lines[4].starts_with("forks: the spread (0.06) is not smaller than the effect (0.02)")
        );
    }
}
