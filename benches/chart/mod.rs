//! Figures for people: charts in SVG, and tables written into marked parts of documents.
//!
//! A module of the measuring programs, not a bench target.

// Each program uses only a part of this. Only programs that use criterion take `estimates.rs`: the package does not
// depend on criterion.
#![allow(dead_code, unused_imports)]

mod bars;
pub(crate) mod document;
mod lines;

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

pub(crate) use bars::Bars;
pub(crate) use lines::{Axis, Corner, Lines, Series};

/// Size of a panel in pixels.
const WIDTH: u32 = 420;
const HEIGHT: u32 = 280;

/// Colours that colour-blind readers can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x66, 0x66, 0x66),
];

/// Why a chart or a document was not written.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;
type Outcome = Result<(), Failure>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One chart of a picture.
pub(crate) enum Panel {
    Lines(Lines),
    Bars(Bars),
}

/// Draws a picture with the given number of columns.
pub(crate) fn draw(path: &Path, columns: usize, panels: &[Panel]) -> Outcome {
    let rows = panels.len().div_ceil(columns);
    let root = SVGBackend::new(path, (columns as u32 * WIDTH, rows as u32 * HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
        match panel {
            Panel::Lines(lines) => lines.draw(area)?,
            Panel::Bars(bars) => bars.draw(area)?,
        }
    }
    Ok(root.present()?)
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

/// A number with as many digits as are worth reading.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 9.5e9 => format!("{:.0}G", value / 1e9),
        size if size >= 9.5e6 => format!("{:.0}M", value / 1e6),
        size if size >= 9.5e3 => format!("{:.0}k", value / 1e3),
        size if size >= 99.5 || size == 0.0 => format!("{value:.0}"),
        size if size >= 9.95 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
