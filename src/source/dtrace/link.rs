//! Separates dtrace's output from that of the link (ssh(1), a banner, a login shell) on the pipes of
//! `--dtrace.command`. The link's text goes to the log, each text once, and never to the pipeline, where it would count
//! as bad lines and drops.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memchr;

use super::output::{StdoutLines, log_message};
use super::process::PipeSink;
use crate::model::{KernelTime, MonoTime};
use crate::source::message::TextLane;
use crate::wire::decode::decode;
use crate::wire::drops;
use crate::wire::lines::{Line, Lines, MAX_LINE};
use crate::wire::record::Record;
use crate::wire::records::MESSAGE;

/// So many texts are remembered; further ones are not logged until dtrace begins (again).
const MOST: usize = 64;
/// So many bytes of a text are logged.
const LONGEST: usize = 256;

/// By so much, in nanoseconds, a host's clock may be set without that being taken for a boot.
const CLOCK_SET_NS: u64 = 60_000_000_000;

/// Parts of messages that ask for an action of the operator's, and what to do.
const ADVICE: [(&[&str], &str); 5] = [
    (
        &["permission denied", "password", "authentication failures"],
        "give the exporter's user a key for that host: nobody can type a password here, and with -o BatchMode=yes ssh does \
         not ask",
    ),
    (
        &["host key verification failed", "identification has changed"],
        "compare that host's key, and put it into known_hosts of the exporter's user",
    ),
    (
        &["not found", "no such file"],
        "name dtrace by its path on that host: ssh -T root@HOST /usr/sbin/dtrace",
    ),
    (
        &["could not resolve", "refused", "timed out", "no route", "unreachable"],
        "that host, or the way to it, is down; it is tried again",
    ),
    (
        &["closed", "reset", "broken pipe", "not responding", "disconnect"],
        "the link is cut; what happens until it is back is undecided, and it is tried again",
    ),
];

/// One link: which of its texts were logged, and what is known of the host behind it. Clones share that.
#[derive(Clone)]
pub(super) struct Link(Arc<LinkInner>);

struct LinkInner {
    /// How the log calls it.
    name: String,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    logged: BTreeSet<String>,
    /// dtrace has begun. Until then a message that only begins like one of dtrace's is a shell's, which has not found it.
    begun: bool,
    /// The two clocks of that host at the last record B: `timestamp` and `walltimestamp`.
    clocks: Option<(KernelTime, u64)>,
}

