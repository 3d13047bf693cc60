//! `--log.*`: the flags and the format of Prometheus' own programs.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format::Writer};
use tracing_subscriber::registry::LookupSpan;

use super::progress::AroundTheBar;

/// What is logged, and how. Logs go to stderr.
#[derive(clap::Args, Clone, Copy, PartialEq, Debug)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// Log messages of this severity and above: debug, info, warn, error
    #[arg(
        id = "log.level",
        long = "log.level",
        value_name = "LEVEL",
        default_value = "info",
        hide_possible_values = true
    )]
    pub level: LogLevel,

    /// How to write it: logfmt, or json, an object a line
    #[arg(
        id = "log.format",
        long = "log.format",
        value_name = "FORMAT",
        default_value = "logfmt",
        hide_possible_values = true
    )]
    pub format: LogFormat,
}

/// How severe a message is.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogLevel {
    /// What a developer of the exporter wants to see.
    Debug,
    /// What happened.
    Info,
    /// What went wrong and is borne.
    Warn,
    /// What an operator has to act on.
    Error,
}

/// How a message is written.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// `time=... level=INFO msg="..." key=value`
    Logfmt,
    /// One JSON object a line.
    Json,
}

impl LogArgs {
    /// Sends this process's log to stderr. Later calls change nothing.
    pub(crate) fn init(self) {
        let level = match self.level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
            LogLevel::Error => Level::ERROR,
        };
        let _ = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(|| AroundTheBar)
            // They would be written by eprintln!, which panics if stderr cannot be written.
            .log_internal_errors(false)
            .event_format(self.format)
            .try_init();
    }
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level().as_str();
        let first = [("time", Value::Text(time)), ("level", Value::Text(level.into()))];
        let message = ("msg", Value::Text(fields.message));
        let all = first.into_iter().chain([message]).chain(fields.others);
        match self {
            LogFormat::Logfmt => logfmt(&mut out, all),
            LogFormat::Json => json(&mut out, all),
        }
    }
}

/// A field's value: text is quoted if it must be, anything else never.
enum Value {
    Text(String),
    Plain(String),
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Plain(value.to_string()));
    }
}

fn logfmt(
    out: &mut Writer<'_>,
    fields: impl Iterator<Item = (&'static str, Value)>,
) -> fmt::Result {
    for (i, (name, value)) in fields.enumerate() {
        let separator = if i == 0 { "" } else { " " };
        match value {
            Value::Text(text) if must_be_quoted(&text) => {
                write!(out, "{separator}{name}={}", quoted(&text)?)?;
            }
            Value::Text(text) | Value::Plain(text) => write!(out, "{separator}{name}={text}")?,
        }
    }
    out.write_char('\n')
}

fn must_be_quoted(text: &str) -> bool {
    text.is_empty() || text.contains(|c: char| c <= ' ' || c.is_control() || "=\"\\".contains(c))
}

fn json(out: &mut Writer<'_>, fields: impl Iterator<Item = (&'static str, Value)>) -> fmt::Result {
    for (i, (name, value)) in fields.enumerate() {
        let separator = if i == 0 { "{" } else { "," };
        match value {
            Value::Text(text) => write!(out, "{separator}\"{name}\":{}", quoted(&text)?)?,
            Value::Plain(text) => write!(out, "{separator}\"{name}\":{text}")?,
        }
    }
    out.write_str("}\n")
}

/// A JSON string: nothing in it ends the line or the value.
fn quoted(text: &str) -> Result<String, fmt::Error> {
    serde_json::to_string(text).map_err(|_| fmt::Error)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged behind the time.
    fn logged(format: LogFormat) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(format)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("bad \"thing\"\nlevel=FAKE");
            tracing::warn!(%error, count = 3, name = "a b", plain = "x", ok = true, "it broke");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.split_once("Z").unwrap().1.to_string()
    }

    #[test]
    fn logfmt_is_one_line_with_any_value() {
        assert_eq!(
            logged(LogFormat::Logfmt),
            " level=WARN msg=\"it broke\" error=\"bad \\\"thing\\\"\\nlevel=FAKE\" count=3 \
             name=\"a b\" plain=x ok=true\n"
        );
    }

    #[test]
    fn json_is_an_object_a_line() {
        let line = format!("{{\"time\":\"Z{}", logged(LogFormat::Json));
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["msg"], "it broke");
        assert_eq!(object["error"], "bad \"thing\"\nlevel=FAKE");
        assert_eq!(object["count"], 3);
        assert_eq!(line.lines().count(), 1);
    }
}
