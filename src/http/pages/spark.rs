//! Sparklines: a rate over the last hour as a small SVG.

use std::fmt::Write;

use maud::{Markup, html};

const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 24.0;

/// An SVG of these values, drawn from 0 to their peak; its label names the peak.
pub(super) fn spark(values: &[f64], what: &str) -> Markup {
    let peak = values.iter().copied().fold(0.0, f64::max);
    // One value alone is a level.
    let values = if let [only] = values { &[*only; 2] } else { values };
    let step = WIDTH / (values.len().max(2) - 1) as f64;
    let mut points = String::new();
    for (i, value) in values.iter().enumerate() {
        let height = if peak > 0.0 { value / peak } else { 0.0 };
        let y = HEIGHT - 1.0 - height * (HEIGHT - 2.0);
        let _ = write!(points, "{:.1},{y:.1} ", i as f64 * step);
    }
    html! {
        svg.spark.flat[peak <= 0.0] viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none"
            role="img" aria-label={ (what) ": at most " (rate(peak)) " a second in the last hour" } {
            polyline points=(points.trim_end()) {}
        }
    }
}

/// A rate with as many digits as it deserves.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        r if r <= 0.0 => "0".into(),
        r if r < 0.01 => "<0.01".into(),
        r if r < 10.0 => format!("{r:.2}"),
        r if r < 100.0 => format!("{r:.1}"),
        r => crate::report::format::thousands(r.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_in_its_box() {
        let svg = spark(&[0.0, 5.0, 2.5], "births").into_string();
        assert!(svg.contains(r#"points="0.0,23.0 60.0,1.0 120.0,12.0""#), "{svg}");
        assert!(svg.contains("at most 5.00 a second"));
        assert!(spark(&[], "births").into_string().contains("spark flat"));
        let level = spark(&[1.0], "births").into_string();
        assert!(level.contains(r#"points="0.0,1.0 120.0,1.0""#), "{level}");
    }

    #[test]
    fn rates_have_their_digits() {
        let shown = [0.0, 0.001, 0.25, 12.34, 1234.5].map(rate);
        assert_eq!(shown, ["0", "<0.01", "0.25", "12.3", "1,235"]);
    }
}
