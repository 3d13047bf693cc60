//! dtrace's stderr: the message grammar of dtrace(1), identical from 10.1 to 15 (libdtrace `dt_handle.c`).

use crate::model::named_enum;

named_enum! {
    /// What dtrace reports as not kept. Counts are of the time since its last report.
    pub enum DropKind {
        /// Records that did not fit a CPU's principal buffer.
        Principal = "principal",
        /// Aggregations that did not fit.
        Aggregation = "aggregation",
        /// Thread-local or associative variables that found no room.
        Dynamic = "dynamic",
        /// The same while the rinsing list was not empty.
        DynamicRinsing = "dynamic_rinsing",
        /// The same while the dirty list was not empty.
        DynamicDirty = "dynamic_dirty",
        /// Speculative records that did not fit.
        Speculative = "speculative",
        /// Speculations that failed because every buffer was still busy.
        SpeculationBusy = "speculation_busy",
        /// Speculations that failed because there was no buffer.
        SpeculationUnavailable = "speculation_unavailable",
        /// Stacks whose strings did not fit.
        StackStrings = "stack_strings",
        /// Errors while an ERROR probe ran.
        ErrorProbe = "error_probe",
        /// Errors in an action of ours: that record is missing.
        ProbeError = "probe_error",
    }
}

/// One line of dtrace's stderr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StderrMessage<'a> {
    /// Something was not kept: DTrace was blind.
    Drop {
        /// What.
        kind: DropKind,
        /// How many.
        count: u64,
    },
    /// dtrace could not begin, or gives up.
    Failure,
    /// Something to know that loses nothing (`buffer size lowered to 4m`).
    Notice(&'a str),
    /// Not in the grammar: taken for blindness, because it may be.
    Unknown,
}

/// Reads one line (without its newline). `None` for an empty one.
pub fn message(line: &[u8]) -> Option<StderrMessage<'_>> {
    let Ok(text) = std::str::from_utf8(line) else { return Some(StderrMessage::Unknown) };
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let text = text.strip_prefix("dtrace: ").unwrap_or(text);
    let text = untagged(text);
    Some(counted(text).or_else(|| without_count(text)).unwrap_or(StderrMessage::Unknown))
}

/// Without the tag that option droptags adds: `[DTRACEDROP_PRINCIPAL] `.
fn untagged(text: &str) -> &str {
    match text.strip_prefix("[DTRACEDROP_").and_then(|t| t.split_once("] ")) {
        Some((_, rest)) => rest,
        None => text,
    }
}

/// `N things[ on CPU n]`: dtrace says `thing` for 1 and `things` otherwise.
fn counted(text: &str) -> Option<StderrMessage<'static>> {
    let (count, what) = text.split_once(' ')?;
    let count = count.parse().ok()?;
    let what = match what.rsplit_once(" on CPU ") {
        Some((what, cpu)) => cpu.parse::<u32>().ok().map(|_| what)?,
        None => what,
    };
    let kind = match what {
        "drop" | "drops" => DropKind::Principal,
        "aggregation drop" | "aggregation drops" => DropKind::Aggregation,
        "speculative drop" | "speculative drops" => DropKind::Speculative,
        "jstack()/ustack() string table overflow" | "jstack()/ustack() string table overflows" => {
            DropKind::StackStrings
        }
        "error in ERROR probe enabling" | "errors in ERROR probe enabling" => DropKind::ErrorProbe,
        _ => dynamic(what).or_else(|| speculation(what))?,
    };
    Some(StderrMessage::Drop { kind, count })
}

fn dynamic(what: &str) -> Option<DropKind> {
    let rest = what.strip_prefix("dynamic variable drop")?;
    match rest.strip_prefix('s').unwrap_or(rest) {
        "" => Some(DropKind::Dynamic),
        " with non-empty rinsing list" => Some(DropKind::DynamicRinsing),
        " with non-empty dirty list" => Some(DropKind::DynamicDirty),
        _ => None,
    }
}