impl Link {
    /// The link to `host`; empty for the only one.
    pub(super) fn new(host: &str) -> Link {
        let name = if host.is_empty() { "link".to_owned() } else { format!("link to {host}") };
        Link(Arc::new(LinkInner { name, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a line, unless it is empty, dtrace's own, or was logged before.
    pub(super) fn take(&self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() || is_dtraces(line) {
            return;
        }
        let text = printable(line);
        let mut state = self.state();
        if state.logged.contains(&text) || state.logged.len() == MOST {
            return;
        }
        match advice(&text) {
            Some(advice) => tracing::warn!("{}: {text}; {advice}", self.0.name),
            None => tracing::info!("{}: {text}", self.0.name),
        }
        state.logged.insert(text);
    }

    /// Whether that host was booted since dtrace began the last time, now that it begins with this line.
    fn was_booted(&self, line: &[u8]) -> bool {
        let mut begun = None;
        let _ = decode(line, |record| {
            if let Record::Begin { at, wall } = record {
                begun = Some((at, wall));
            }
        });
        let Some(now) = begun else { return false };
        let last = self.state().clocks.replace(now);
        last.is_some_and(|last| KernelTime::has_jumped(last, now, CLOCK_SET_NS))
    }

    /// Whether a message that is not known may be dtrace's.
    fn is_message(&self, line: &[u8]) -> bool {
        line.starts_with(MESSAGE) && self.state().begun
    }

    /// dtrace is started.
    pub(super) fn starts(&self) {
        self.state().begun = false;
    }

    /// dtrace has begun: what comes from here on is news.
    fn begun(&self) {
        let mut state = self.state();
        state.begun = true;
        state.logged.clear();
    }
}

/// Whether this is a message that dtrace(1) has.
fn is_dtraces(line: &[u8]) -> bool {
    line.starts_with(MESSAGE) && drops::message(line) != Some(drops::StderrMessage::Unknown)
}

/// The text in one line without control characters.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.get(..LONGEST).unwrap_or(line)).into_owned();
    text.chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}

/// What the operator is to do about a message of ssh(1) or of a login shell, if anything.
fn advice(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    let (_, advice) = ADVICE.iter().find(|(words, _)| words.iter().any(|w| text.contains(w)))?;
    Some(advice)
}

/// What comes before dtrace's first record, which is the link's.
pub(crate) struct Banner {
    link: Link,
    /// A part of a line, until dtrace has begun.
    before: Option<Vec<u8>>,
}

impl Banner {
    /// That of the link to `host`; empty for the only one.
    pub(crate) fn new(host: &str) -> Banner {
        Banner::of(Link::new(host))
    }

    fn of(link: Link) -> Banner {
        Banner { link, before: Some(Vec::new()) }
    }

    /// What dtrace has printed of these bytes: its first line, when it comes, and what follows it.
    pub(crate) fn strip<'a>(&mut self, bytes: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
        let Some(mut line) = self.before.take() else { return (Vec::new(), bytes) };
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let (whole, behind) = rest.split_at(end + 1);
            rest = behind;
            line.extend_from_slice(whole);
            if is_record(line.trim_ascii_end()) {
                self.link.begun();
                return (line, rest);
            }
            self.pass(&line);
            line.clear();
        }
        line.extend_from_slice(rest);
        // A longer line is no record, and its end will be none either.
        line.truncate(MAX_LINE);
        self.before = Some(line);
        (Vec::new(), &[])
    }

    /// A line before the first record. Both pipes may come as one (`2>&1`).
    fn pass(&self, line: &[u8]) {
        match is_dtraces(line) {
            true => log_message(line.trim_ascii()),
            false => self.link.take(line),
        }
    }

    fn has_begun(&self) -> bool {
        self.before.is_none()
    }
}

/// The stdout of a command, without the banner.
pub(super) struct LinkRecords {
    records: StdoutLines,
    banner: Banner,
    /// Called if that host was booted since dtrace began the last time, before its first record is passed on.
    booted: Box<dyn Fn() + Send>,
}

impl LinkRecords {
    pub(super) fn new(
        records: StdoutLines,
        link: Link,
        booted: impl Fn() + Send + 'static,
    ) -> LinkRecords {
        LinkRecords { records, banner: Banner::of(link), booted: Box::new(booted) }
    }
}

impl PipeSink for LinkRecords {
    fn take(&mut self, at: MonoTime, bytes: &[u8]) -> bool {
        let (first, rest) = self.banner.strip(bytes);
        if !first.is_empty() && self.banner.link.was_booted(first.trim_ascii_end()) {
            (self.booted)();
        }
        for bytes in [first.as_slice(), rest].into_iter().filter(|bytes| !bytes.is_empty()) {
            self.records.take(at, bytes);
        }
        self.banner.has_begun()
    }

    fn end(&mut self, at: MonoTime) {
        if let Some(line) = self.banner.before.take() {
            self.banner.pass(&line);
        }
        self.records.end(at);
    }
}

fn is_record(line: &[u8]) -> bool {
    let mut records = 0;
    decode(line, |_| records += 1).is_ok() && records > 0
}

/// The stderr of a command: lines of dtrace's go to the pipeline and to the log, others are the link's.
pub(super) struct LinkMessages {
    lane: TextLane,
    lines: Lines,
    link: Link,
}

impl LinkMessages {
    pub(super) fn new(lane: TextLane, link: Link) -> LinkMessages {
        LinkMessages { lane, lines: Lines::default(), link }
    }
}

impl PipeSink for LinkMessages {
    fn take(&mut self, at: MonoTime, bytes: &[u8]) -> bool {
        let LinkMessages { lane, lines, link } = self;
        lines.feed(bytes, |line| match line {
            Line::Whole(line) if is_dtraces(line) || link.is_message(line) => {
                lane.send(at, &[line, b"\n"].concat());
                log_message(line);
            }
            Line::Whole(line) => link.take(line),
            Line::TooLong => link.take(b"(a line longer than any message)"),
        });
        false
    }

