//! A panel of a plot: layers over time, each labelled at its right end, and events as ticks.

use crate::canvas::{Anchor, Canvas, Colour, Pen, Point, Type};

/// Text and axes.
pub(crate) const INK: Colour = [0x33, 0x33, 0x33];
/// Lines behind everything.
const PALE: Colour = [0xdd, 0xdd, 0xdd];
/// Points kept per layer: more than a panel has pixels.
const POINTS: usize = 400;
/// Room beside the axes.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 178.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 26.0;
/// The least distance of two labels.
const LINE: f64 = 18.0;

/// How a layer is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// An area down to its base.
    Area,
    /// A line.
    Line,
    /// A dashed line.
    Dashed,
}

/// A layer: a value over time.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Its label.
    pub(crate) name: String,
    /// Its colour.
    pub(crate) colour: Colour,
    /// How it is drawn.
    pub(crate) stroke: Stroke,
    /// Seconds, the value, and the value at its base, in MiB.
    pub(crate) points: Vec<(f64, f64, f64)>,
}

/// A panel.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// Its title.
    pub(crate) title: String,
    /// Later layers are in front.
    pub(crate) layers: Vec<Layer>,
    /// Seconds and names of events.
    pub(crate) events: Vec<(f64, String)>,
}

/// The area of a canvas that a panel occupies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// Its upper edge.
    pub(crate) top: f64,
    /// Its size.
    pub(crate) width: f64,
    /// Its size.
    pub(crate) height: f64,
}

/// The axes shared by all panels of a plot, so that they can be compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Seconds at the left and the right.
    pub(crate) time: (f64, f64),
    /// MiB at the top.
    pub(crate) most: f64,
}

impl Scale {
    /// Axes that fit all panels.
    pub(crate) fn of(panels: &[Panel]) -> Self {
        let points = || panels.iter().flat_map(|panel| &panel.layers).flat_map(|layer| &layer.points);
        let first = points().map(|point| point.0).fold(f64::MAX, f64::min);
        let last = points().map(|point| point.0).fold(f64::MIN, f64::max);
        let most = points().map(|point| point.1).fold(0.0, f64::max);
        let time = if first < last { (first, last) } else { (0.0, 1.0) };
        Self { time, most: (most * 1.06).max(1.0) }
    }
}

impl Panel {
    /// Draws the panel.
    pub(crate) fn draw(&self, canvas: &mut dyn Canvas, frame: Frame, scale: Scale) {
        let place = |time: f64, value: f64| -> Point {
            let (from, to) = scale.time;
            let x = LEFT + (time - from) / (to - from) * (frame.width - LEFT - RIGHT);
            let bottom = frame.top + frame.height - BOTTOM;
            (x, bottom - value / scale.most * (frame.height - TOP - BOTTOM))
        };
        let title = Type { title: true, anchor: Anchor::Start, colour: INK };
        canvas.text((LEFT, frame.top + 24.0), &self.title, title);
        canvas.text((LEFT - 8.0, frame.top + 24.0), "MiB", Type { title: false, anchor: Anchor::End, colour: INK });
        grid(canvas, scale, &place);
        for layer in &self.layers {
            layer.draw(canvas, &place);
        }
        self.draw_events(canvas, scale, &place);
        self.draw_names(canvas, frame.width - RIGHT + 8.0, &place);
    }

    fn draw_events(&self, canvas: &mut dyn Canvas, scale: Scale, place: &dyn Fn(f64, f64) -> Point) {
        let mut free = f64::MIN;
        for (time, name) in self.events.iter().filter(|event| (scale.time.0..=scale.time.1).contains(&event.0)) {
            let (bottom, top) = (place(*time, 0.0), place(*time, scale.most));
            canvas.line(&[bottom, top], Pen { colour: PALE, width: 1.0, dashed: true });
            // Labels that would overlap are left out; their ticks stay.
            if bottom.0 >= free {
                canvas.text(
                    (bottom.0 + 3.0, top.1 + 10.0),
                    name,
                    Type { title: false, anchor: Anchor::Start, colour: INK },
                );
                free = bottom.0 + 10.0 * name.len() as f64;
            }
        }
    }

