//! How dtrace(1) is to be run: what an operator may choose.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::policy::RestartLimits;
use super::{KeeperJob, KeeperScope};

/// How dtrace(1) is to be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DtraceOptions {
    /// Its path; `None` for `/usr/sbin/dtrace`.
    pub path: Option<PathBuf>,
    /// The words of a command that runs it instead, on another host.
    pub command: Option<Vec<String>>,
    /// Its principal buffer on each CPU.
    pub bufsize: BufferSize,
    /// How often it reads its buffers.
    pub switchrate: Switchrate,
    /// Whether to run the cause probes, if they compile.
    pub causes: bool,
    /// How long a trial compilation may take.
    pub compile: Duration,
    /// How patient to be with it.
    pub limits: RestartLimits,
}

impl Default for DtraceOptions {
    fn default() -> DtraceOptions {
        DtraceOptions {
            path: None,
            command: None,
            bufsize: BufferSize("8m".to_owned()),
            switchrate: Switchrate { text: "10hz".to_owned(), period_ns: 100_000_000 },
            causes: true,
            compile: Duration::from_secs(120),
            limits: RestartLimits::default(),
        }
    }
}

impl DtraceOptions {
    /// What a keeper is to do with them.
    pub(crate) fn job(&self, scope: KeeperScope) -> KeeperJob {
        let DtraceOptions { path, bufsize, switchrate, compile, .. } = self.clone();
        let KeeperScope { trees: marks, pid_files, consumers } = scope;
        KeeperJob { dtrace: path, bufsize, switchrate, marks, compile, pid_files, consumers }
    }
}

/// A size as dtrace(1) takes it, such as `8m`. It takes less by itself if memory is short.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BufferSize(String);

impl BufferSize {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BufferSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<BufferSize, &'static str> {
        let is_size = is_option_value(text, &["", "k", "m", "g"]);
        is_size.then(|| BufferSize(text.to_owned())).ok_or("give a size for dtrace, such as 8m")
    }
}

/// A rate or a period as dtrace(1) takes it, such as `10hz` or `100ms`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Switchrate {
    text: String,
    period_ns: u64,
}

impl Switchrate {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The time between two readings of a buffer, in nanoseconds.
    pub(crate) fn period_ns(&self) -> u64 {
        self.period_ns
    }
}

impl FromStr for Switchrate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Switchrate, &'static str> {
        let period_ns = period_ns(text).ok_or("give a rate for dtrace, such as 10hz")?;
        Ok(Switchrate { text: text.to_owned(), period_ns })
    }
}

/// What a rate is as a period (`lib/libdtrace/common/dt_options.c`, `dt_opt_rate`).
fn period_ns(rate: &str) -> Option<u64> {
    if !is_option_value(rate, &["hz", "ms", "us", "ns", "s", "sec", "msec"]) {
        return None;
    }
    let unit = rate.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = rate.strip_suffix(unit)?.parse().ok()?;
    Some(match unit.to_ascii_lowercase().as_str() {
        "hz" => 1_000_000_000 / number,
        "ns" => number,
        "us" => number * 1000,
        "ms" | "msec" => number * 1_000_000,
        _ => number * 1_000_000_000,
    })
}

/// Whether dtrace(1) takes this for the value of a size or a rate: digits and a unit (`8m`, `10hz`).
fn is_option_value(value: &str, units: &[&str]) -> bool {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = value.strip_prefix(digits).unwrap_or_default().to_ascii_lowercase();
    let is_number = digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() < 10;
    is_number && digits.bytes().any(|b| b != b'0') && units.contains(&unit.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_unit() {
        for good in ["8m", "65536", "4K"] {
            assert_eq!(good.parse::<BufferSize>().expect(good).as_str(), good);
        }
        for bad in ["", "m", "0", "8x", "8 m", "8m\nBEGIN", "-1", "99999999999m"] {
            assert!(bad.parse::<BufferSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_a_period() {
        for (rate, ns) in [
            ("10hz", Some(100_000_000)),
            ("2Hz", Some(500_000_000)),
            ("50ms", Some(50_000_000)),
            ("1sec", Some(1_000_000_000)),
            ("7us", Some(7000)),
            ("10", None),
            ("0hz", None),
        ] {
            assert_eq!(rate.parse::<Switchrate>().ok().map(|rate| rate.period_ns()), ns, "{rate}");
        }
        let default = DtraceOptions::default().switchrate;
        assert_eq!(default.as_str().parse(), Ok(default));
    }
}
