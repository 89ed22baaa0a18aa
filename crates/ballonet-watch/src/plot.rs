//! Plots of records: a panel per guest and, for several guests, one for their sum.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::bars::used;
use crate::canvas::{Canvas, Colour, Raster, Svg};
use crate::cli::{Outputs, Plot};
use crate::failure::{Context as _, Outcome};
use crate::model::{Figure, Sample};
use crate::panel::{Frame, Layer, Panel, Scale, Stroke};
use crate::record::{self, Track};
use crate::units::MIB;

/// Size of a panel in pixels.
const WIDTH: u32 = 940;
const HEIGHT: u32 = 250;

/// Host memory, the guest's use and its size, in colours that colour-blind readers can tell apart (Okabe and Ito).
pub(crate) const HOST: Colour = [0xD5, 0x5E, 0x00];
pub(crate) const USE: Colour = [0x00, 0x72, 0xB2];
pub(crate) const SIZE: Colour = [0x66, 0x66, 0x66];
/// The guests in a sum.
pub(crate) const GUESTS: [Colour; 6] = [
    [0x00, 0x72, 0xB2],
    [0xE6, 0x9F, 0x00],
    [0x00, 0x9E, 0x73],
    [0xCC, 0x79, 0xA7],
    [0x56, 0xB4, 0xE9],
    [0xD5, 0x5E, 0x00],
];

/// Draws a record.
pub(crate) fn plot(options: &Plot) -> Outcome {
    let tracks = record::read(&options.record)?;
    let beside = || Some(options.record.with_extension("svg"));
    let svg = options.svg.clone().or_else(|| if options.png.is_none() { beside() } else { None });
    write(&tracks, &Outputs { record: None, svg, png: options.png.clone() })
}

/// Draws the samples to the files that the options name.
pub(crate) fn write(tracks: &[Track], outputs: &Outputs) -> Outcome {
    if tracks.iter().all(|track| track.samples.is_empty()) {
        return Ok(());
    }
    write_panels("Host memory of virtual machines", &panels(tracks), outputs)
}

/// Draws panels, one below the other.
pub(crate) fn write_panels(title: &str, panels: &[Panel], outputs: &Outputs) -> Outcome {
    let height = HEIGHT * panels.len() as u32 + 10;
    if let Some(path) = &outputs.svg {
        let mut svg = Svg::new(WIDTH, height, title);
        draw(&mut svg, panels);
        save(path, svg.finish().as_bytes())?;
    }
    if let Some(path) = &outputs.png {
        let mut image = Raster::new(WIDTH, height)?;
        draw(&mut image, panels);
        save(path, &image.finish()?)?;
    }
    Ok(())
}

fn save(path: &Path, bytes: &[u8]) -> Outcome {
    fs::write(path, bytes).of(path.display())?;
    // The terminal may have gone.
    let _ = writeln!(io::stderr(), "drew {}", path.display());
    Ok(())
}

fn draw(canvas: &mut dyn Canvas, panels: &[Panel]) {
    let scale = Scale::of(panels);
    for (number, panel) in panels.iter().enumerate() {
        let frame =
            Frame { top: number as f64 * f64::from(HEIGHT), width: f64::from(WIDTH), height: f64::from(HEIGHT) };
        panel.draw(canvas, frame, scale);
    }
}

/// A layer of one figure of a track.
pub(crate) fn layer(
    name: &str,
    colour: Colour,
    stroke: Stroke,
    track: &Track,
    value: impl Fn(&Sample) -> Option<u64>,
) -> Layer {
    let point = |sample: &Sample| Some((sample.at, value(sample)? as f64 / MIB as f64, 0.0));
    Layer { name: name.into(), colour, stroke, points: track.samples.iter().filter_map(point).collect() }
}

fn panels(tracks: &[Track]) -> Vec<Panel> {
    let mut panels = Vec::new();
    if tracks.len() > 1 {
        panels.push(Panel { title: "all guests".into(), layers: stacked(tracks), events: Vec::new() });
    }
    panels.extend(tracks.iter().map(guest_panel));
    panels
}

fn guest_panel(track: &Track) -> Panel {
    let layers = [
        layer("host memory", HOST, Stroke::Area, track, Sample::host),
        layer("used by the guest", USE, Stroke::Line, track, used),
        layer("left by the balloon", SIZE, Stroke::Dashed, track, |sample| sample.get(Figure::Actual)),
    ];
    Panel {
        title: track.name.clone(),
        layers: layers.into_iter().filter(|layer| !layer.points.is_empty()).collect(),
        // Reports are frequent, and host memory shows their effect.
        events: track
            .marks
            .iter()
            .filter(|mark| mark.kind != "report")
            .map(|mark| (mark.at, mark.kind.clone()))
            .collect(),
    }
}

/// The guests' host memory, stacked, at the times of the first guest's samples.
pub(crate) fn stacked(tracks: &[Track]) -> Vec<Layer> {
    let Some(first) = tracks.first() else { return Vec::new() };
    let mut base: Vec<(f64, f64)> = first.samples.iter().map(|sample| (sample.at, 0.0)).collect();
    let mut layers = Vec::new();
    for (number, track) in tracks.iter().enumerate() {
        let mut points = Vec::new();
        for (at, below) in &mut base {
            let value = latest(track, *at) as f64 / MIB as f64;
            points.push((*at, *below + value, *below));
            *below += value;
        }
        layers.push(Layer {
            name: track.name.clone(),
            colour: GUESTS[number % GUESTS.len()],
            stroke: Stroke::Area,
            points,
        });
    }
    layers
}

/// A guest's host memory at a moment, by the previous sample; 0 before the first sample.
fn latest(track: &Track, at: f64) -> u64 {
    // Guests of one round are sampled one after the other: half a second counts as the same moment.
    let before = track.samples.partition_point(|sample| sample.at <= at + 0.5);
    track.samples[..before].iter().rev().find_map(Sample::host).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(name: &str, values: &[(f64, u64)]) -> Track {
        let sample = |(at, value): &(f64, u64)| {
            let mut sample = Sample::new(*at);
            sample.set(Figure::Rss, Some(value * MIB));
            sample
        };
        Track { name: name.into(), samples: values.iter().map(sample).collect(), marks: Vec::new() }
    }

    #[test]
    fn a_sum_is_stacked_guest_by_guest() {
        let layers = stacked(&[track("a", &[(0.0, 10), (1.0, 20)]), track("b", &[(0.1, 5), (1.1, 7)])]);
        assert_eq!(layers[1].points, [(0.0, 15.0, 10.0), (1.0, 27.0, 20.0)]);
    }

    #[test]
    fn a_plot_has_a_panel_for_each_guest_and_their_sum() {
        let one = panels(&[track("a", &[(0.0, 10), (1.0, 20)])]);
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].layers.len(), 1, "unknown figures are not drawn");
        let two = panels(&[track("a", &[(0.0, 10)]), track("b", &[(0.0, 10)])]);
        let titles: Vec<_> = two.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["all guests", "a", "b"]);
    }
}
