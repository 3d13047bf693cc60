//! `--log.*`: the flags and the format of the log, which are those of Prometheus' own programs.

use std::fmt;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;
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
        value_parser = level(),
        hide_possible_values = true
    )]
    level: Level,

    /// How to write it: logfmt, or json, an object a line
    #[arg(
        id = "log.format",
        long = "log.format",
        value_name = "FORMAT",
        default_value = "logfmt",
        hide_possible_values = true
    )]
    format: LogFormat,
}

/// How a message is written.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// `time=... level=INFO msg="..." key=value`
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// tracing's levels, but for the one that nothing is logged with.
fn level() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(["debug", "info", "warn", "error"])
        .try_map(|name| name.parse::<Level>())
}

impl LogArgs {
    /// Sends this process's log to stderr. Later calls change nothing.
    pub(crate) fn init(self) {
        let _ = tracing_subscriber::fmt()
            .with_max_level(self.level)
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
        let first =
            [("time", time.into()), ("level", level.into()), ("msg", fields.message.into())];
        let all = first.into_iter().chain(fields.others);
        match self {
            LogFormat::Logfmt => logfmt(&mut out, all),
            LogFormat::Json => json(&mut out, all),
        }
    }
}

/// The fields of an event, in their order. The message has no name of its own.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }
}

type FieldValue = (&'static str, Value);

fn logfmt(out: &mut Writer<'_>, fields: impl Iterator<Item = FieldValue>) -> fmt::Result {
    for (i, (name, value)) in fields.enumerate() {
        let separator = if i == 0 { "" } else { " " };
        match value {
            Value::String(text) if !must_be_quoted(&text) => {
                write!(out, "{separator}{name}={text}")?;
            }
            // As in JSON: nothing in it ends the line or the value.
            value => write!(out, "{separator}{name}={value}")?,
        }
    }
    out.write_char('\n')
}

fn must_be_quoted(text: &str) -> bool {
    text.is_empty() || text.contains(|c: char| c <= ' ' || c.is_control() || "=\"\\".contains(c))
}

fn json(out: &mut Writer<'_>, fields: impl Iterator<Item = FieldValue>) -> fmt::Result {
    for (i, (name, value)) in fields.enumerate() {
        let separator = if i == 0 { "{" } else { "," };
        write!(out, "{separator}\"{name}\":{value}")?;
    }
    out.write_str("}\n")
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
