//! Durations as flags and the configuration file have them.

use std::time::Duration;

/// A duration with its unit: `50ms`, `2s`, `10m`, `2h`. At most a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "give a number with its unit, such as 50ms, 2s, 10m or 2h, up to a day";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| FORM)?;
    let unit_ms = match text.strip_prefix(digits).unwrap_or_default() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(FORM.to_owned()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= 86_400_000).ok_or(FORM)?;
    Ok(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("50ms", 50), ("90s", 90_000), ("10m", 600_000), ("24h", 86_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "50", "-1s", "5d", "1mh", "25h", "\u{fc}s", "99999999999999999999s", "1.5s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
