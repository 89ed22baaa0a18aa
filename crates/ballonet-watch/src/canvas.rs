//! A drawing surface: an SVG document or an image. Positions are pixels from the upper left corner.

mod raster;
mod svg;

pub(crate) use raster::Raster;
pub(crate) use svg::Svg;

/// Red, green and blue.
pub(crate) type Colour = [u8; 3];

/// The part of a text that is at the given position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    /// Larger, and bold.
    pub(crate) title: bool,
    /// The part of the text at the given position.
    pub(crate) anchor: Anchor,
    /// Its colour.
    pub(crate) colour: Colour,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pen {
    /// Its colour.
    pub(crate) colour: Colour,
    /// Its width in pixels.
    pub(crate) width: f32,
    /// Whether it is dashed.
    pub(crate) dashed: bool,
}

/// A position.
pub(crate) type Point = (f64, f64);

/// The shapes that can be drawn.
pub(crate) trait Canvas {
    /// Fills a shape.
    fn area(&mut self, corners: &[Point], colour: Colour, opacity: f32);
    /// Draws a line through points.
    fn line(&mut self, points: &[Point], pen: Pen);
    /// Writes a text with its baseline at `place`.
    fn text(&mut self, place: Point, text: &str, kind: Type);
}