    /// Puts each label at the end of its layer and moves labels apart; labels of dashed lines stand on the line.
    fn draw_names(&self, canvas: &mut dyn Canvas, x: f64, place: &dyn Fn(f64, f64) -> Point) {
        let middle = |layer: &Layer| {
            let (time, value, base) = *layer.points.last()?;
            Some(place(time, if layer.stroke == Stroke::Area { f64::midpoint(value, base) } else { value }).1)
        };
        let (dashed, others): (Vec<&Layer>, Vec<&Layer>) =
            self.layers.iter().partition(|layer| layer.stroke == Stroke::Dashed);
        for layer in dashed {
            if let Some((time, value, _)) = layer.points.last() {
                let (x, y) = place(*time, *value);
                let kind = Type { title: false, anchor: Anchor::End, colour: layer.colour };
                canvas.text((x - 4.0, y - 5.0), &layer.name, kind);
            }
        }
        let mut names: Vec<_> = others.into_iter().filter_map(|layer| Some((middle(layer)? + 5.0, layer))).collect();
        names.sort_by(|one, other| one.0.total_cmp(&other.0));
        let bottom = place(0.0, 0.0).1 + 5.0;
        // From the bottom up, so that no label leaves the panel; each at least a line above the one before.
        let mut limit = bottom;
        for name in names.iter_mut().rev() {
            name.0 = name.0.min(limit);
            limit = name.0 - LINE;
        }
        for (y, layer) in names {
            canvas.text((x, y), &layer.name, Type { title: false, anchor: Anchor::Start, colour: layer.colour });
        }
    }
}

fn grid(canvas: &mut dyn Canvas, scale: Scale, place: &dyn Fn(f64, f64) -> Point) {
    let (from, to) = scale.time;
    let label = |anchor| Type { title: false, anchor, colour: INK };
    let step = step_of(scale.most, 5.0);
    for number in 0..=(scale.most / step) as u32 {
        let value = f64::from(number) * step;
        let (left, right) = (place(from, value), place(to, value));
        canvas.line(&[left, right], Pen { colour: PALE, width: 1.0, dashed: false });
        canvas.text((left.0 - 8.0, left.1 + 5.0), &format!("{value:.0}"), label(Anchor::End));
    }
    let step = step_of(to - from, 8.0);
    for number in 0..=((to - from) / step) as u32 {
        let seconds = f64::from(number) * step;
        let (x, y) = place(from + seconds, 0.0);
        canvas.text((x, y + 18.0), &format!("{seconds} s"), label(Anchor::Middle));
    }
}

/// A round step that divides `range` into about `parts` parts.
fn step_of(range: f64, parts: f64) -> f64 {
    let rough = range / parts;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough).unwrap_or(10.0);
    step * power
}

impl Layer {
    fn draw(&self, canvas: &mut dyn Canvas, place: &dyn Fn(f64, f64) -> Point) {
        let points = thinned(&self.points);
        let upper: Vec<Point> = points.iter().map(|(time, value, _)| place(*time, *value)).collect();
        if upper.is_empty() {
            return;
        }
        let pen = Pen { colour: self.colour, width: 2.0, dashed: self.stroke == Stroke::Dashed };
        if self.stroke == Stroke::Area {
            let lower = points.iter().rev().map(|(time, _, base)| place(*time, *base));
            let corners: Vec<Point> = upper.iter().copied().chain(lower).collect();
            canvas.area(&corners, self.colour, 0.35);
        }
        canvas.line(&upper, pen);
    }
}

/// At most twice [`POINTS`] points: the minimum and maximum of each stretch, so that no peak is lost.
fn thinned(points: &[(f64, f64, f64)]) -> Vec<(f64, f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for stretch in points.chunks(points.len().div_ceil(POINTS)) {
        let by_value = |one: &&(f64, f64, f64), other: &&(f64, f64, f64)| one.1.total_cmp(&other.1);
        let mut pair: Vec<_> =
            stretch.iter().min_by(by_value).into_iter().chain(stretch.iter().max_by(by_value)).copied().collect();
        pair.sort_by(|one, other| one.0.total_cmp(&other.0));
        pair.dedup();
        kept.extend(pair);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (range, parts, step) in [(256.0, 5.0, 100.0), (30.0, 8.0, 5.0), (1.0, 5.0, 0.2), (700.0, 5.0, 200.0)] {
            assert!((step_of(range, parts) - step).abs() < 1e-9, "{range}: {}", step_of(range, parts));
        }
    }

    #[test]
    fn thinning_keeps_every_peak() {
        let spike = |n: i32| (f64::from(n), if n == 5000 { 99.0 } else { 1.0 }, 0.0);
        let points: Vec<_> = (0..10_000).map(spike).collect();
        let kept = thinned(&points);
        assert!(kept.len() <= 2 * POINTS && kept.contains(&(5000.0, 99.0, 0.0)), "{}", kept.len());
        assert!(kept.is_sorted_by(|one, other| one.0 <= other.0));
    }

    #[test]
    fn panels_share_one_scale() {
        let layer = |points: &[(f64, f64, f64)]| Layer {
            name: "x".into(),
            colour: INK,
            stroke: Stroke::Line,
            points: points.to_vec(),
        };
        let panel = |points| Panel { title: "t".into(), layers: vec![layer(points)], events: Vec::new() };
        let scale = Scale::of(&[panel(&[(1.0, 100.0, 0.0)]), panel(&[(3.0, 50.0, 0.0)])]);
        assert_eq!(scale.time, (1.0, 3.0));
        assert!((scale.most - 106.0).abs() < 1e-9);
    }
}
