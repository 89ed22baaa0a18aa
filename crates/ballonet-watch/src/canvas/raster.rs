//! Draws into a pixel image and encodes it as PNG. The font is Noto Sans Mono.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};
use tiny_skia::{
    Color, FillRule, LineJoin, Paint, Path, PathBuilder, Pixmap, PremultipliedColorU8, Stroke, StrokeDash, Transform,
};

use super::{Anchor, Canvas, Colour, Pen, Point, Type};
use crate::failure::Outcome;

/// An image.
pub(crate) struct Raster {
    pixels: Pixmap,
}

impl Raster {
    /// A white image.
    pub(crate) fn new(width: u32, height: u32) -> Outcome<Self> {
        let mut pixels = Pixmap::new(width, height).ok_or_else(|| format!("no image of {width}x{height} pixels"))?;
        pixels.fill(Color::WHITE);
        Ok(Self { pixels })
    }

    /// The image as PNG.
    pub(crate) fn finish(self) -> Outcome<Vec<u8>> {
        Ok(self.pixels.encode_png()?)
    }

    /// Blends a colour into a pixel with a weight of 0 to 255. Pixels outside the image are ignored.
    fn mix(&mut self, x: i64, y: i64, colour: Colour, weight: u8) {
        let (width, height) = (i64::from(self.pixels.width()), i64::from(self.pixels.height()));
        if weight == 0 || !(0..width).contains(&x) || !(0..height).contains(&y) {
            return;
        }
        let pixel = &mut self.pixels.pixels_mut()[(y * width + x) as usize];
        let part = |new: u8, old: u8| {
            let (new, old, weight) = (u32::from(new), u32::from(old), u32::from(weight));
            ((new * weight + old * (255 - weight)) / 255) as u8
        };
        let [red, green, blue] =
            [part(colour[0], pixel.red()), part(colour[1], pixel.green()), part(colour[2], pixel.blue())];
        // The background is opaque and stays so.
        *pixel = PremultipliedColorU8::from_rgba(red, green, blue, 255).unwrap_or(*pixel);
    }
}

fn path(points: &[Point], closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (number, (x, y)) in points.iter().enumerate() {
        if number == 0 { builder.move_to(*x as f32, *y as f32) } else { builder.line_to(*x as f32, *y as f32) }
    }
    if closed {
        builder.close();
    }
    builder.finish()
}

fn paint([red, green, blue]: Colour, opacity: f32) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, (opacity * 255.0) as u8);
    paint
}

impl Canvas for Raster {
    fn area(&mut self, corners: &[Point], colour: Colour, opacity: f32) {
        if let Some(path) = path(corners, true) {
            self.pixels.fill_path(&path, &paint(colour, opacity), FillRule::Winding, Transform::identity(), None);
        }
    }

    fn line(&mut self, points: &[Point], pen: Pen) {
        let dash = if pen.dashed { StrokeDash::new(vec![6.0, 4.0], 0.0) } else { None };
        let stroke = Stroke { width: pen.width, line_join: LineJoin::Round, dash, ..Stroke::default() };
        if let Some(path) = path(points, false) {
            self.pixels.stroke_path(&path, &paint(pen.colour, 1.0), &stroke, Transform::identity(), None);
        }
    }

    fn text(&mut self, (x, y): Point, text: &str, kind: Type) {
        let (weight, height) = match kind.title {
            true => (FontWeight::Bold, RasterHeight::Size20),
            false => (FontWeight::Regular, RasterHeight::Size16),
        };
        let glyphs: Vec<_> = text
            .chars()
            .filter_map(|letter| get_raster(letter, weight, height).or_else(|| get_raster('?', weight, height)))
            .collect();
        let width: i64 = glyphs.iter().map(|glyph| glyph.width() as i64).sum();
        let mut left = x.round() as i64
            - match kind.anchor {
                Anchor::Start => 0,
                Anchor::Middle => width / 2,
                Anchor::End => width,
            };
        // The baseline is at about four fifths of a glyph's height.
        let top = y.round() as i64 - height.val() as i64 * 4 / 5;
        for glyph in glyphs {
            for (row, line) in (0_i64..).zip(glyph.rows()) {
                for (column, weight) in (0_i64..).zip(line.iter()) {
                    self.mix(left + column, top + row, kind.colour, *weight);
                }
            }
            left += glyph.width() as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_and_letters_are_where_they_belong() {
        let mut image = Raster::new(60, 40).unwrap();
        image.area(&[(0.0, 0.0), (20.0, 0.0), (20.0, 10.0), (0.0, 10.0)], [255, 0, 0], 1.0);
        let black = Type { title: true, anchor: Anchor::Start, colour: [0; 3] };
        image.text((30.0, 30.0), "M", black);
        // Nothing is drawn beyond the edges.
        image.text((-5.0, 5.0), "MMMMMMMMMM", black);
        let dark =
            |x: u32, y: u32| image.pixels.pixel(x, y).is_some_and(|pixel| pixel.red() < 128 && pixel.blue() < 128);
        let red = image.pixels.pixel(18, 8).map(|pixel| (pixel.red(), pixel.blue()));
        assert_eq!(red, Some((255, 0)));
        assert!((30..42).any(|x| (15..32).any(|y| dark(x, y))), "the letter is there");
        assert!(image.finish().unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    }
}
