//! `--log.*`: the flags of promslog.

use std::io::stderr;

use tracing::level_filters::LevelFilter;

/// What is logged, and how. Logs go to stderr.
#[derive(clap::Args, Clone, PartialEq, Debug)]
pub struct LogArgs {
    /// Least important messages that are logged.
    #[arg(long = "log.level", value_enum, default_value_t = Level::Info)]
    level: Level,

    /// One line a message: key=value pairs, or a JSON object.
    #[arg(long = "log.format", value_enum, default_value_t = Format::Logfmt)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Debug)]
enum Format {
    Logfmt,
    Json,
}

impl LogArgs {
    /// Logs like this from now on.
    pub fn init(&self) {
        let level = match self.level {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error => LevelFilter::ERROR,
        };
        match self.format {
            Format::Logfmt => {
                use tracing_subscriber::layer::SubscriberExt;
                use tracing_subscriber::util::SubscriberInitExt;
                let layer = tracing_logfmt::builder().layer().with_writer(stderr);
                // A second initialisation is only possible in tests, where the first one serves as well.
                let _ = tracing_subscriber::registry().with(level).with(layer).try_init();
            }
            Format::Json => {
                let _ = tracing_subscriber::fmt()
                    .json()
                    .with_max_level(level)
                    .with_writer(stderr)
                    .try_init();
            }
        }
    }
}
