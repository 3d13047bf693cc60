//! The pages of /metrics: a snapshot is encoded once in each format, plain and gzipped, and served until the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use hyper::body::Bytes;
use prometheus::TextEncoder;

use super::collect::families;
use super::facts::Facts;
use super::openmetrics;
use super::process::ProcessUsage;
use crate::check::stats::Stats;

/// How long a page is served while its snapshot stays the newest: the age of `process_*` and `source_up` at most.
const FRESH: Duration = Duration::from_secs(1);

/// An exposition format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExpositionFormat {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl ExpositionFormat {
    /// The value of `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            ExpositionFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
            ExpositionFormat::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }
}

/// One snapshot in both formats, each plain and gzipped.
pub struct Rendered {
    stats: Arc<Stats>,
    made: Instant,
    text: Encoded,
    openmetrics: Encoded,
}

struct Encoded {
    plain: Bytes,
    gzip: Bytes,
}

impl Rendered {
    /// The page's bytes.
    pub(crate) fn bytes(&self, format: ExpositionFormat, gzip: bool) -> Bytes {
        let encoded = match format {
            ExpositionFormat::Text => &self.text,
            ExpositionFormat::OpenMetrics => &self.openmetrics,
        };
        if gzip { encoded.gzip.clone() } else { encoded.plain.clone() }
    }

    fn new(stats: Arc<Stats>, facts: &Facts) -> Result<Rendered, MetricsError> {
        let families = families(facts, &ProcessUsage::read());
        let text = TextEncoder::new().encode_to_string(&families)?;
        let mut open = String::with_capacity(text.len());
        openmetrics::encode(&families, &mut open)?;
        let (text, openmetrics) = (Encoded::new(text)?, Encoded::new(open)?);
        Ok(Rendered { stats, made: Instant::now(), text, openmetrics })
    }

    fn is_of(&self, stats: &Arc<Stats>) -> bool {
        Arc::ptr_eq(&self.stats, stats) && self.made.elapsed() < FRESH
    }
}

impl Encoded {
    fn new(text: String) -> io::Result<Encoded> {
        let gzip = gzip(text.as_bytes())?;
        Ok(Encoded { plain: text.into(), gzip })
    }
}

/// `bytes` in one gzip member, at the fastest level: a page of metrics is mostly repetition.
pub(crate) fn gzip(bytes: &[u8]) -> io::Result<Bytes> {
    let out = Vec::with_capacity(bytes.len() / 8);
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes)?;
    Ok(encoder.finish()?.into())
}

/// The newest page. The first request after a change makes it; the others wait for that, not for the ingest.
#[derive(Default)]
pub struct Pages(Mutex<Option<Arc<Rendered>>>);

impl Pages {
    /// The page of this snapshot.
    ///
    /// # Errors
    /// A metric that the `prometheus` crate refuses: a bug, found by the tests.
    pub fn get(
        &self,
        stats: &Arc<Stats>,
        facts: impl FnOnce() -> Facts,
    ) -> Result<Arc<Rendered>, MetricsError> {
        let mut newest: MutexGuard<'_, _> = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = newest.as_ref().filter(|page| page.is_of(stats)) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(Rendered::new(Arc::clone(stats), &facts())?);
        *newest = Some(Arc::clone(&page));
        Ok(page)
    }
}

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The encoder refused a metric.
    #[error("cannot encode the metrics: {0}")]
    Metric(#[from] prometheus::Error),
    /// Formatting failed.
    #[error("cannot write the metrics: {0}")]
    Format(#[from] fmt::Error),
    /// Compression failed.
    #[error("cannot compress the metrics: {0}")]
    Gzip(#[from] io::Error),
}
