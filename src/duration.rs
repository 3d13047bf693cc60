//! Durations as people write them: numbers with units, one after the other, as Go's `time.ParseDuration` reads them.

use std::time::Duration;

/// Reads a duration such as `50ms`, `1.5s`, `1m30s` or `0`; it has no sign.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end)?;
        seconds += number.parse::<f64>().ok()?
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = next;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

/// A duration of a flag or of the configuration file.
///
/// # Errors
/// It is none, or longer than a day.
pub(crate) fn up_to_a_day(text: &str) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(86_400);
    let form =
        || "give a number with its unit, such as 50ms, 2s, 10m or 2h, up to a day".to_owned();
    parse(text).filter(|duration| *duration <= DAY).ok_or_else(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("1s", Some(1.0)),
            ("1m30.5s", Some(90.5)),
            ("250ms", Some(0.25)),
            ("0", Some(0.0)),
            ("", None),
            ("1", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("\u{fc}s", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(parse(text).map(|d| d.as_secs_f64()), expected, "{text}");
        }
    }

    #[test]
    fn no_flag_waits_for_more_than_a_day() {
        assert_eq!(up_to_a_day("24h"), Ok(Duration::from_secs(86_400)));
        for text in ["25h", "24h1ms", "50", "1mh", ""] {
            assert!(up_to_a_day(text).is_err(), "{text}");
        }
    }
}
