//! OpenMetrics 1.0 text of the families of a page. The `prometheus` crate writes only format 0.0.4.

use std::fmt::{self, Write};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// Appends the whole exposition, `# EOF` included.
pub(crate) fn encode(families: &[MetricFamily], out: &mut String) -> fmt::Result {
    for family in families {
        let name = family.name();
        let (name, kind) = match family.get_field_type() {
            MetricType::COUNTER => (name.strip_suffix("_total").unwrap_or(name), "counter"),
            MetricType::HISTOGRAM => (name, "histogram"),
            _ => (name, "gauge"),
        };
        writeln!(out, "# TYPE {name} {kind}")?;
        writeln!(out, "# HELP {name} {}", Escaped(family.help()))?;
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::COUNTER => {
                    sample(out, name, "_total", metric, None, metric.get_counter().get_value())?
                }
                MetricType::HISTOGRAM => histogram(out, name, metric)?,
                _ => sample(out, name, "", metric, None, metric.get_gauge().get_value())?,
            }
        }
    }
    out.write_str("# EOF\n")
}

fn histogram(out: &mut String, name: &str, metric: &Metric) -> fmt::Result {
    let histogram = metric.get_histogram();
    for bucket in histogram.get_bucket() {
        let count = bucket.cumulative_count() as f64;
        sample(out, name, "_bucket", metric, Some(bucket.upper_bound()), count)?;
    }
    let count = histogram.get_sample_count() as f64;
    sample(out, name, "_bucket", metric, Some(f64::INFINITY), count)?;
    sample(out, name, "_count", metric, None, count)?;
    sample(out, name, "_sum", metric, None, histogram.get_sample_sum())
}

fn sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    metric: &Metric,
    le: Option<f64>,
    value: f64,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let mut separator = '{';
    for pair in metric.get_label() {
        label(out, separator, pair)?;
        separator = ',';
    }
    match le {
        // The format wants the canonical float: 1.0, not 1.
        Some(le) if le.is_finite() => write!(out, "{separator}le=\"{le:?}\"}}")?,
        Some(_) => write!(out, "{separator}le=\"+Inf\"}}")?,
        None if separator == ',' => out.write_char('}')?,
        None => {}
    }
    writeln!(out, " {value}")
}

fn label(out: &mut String, separator: char, pair: &LabelPair) -> fmt::Result {
    write!(out, "{separator}{}=\"{}\"", pair.name(), Escaped(pair.value()))
}

/// A label value or a help text with backslash, quote and newline escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