fn speculation(what: &str) -> Option<DropKind> {
    let rest = what.strip_prefix("failed speculation")?;
    match rest.strip_prefix('s').unwrap_or(rest) {
        " (no speculative buffer available)" => Some(DropKind::SpeculationUnavailable),
        busy if busy.starts_with(" (available buffer") => Some(DropKind::SpeculationBusy),
        _ => None,
    }
}

fn without_count(text: &str) -> Option<StderrMessage<'_>> {
    if text.starts_with("error on enabled probe ID ") {
        return Some(StderrMessage::Drop { kind: DropKind::ProbeError, count: 1 });
    }
    // Printed without -q: `script 'truth.d' matched 11 probes`.
    if text.contains("' matched ") && (text.ends_with(" probe") || text.ends_with(" probes")) {
        return Some(StderrMessage::Notice(text));
    }
    let failures = [
        "could not enable tracing",
        "failed to ",
        "invalid probe specifier",
        "processing aborted: ",
        "script ",
    ];
    if failures.iter().any(|f| text.starts_with(f)) {
        return Some(StderrMessage::Failure);
    }
    let notices = [" size lowered to ", " rate reduced to ", "allowing destructive actions"];
    notices.iter().any(|n| text.contains(n)).then_some(StderrMessage::Notice(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(kind: DropKind, count: u64) -> Option<StderrMessage<'static>> {
        Some(StderrMessage::Drop { kind, count })
    }

    #[test]
    fn every_message_of_the_grammar_is_typed() {
        use DropKind::*;
        let notice = |text| Some(StderrMessage::Notice(text));
        for (line, expected) in [
            ("12 drops on CPU 0", drop(Principal, 12)),
            ("1 drop on CPU 3", drop(Principal, 1)),
            ("[DTRACEDROP_PRINCIPAL] 12 drops on CPU 0", drop(Principal, 12)),
            ("5 aggregation drops on CPU 1", drop(Aggregation, 5)),
            ("7 dynamic variable drops", drop(Dynamic, 7)),
            ("1 dynamic variable drop", drop(Dynamic, 1)),
            ("7 dynamic variable drops with non-empty rinsing list", drop(DynamicRinsing, 7)),
            ("7 dynamic variable drops with non-empty dirty list", drop(DynamicDirty, 7)),
            ("3 speculative drops", drop(Speculative, 3)),
            ("2 failed speculations (available buffer(s) still busy)", drop(SpeculationBusy, 2)),
            (
                "1 failed speculation (no speculative buffer available)",
                drop(SpeculationUnavailable, 1),
            ),
            ("4 jstack()/ustack() string table overflows", drop(StackStrings, 4)),
            ("1 error in ERROR probe enabling", drop(ErrorProbe, 1)),
            (
                "error on enabled probe ID 3 (ID 812: proc:::create): invalid address (0x0) in action #2",
                drop(ProbeError, 1),
            ),
            (
                "processing aborted: Abort due to systemic unresponsiveness",
                Some(StderrMessage::Failure),
            ),
            ("could not enable tracing: Permission denied", Some(StderrMessage::Failure)),
            (
                "failed to initialize dtrace: DTrace requires additional privileges",
                Some(StderrMessage::Failure),
            ),
            ("buffer size lowered to 4m", notice("buffer size lowered to 4m")),
            (
                "description 'tick-1s ' matched 1 probe",
                notice("description 'tick-1s ' matched 1 probe"),
            ),
            ("script 'truth.d' matched 11 probes", notice("script 'truth.d' matched 11 probes")),
            ("3 unknown things", Some(StderrMessage::Unknown)),
            ("3 drops on CPU x", Some(StderrMessage::Unknown)),
            ("99999999999999999999 drops on CPU 0", Some(StderrMessage::Unknown)),
        ] {
            assert_eq!(message(format!("dtrace: {line}").as_bytes()), expected, "{line}");
        }
        assert_eq!(message(b""), None);
        assert_eq!(message(b"\xff\0"), Some(StderrMessage::Unknown));
    }

    proptest::proptest! {
        #[test]
        fn no_message_panics(line: Vec<u8>) {
            let _ = message(&line);
        }
    }
}
