//! A chart of bars, side by side in groups, each with its value.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, Outcome, WIDTH, colour, short};

/// The chart: a bar for each series in each group that has a value.
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) series: Vec<String>,
    pub(crate) groups: Vec<(String, Vec<Option<f64>>)>,
}

/// Margin left of the bars, in pixels.
const LEFT: u32 = 56;

impl Bars {
    pub(super) fn draw(&self, area: &Area<'_>) -> Outcome {
        let values = self.groups.iter().flat_map(|(_, values)| values.iter().flatten());
        let most = values.fold(f64::MIN_POSITIVE, |most, value| most.max(*value));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(LEFT)
            .build_cartesian_2d((0..self.groups.len().saturating_sub(1)).into_segmented(), 0.0..most * 1.6)?;
        let name = |place: &SegmentValue<usize>| match place {
            SegmentValue::CenterOf(group) => self.groups.get(*group).map_or(String::new(), |group| group.0.clone()),
            SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(5)
            .y_desc(&self.unit)
            .x_label_formatter(&name)
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        let room = (WIDTH - LEFT - 16) / self.groups.len().max(1) as u32;
        let each = room * 4 / 5 / self.series.len().max(1) as u32;
        for (number, name) in self.series.iter().enumerate() {
            let style = colour(number).filled();
            // Pixels from the left of the group, and to its right.
            let left = room / 10 + each * number as u32;
            let right = room.saturating_sub(left + each);
            let bars = self.groups.iter().enumerate().filter_map(|(group, (_, values))| {
                let value = values.get(number).copied().flatten()?;
                let corners = [(SegmentValue::Exact(group), 0.0), (SegmentValue::Exact(group + 1), value)];
                let mut bar = Rectangle::new(corners, style);
                bar.set_margin(0, 0, left, right);
                Some(bar)
            });
            chart
                .draw_series(bars)?
                .label(name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 10, y + 4)], style));
            let font = ("sans-serif", 11).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Bottom));
            let offset = (left + each / 2) as i32 - room as i32 / 2;
            let told = self.groups.iter().enumerate().filter_map(|(group, (_, values))| {
                let value = values.get(number).copied().flatten()?;
                let text = Text::new(short(value), (offset, -2), font.clone());
                Some(EmptyElement::at((SegmentValue::CenterOf(group), value)) + text)
            });
            chart.draw_series(told)?;
        }
        if self.series.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            labels.position(SeriesLabelPosition::UpperRight);
            labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
        }
        Ok(())
    }
}