    fn end(&mut self, at: MonoTime) {
        self.lines.finish();
        self.lane.finish(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::inbox::inbox;
    use crate::source::message::{Stream, text_of};

    /// What reaches the pipeline of these bytes, cut in two at every place.
    fn passed<D: PipeSink>(drain: impl Fn(TextLane) -> D, stream: Stream, bytes: &[u8]) -> String {
        let mut whole = None;
        for cut in 0..=bytes.len() {
            let (to, from) = inbox(64);
            let mut drain = drain(TextLane::new(stream, 64, to));
            let (head, tail) = bytes.split_at(cut);
            drain.take(MonoTime(1), head);
            drain.take(MonoTime(2), tail);
            drain.end(MonoTime(3));
            drop(drain);
            let text = text_of(&from);
            assert_eq!(*whole.get_or_insert_with(|| text.clone()), text, "cut at {cut}");
        }
        whole.unwrap_or_default()
    }

    #[test]
    fn what_comes_before_the_first_record_is_the_links() {
        let records = |lane| {
            LinkRecords::new(StdoutLines::new(lane, Arc::new(|| ())), Link::new("old"), || ())
        };
        let noise = "Willkommen auf old!\r\n\nB\u{fc}ro\nB x\nlast: 0,15, 0,10\n";
        let text = format!("{noise}B 1 2\nC 5 0 6 5 5 14\nload 0,15\nT 9");
        let text = passed(records, Stream::Stdout, text.as_bytes());
        assert_eq!(text, "B 1 2\nC 5 0 6 5 5 14\nload 0,15\nT 9", "later it is an error");
        let long = [&[b'B'; 9000][..], b"\nB 1 2\n"].concat();
        let mut drain = records(TextLane::new(Stream::Stdout, 0, inbox(0).0));
        assert!(!drain.take(MonoTime(1), &long[..8000]) && drain.take(MonoTime(1), &long[8000..]));
        assert_eq!(passed(records, Stream::Stdout, b"no dtrace here\nB 1"), "");
    }

    #[test]
    fn a_boot_is_known_by_its_time_and_not_by_a_clock_that_is_set() {
        let link = Link::new("old");
        let begin = |uptime: u64, wall: u64| {
            link.was_booted(
                format!("B {} {}", uptime * 1_000_000_000, wall * 1_000_000_000).as_bytes(),
            )
        };
        assert!(!begin(100, 1000), "the first time");
        assert!(!begin(500, 1400) && !begin(600, 1530), "the clock was set by half a minute");
        assert!(begin(700, 2000), "it has been up for longer than before, and yet was booted");
        assert!(!begin(800, 2100) && !link.was_booted(b"T 5 5") && begin(1, 9000));
        const MONTH: u64 = 30 * 86_400;
        assert!(!begin(1 + MONTH, 9000 + MONTH + 259), "the clocks drift apart by 100 ppm");
    }

    #[test]
    fn only_dtraces_own_messages_are_messages() {
        let messages = |lane| LinkMessages::new(lane, Link::new(""));
        let text = b"Warning: Permanently added 'old' (RSA) to the list of known hosts.\r\n\
            dtrace: 6 drops on CPU 0\nbash: Warnung: setlocale\nConnection to old closed by remote host.\r\n";
        assert_eq!(passed(messages, Stream::Stderr, text), "dtrace: 6 drops on CPU 0\n");
        let begun = Link::new("");
        let messages = |lane| LinkMessages::new(lane, begun.clone());
        let text = b"dtrace: Command not found.\n";
        assert_eq!(passed(messages, Stream::Stderr, text), "", "a shell's");
        begun.begun();
        assert_eq!(
            passed(messages, Stream::Stderr, text).as_bytes(),
            text,
            "it may be about drops"
        );
    }

    #[test]
    fn a_text_is_logged_once_and_never_more_than_are_kept() {
        let link = Link::new("old");
        for n in 0..1000 {
            link.take(format!("line {n}").as_bytes());
            link.take(&[b'x'; 9999]);
        }
        let logged = &link.state().logged;
        assert_eq!(logged.len(), MOST);
        assert!(logged.iter().all(|text| text.len() <= LONGEST));
    }

    #[test]
    fn messages_of_ssh_say_what_to_do() {
        for (text, word) in [
            ("root@old: Permission denied (publickey,keyboard-interactive).", "key"),
            ("Host key verification failed.", "known_hosts"),
            ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @", "known_hosts"),
            ("ssh: Could not resolve hostname old: Name or service not known", "down"),
            ("ssh: connect to host old port 22: Connection refused", "down"),
            ("client_loop: send disconnect: Broken pipe", "cut"),
            ("Connection to old closed by remote host.", "cut"),
            ("Timeout, server old not responding.", "cut"),
            ("sh: dtrace: not found", "path"),
            ("dtrace: Command not found.", "path"),
        ] {
            assert!(advice(text).is_some_and(|advice| advice.contains(word)), "{text}");
        }
        assert_eq!(advice("Pseudo-terminal will not be allocated"), None);
    }
}
