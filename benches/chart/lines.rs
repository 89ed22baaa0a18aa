//! A chart of lines through points.

use plotters::prelude::*;

use super::{Area, Outcome, colour, short};

/// An axis.
pub(crate) struct Axis {
    pub(crate) label: String,
    /// Logarithmic; otherwise linear from 0.
    pub(crate) log: bool,
}

/// The points of one line, from left to right.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Corner of the legend: one that few lines cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Corner {
    UpperLeft,
    UpperRight,
    LowerRight,
}

/// The chart.
pub(crate) struct Lines {
    pub(crate) title: String,
    pub(crate) names: Corner,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// The points of a line are marked if it has at most this many.
const MARKED: usize = 40;

impl Axis {
    /// The position of a value on the axis.
    fn place(&self, value: f64) -> f64 {
        if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    fn label_at(&self, place: f64) -> String {
        short(if self.log { 10_f64.powf(place) } else { place })
    }

    /// The range that the axis must show for these values.
    fn range(&self, values: impl Iterator<Item = f64> + Clone) -> std::ops::Range<f64> {
        let places = values.map(|value| self.place(value));
        let (least, most) = (places.clone().fold(f64::MAX, f64::min), places.fold(f64::MIN, f64::max));
        match (self.log, least <= most) {
            (_, false) => 0.0..1.0,
            (true, true) => least - 0.1..most.max(least + 0.2) + 0.1,
            (false, true) => least.min(0.0)..(most * 1.3).max(f64::MIN_POSITIVE),
        }
    }
}

impl Lines {
    pub(super) fn draw(&self, area: &Area<'_>) -> Outcome {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let (x, y) = (self.x.range(points().map(|point| point.0)), self.y.range(points().map(|point| point.1)));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 15))
            .margin(8)
            .margin_right(16)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(6)
            .y_labels(6)
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|place| self.x.label_at(*place))
            .y_label_formatter(&|place| self.y.label_at(*place))
            .draw()?;
        for (number, series) in self.series.iter().enumerate() {
            let style = colour(number).stroke_width(2);
            let places = series.points.iter().map(|(x, y)| (self.x.place(*x), self.y.place(*y)));
            chart
                .draw_series(LineSeries::new(places.clone(), style))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            if series.points.len() <= MARKED {
                chart.draw_series(places.map(|place| Circle::new(place, 3, style.filled())))?;
            }
        }
        if self.series.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            labels.position(match self.names {
                Corner::UpperLeft => SeriesLabelPosition::UpperLeft,
                Corner::UpperRight => SeriesLabelPosition::UpperRight,
                Corner::LowerRight => SeriesLabelPosition::LowerRight,
            });
            labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
        }
        Ok(())
    }
}
