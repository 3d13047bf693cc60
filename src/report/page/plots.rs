//! Plots as SVG text. Black is what the page's stylesheet turns into the colour of its text; the legend is the page's.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::LatencyBucket;
use super::chronicle::Generation;
use crate::report::format::duration;

type Failed<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;
type Drawn<'a> = Result<(), Failed<'a>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

const SIZE: (u32, u32) = (760, 240);
/// As many marks as plotters gives an axis by itself.
const MARKS: usize = 11;
const FONT: (&str, u32) = ("sans-serif", 13);

/// A line of a plot, or a layer of a stack.
pub(super) struct PlotSeries<'a> {
    pub(super) colour: RGBColor,
    pub(super) values: &'a [u64],
}

/// The axes of a plot; the upright one begins at 0.
struct Axes<'f> {
    x: Range<f64>,
    top: f64,
    /// How a place on each is written; empty for no mark.
    formats: [&'f dyn Fn(&f64) -> String; 2],
    /// How many marks each has at most.
    marks: [usize; 2],
}

impl Axes<'_> {
    /// Counts up to `height` in so many bins of time.
    fn of_bins(bin_seconds: f64, bins: usize, height: u64) -> Axes<'static> {
        Axes {
            x: 0.0..bins.max(1) as f64 * bin_seconds,
            top: height.max(1) as f64 * 1.05,
            formats: [&seconds, &number],
            marks: [MARKS, MARKS],
        }
    }

    /// Draws them and what `draw` adds into a string; empty if nothing can be drawn.
    fn with(self, draw: impl for<'a> FnOnce(&mut Chart<'a>) -> Drawn<'a>) -> String {
        let mut svg = String::new();
        let done = {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let drawn = self.on(&area).and_then(|mut chart| draw(&mut chart));
            drawn.and_then(|()| area.present()).is_ok()
        };
        if done { svg } else { String::new() }
    }

    fn on<'a>(self, area: &Area<'a>) -> Result<Chart<'a>, Failed<'a>> {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d(self.x, 0.0..self.top)?;
        let ([x_format, y_format], [x_marks, y_marks]) = (self.formats, self.marks);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .label_style(FONT)
            .x_labels(x_marks)
            .y_labels(y_marks)
            .x_label_formatter(&x_format)
            .y_label_formatter(&y_format)
            .draw()?;
        Ok(chart)
    }
}

fn seconds(value: &f64) -> String {
    format!("{value:.1} s").replace(".0 s", " s")
}

fn number(value: &f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { String::new() }
}

