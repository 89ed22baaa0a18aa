//! Something to draw on: an SVG document or an image. Places are pixels from the upper left corner.

mod raster;
mod svg;

pub(crate) use raster::Raster;
pub(crate) use svg::Svg;

/// Red, green and blue.
pub(crate) type Colour = [u8; 3];

/// Where a text's place is in it.
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
    /// The part of it that its place is.
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

/// A place.
pub(crate) type Point = (f64, f64);

/// The shapes that can be drawn.
pub(crate) trait Canvas {
    /// Fills a shape.
    fn area(&mut self, corners: &[Point], colour: Colour, opacity: f32);
    /// Draws a line through points.
    fn line(&mut self, points: &[Point], pen: Pen);
    /// Writes a text; its baseline is at `place`.
    fn text(&mut self, place: Point, text: &str, kind: Type);
}
