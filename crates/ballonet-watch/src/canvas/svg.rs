//! Draws into an SVG document. Text stays text: sharp at any size, and searchable.

use std::fmt::Write as _;

use super::{Anchor, Canvas, Colour, Pen, Point, Type};

/// An SVG document.
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    /// An empty document on white; screen readers read `title`.
    pub(crate) fn new(width: u32, height: u32, title: &str) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\" font-family=\"Helvetica,Arial,sans-serif\" font-size=\"14\">\n<title>{}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n",
            escaped(title)
        );
        Self { text }
    }

    /// The document.
    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    fn points(&mut self, points: &[Point]) {
        for (number, (x, y)) in points.iter().enumerate() {
            // A tenth of a pixel is finer than the eye can see.
            let (x, y) = ((x * 10.0).round() / 10.0, (y * 10.0).round() / 10.0);
            let _ = write!(self.text, "{}{x},{y}", if number == 0 { "" } else { " " });
        }
    }
}

impl Canvas for Svg {
    fn area(&mut self, corners: &[Point], colour: Colour, opacity: f32) {
        let _ = write!(self.text, "<polygon fill=\"{}\" fill-opacity=\"{opacity}\" points=\"", hex(colour));
        self.points(corners);
        self.text.push_str("\"/>\n");
    }

    fn line(&mut self, points: &[Point], pen: Pen) {
        let dash = if pen.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let (colour, width) = (hex(pen.colour), pen.width);
        let _ = write!(
            self.text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"{dash} points=\""
        );
        self.points(points);
        self.text.push_str("\"/>\n");
    }

    fn text(&mut self, (x, y): Point, text: &str, kind: Type) {
        let anchor = match kind.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if kind.title { " font-size=\"17\" font-weight=\"bold\"" } else { "" };
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{}\"{weight}>{}</text>",
            hex(kind.colour),
            escaped(text)
        );
    }
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_points_are_short() {
        let mut svg = Svg::new(10, 20, "a<b");
        svg.line(&[(1.23456, 2.0), (3.0, 4.0)], Pen { colour: [1, 2, 255], width: 2.0, dashed: true });
        svg.text((0.0, 0.0), "x & y", Type { title: false, anchor: Anchor::End, colour: [0; 3] });
        let text = svg.finish();
        for part in ["a&lt;b", "x &amp; y", "#0102ff", "points=\"1.2,2 3,4\"", "stroke-dasharray", "</svg>"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