/// Bars over time, one layer upon the other.
pub(super) fn stacked(bin_seconds: f64, layers: &[PlotSeries<'_>]) -> String {
    let bins = layers.iter().map(|layer| layer.values.len()).max().unwrap_or(0);
    let at = |layer: &PlotSeries<'_>, i: usize| layer.values.get(i).copied().unwrap_or(0);
    let height =
        (0..bins).map(|i| layers.iter().map(|layer| at(layer, i)).sum::<u64>()).max().unwrap_or(0);
    Axes::of_bins(bin_seconds, bins, height).with(|chart| {
        for i in 0..bins {
            let (left, right) = (i as f64 * bin_seconds, (i + 1) as f64 * bin_seconds);
            let mut low = 0;
            for layer in layers {
                let high = low + at(layer, i);
                if high > low {
                    let corners = [(left, low as f64), (right, high as f64)];
                    chart.draw_series([Rectangle::new(corners, layer.colour.filled())])?;
                }
                low = high;
            }
        }
        Ok(())
    })
}

/// Levels over time, as steps.
pub(super) fn steps(bin_seconds: f64, lines: &[PlotSeries<'_>]) -> String {
    let bins = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let height = lines.iter().flat_map(|line| line.values).copied().max().unwrap_or(0);
    Axes::of_bins(bin_seconds, bins, height).with(|chart| {
        // The first one on top, and thinner: two that are the same are both seen.
        for (i, line) in lines.iter().enumerate().rev() {
            let points =
                line.values.iter().enumerate().flat_map(|(i, value)| {
                    [i, i + 1].map(|i| (i as f64 * bin_seconds, *value as f64))
                });
            chart.draw_series(LineSeries::new(
                points,
                line.colour.stroke_width(if i == 0 { 2 } else { 4 }),
            ))?;
        }
        Ok(())
    })
}

/// Two histograms over the same power-of-two buckets, side by side in each: upper end in nanoseconds, and the counts.
pub(super) fn latency_bars(buckets: &[LatencyBucket], colours: [RGBColor; 2]) -> String {
    let height = buckets.iter().map(|bucket| bucket.child.max(bucket.exit)).max().unwrap_or(0);
    let label = ends(buckets);
    let axes = Axes {
        x: 0.0..buckets.len().max(1) as f64,
        top: height.max(1) as f64 * 1.05,
        formats: [&label, &number],
        marks: [buckets.len().clamp(2, 9), MARKS],
    };
    axes.with(|chart| {
        for (i, bucket) in buckets.iter().enumerate() {
            for (left, value, colour) in
                [(0.08, bucket.child, colours[0]), (0.5, bucket.exit, colours[1])]
            {
                let left = i as f64 + left;
                let corners = [(left, 0.0), (left + 0.42, value as f64)];
                chart.draw_series([Rectangle::new(corners, colour.filled())])?;
            }
        }
        Ok(())
    })
}

/// The share of notes that had come after so long.
pub(super) fn latency_cdf(buckets: &[LatencyBucket], colours: [RGBColor; 2]) -> String {
    let label = ends(buckets);
    let share = |value: &f64| format!("{:.0} %", value * 100.0);
    let axes = Axes {
        x: 0.0..buckets.len().max(1) as f64,
        top: 1.02,
        formats: [&label, &share],
        marks: [buckets.len().clamp(2, 9), 5],
    };
    axes.with(|chart| {
        let child: Vec<u64> = buckets.iter().map(|bucket| bucket.child).collect();
        let exit: Vec<u64> = buckets.iter().map(|bucket| bucket.exit).collect();
        for (counts, colour) in [child, exit].into_iter().zip(colours) {
            let total: u64 = counts.iter().sum();
            let mut seen = 0;
            let points = counts.iter().enumerate().map(|(i, n)| {
                seen += n;
                ((i + 1) as f64, seen as f64 / total.max(1) as f64)
            });
            let points = std::iter::once((0.0, 0.0)).chain(points);
            if total > 0 {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            }
        }
        Ok(())
    })
}

/// How the ends of buckets are written: bucket `i` lies between `i` and `i + 1`.
fn ends(buckets: &[LatencyBucket]) -> impl Fn(&f64) -> String {
    let first = buckets.first().map_or(1, |bucket| bucket.end_ns);
    move |place| {
        let power = *place - 1.0;
        if place.fract() != 0.0 || !(-1.0..64.0).contains(&power) {
            return String::new();
        }
        if power < 0.0 { "0".to_owned() } else { duration((first as f64 * power.exp2()) as u64) }
    }
}

/// NOTE_CHILD kevents for each birth, by generation.
pub(super) fn generations(generations: &[Generation], colour: RGBColor) -> String {
    let each = |g: &Generation| g.notes as f64 / g.births.max(1) as f64;
    let height = generations.iter().map(each).fold(1.0, f64::max);
    let label = |value: &f64| match value.fract() == 0.0 && *value >= 1.0 {
        true => format!("generation {value}"),
        false => String::new(),
    };
    let axes = Axes {
        x: 0.5..generations.len().max(1) as f64 + 0.5,
        top: height * 1.1,
        formats: [&label, &number],
        marks: [generations.len().clamp(2, 8), MARKS],
    };
    axes.with(|chart| {
        for (i, generation) in generations.iter().enumerate() {
            let (place, value) = ((i + 1) as f64, each(generation));
            let corners = [(place - 0.3, 0.0), (place + 0.3, value)];
            chart.draw_series([Rectangle::new(corners, colour.filled())])?;
            let text = format!("{value:.1}").replace(".0", "");
            let style = FONT
                .into_text_style(chart.plotting_area())
                .pos(Pos::new(HPos::Center, VPos::Bottom));
            chart.draw_series([Text::new(text, (place, value), style)])?;
        }
        Ok(())
    })
}
