//! From cells to pixels, in the format of a framebuffer.

use super::font::{GLYPH_HEIGHT, GLYPH_WIDTH, Glyph, glyph};
use super::{Cell, Colour, MOST_COLUMNS, MOST_ROWS};
use crate::boot::{Channel, Framebuffer, PixelFormat};

/// The most bytes of a line of a cell: 8 pixels, 16 times as large, of 4 bytes.
pub const LONGEST_LINE: usize = GLYPH_WIDTH * LARGEST_SCALE * 4;

/// The largest scale for any valid framebuffer.
const LARGEST_SCALE: usize = 16;

/// Levels of coverage of a pixel by a character.
const LEVELS: usize = 16;

/// Coverage above which a pixel has the character's full colour: the font's stems cover a little less than a pixel, and
/// would look pale.
const FULL: usize = 208;

/// Paints cells for one framebuffer.
#[derive(Debug, Clone, Copy)]
pub struct Painter {
    format: Format,
    bytes_per_pixel: usize,
    /// The side of the square of pixels that shows one pixel of the font, so that letters are legible on large screens.
    scale: usize,
    /// Cells in a line.
    pub columns: usize,
    /// Lines of cells.
    pub rows: usize,
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Rgb([Channel; 3]),
    Indexed,
}

/// A cell about to be painted: its shape, and its pixels' values from background to foreground.
#[derive(Debug, Clone, Copy)]
pub struct Brush {
    glyph: Glyph,
    levels: [u32; LEVELS],
}

impl Painter {
    /// A painter for a framebuffer that [is sound](Framebuffer::is_sound) and has pixels. In text mode there is nothing
    /// to paint.
    pub fn new(framebuffer: &Framebuffer) -> Option<Self> {
        let format = match framebuffer.format {
            PixelFormat::Rgb(channels) => Format::Rgb(channels),
            PixelFormat::Indexed => Format::Indexed,
            PixelFormat::Text => return None,
        };
        let (width, height) = (framebuffer.width as usize, framebuffer.height as usize);
        let scale = (1..LARGEST_SCALE)
            .find(|scale| width / (GLYPH_WIDTH * scale) <= MOST_COLUMNS && height / (GLYPH_HEIGHT * scale) <= MOST_ROWS)
            .unwrap_or(LARGEST_SCALE);
        Some(Self {
            format,
            bytes_per_pixel: framebuffer.bytes_per_pixel() as usize,
            scale,
            columns: width / (GLYPH_WIDTH * scale),
            rows: height / (GLYPH_HEIGHT * scale),
        })
    }

    /// Pixels of a cell from top to bottom.
    pub const fn cell_height(&self) -> usize {
        GLYPH_HEIGHT * self.scale
    }

    /// Identical lines of pixels, which show one line of the font.
    pub(crate) const fn scale(&self) -> usize {
        self.scale
    }

    /// Bytes of a line of a cell.
    pub(crate) const fn line_length(&self) -> usize {
        GLYPH_WIDTH * self.scale * self.bytes_per_pixel
    }

    /// A cell, ready to be painted.
    pub fn brush(&self, cell: Cell) -> Brush {
        Brush { glyph: glyph(cell.code()), levels: self.levels(cell) }
    }

    /// The same for another cell; reuses the last brush if the colours are equal.
    pub(crate) fn next_brush(&self, cell: Cell, last: Option<(Cell, Brush)>) -> Brush {
        match last {
            Some((other, brush)) if (other.text(), other.behind()) == (cell.text(), cell.behind()) => {
                Brush { glyph: glyph(cell.code()), ..brush }
            }
            _ => self.brush(cell),
        }
    }

    fn levels(&self, cell: Cell) -> [u32; LEVELS] {
        let colour = |number: usize| Colour::ALL[number % Colour::ALL.len()];
        let (text, behind) = (colour(cell.text()), colour(cell.behind()));
        core::array::from_fn(|level| match self.format {
            Format::Indexed => (if level * 2 >= LEVELS { text } else { behind }) as u32,
            Format::Rgb(channels) => {
                let strengths = text.rgb().into_iter().zip(behind.rgb());
                let placed = strengths
                    .zip(channels)
                    .map(|((text, behind), channel)| channel.place(mix(usize::from(text), usize::from(behind), level)));
                placed.fold(0, |pixel, bits| pixel | bits)
            }
        })
    }

    /// Paints a line of a cell, the first being 0, into `line`. Returns its bytes.
    pub fn paint<'a>(&self, brush: &Brush, y: usize, line: &'a mut [u8; LONGEST_LINE]) -> &'a [u8] {
        let mut pixels = line.chunks_exact_mut(self.bytes_per_pixel);
        for x in 0..GLYPH_WIDTH {
            let coverage = brush.glyph.coverage(x, y / self.scale);
            let level = (usize::from(coverage) * LEVELS / FULL).min(LEVELS - 1);
            let value = brush.levels[level].to_le_bytes();
            for pixel in pixels.by_ref().take(self.scale) {
                pixel.iter_mut().zip(value).for_each(|(to, byte)| *to = byte);
            }
        }
        line.get(..self.line_length()).unwrap_or_default()
    }
}

/// A strength between `behind`, at level 0, and `text`, at the last level.
const fn mix(text: usize, behind: usize, level: usize) -> u8 {
    let last = LEVELS - 1;
    ((text * level + behind * (last - level)) / last) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::screen::Style;

    const fn channel(position: u8, width: u8) -> Channel {
        Channel { position, width }
    }

    fn framebuffer(width: u32, height: u32, depth: u8, format: PixelFormat) -> Framebuffer {
        let pitch = width * u32::from(depth).div_ceil(8);
        Framebuffer { address: 0xFD00_0000, pitch, width, height, depth, format }
    }

    fn rgb(depth: u8) -> PixelFormat {
        PixelFormat::Rgb(match depth {
            15 => [channel(10, 5), channel(5, 5), channel(0, 5)],
            16 => [channel(11, 5), channel(5, 6), channel(0, 5)],
            _ => [channel(16, 8), channel(8, 8), channel(0, 8)],
        })
    }

    fn painter(depth: u8) -> Painter {
        Painter::new(&framebuffer(640, 480, depth, rgb(depth))).unwrap()
    }

    fn line(painter: &Painter, cell: Cell, y: usize) -> Vec<u8> {
        painter.paint(&painter.brush(cell), y, &mut [0xEE; LONGEST_LINE]).to_vec()
    }

    #[test]
    fn each_depth_has_its_pixels() {
        let block = Cell::new(Cell::BLOCK, Style::new(Colour::Brown, Colour::Black));
        for (depth, pixel) in
            [(15, &[0x40, 0x55][..]), (16, &[0xA0, 0xAA]), (24, &[0x00, 0x55, 0xAA]), (32, &[0x00, 0x55, 0xAA, 0x00])]
        {
            assert_eq!(line(&painter(depth), block, 0), pixel.repeat(8), "{depth}");
        }
        let indexed = Painter::new(&framebuffer(640, 480, 8, PixelFormat::Indexed)).unwrap();
        assert_eq!(line(&indexed, block, 0), [6; 8]);
        assert_eq!(line(&indexed, Cell::of(' ', Style::TITLE), 3), [1; 8]);
    }

    #[test]
    fn letters_stand_on_their_background() {
        let painter = painter(32);
        let cell = Cell::of('H', Style::TITLE);
        let lines: Vec<_> = (0..16).flat_map(|y| line(&painter, cell, y)).collect();
        let of = |colour: Colour| {
            let [red, green, blue] = colour.rgb();
            lines.chunks(4).filter(|pixel| **pixel == [blue, green, red, 0]).count()
        };
        assert!(of(Colour::White) >= 8 && of(Colour::Blue) >= 64, "{} {}", of(Colour::White), of(Colour::Blue));
    }

    #[test]
    fn large_screens_have_large_letters() {
        let size = |width, height| {
            let painter = Painter::new(&framebuffer(width, height, 32, rgb(32))).unwrap();
            (painter.columns, painter.rows, painter.scale)
        };
        assert_eq!(size(640, 480), (80, 30, 1));
        assert_eq!(size(1366, 768), (170, 48, 1));
        // A log of many devices has room on a common screen.
        assert_eq!(size(1920, 1080), (240, 67, 1));
        assert_eq!(size(1920, 1200), (240, 75, 1));
        assert_eq!(size(2560, 1440), (160, 45, 2));
        assert_eq!(size(3840, 2160), (240, 67, 2));
        assert_eq!(size(16384, 16384), (146, 73, 14));
        assert_eq!(size(7, 15), (0, 0, 1));
    }

    #[test]
    fn a_scaled_letter_is_the_letter() {
        let (small, large) = (painter(16), Painter::new(&framebuffer(3840, 2160, 16, rgb(16))).unwrap());
        let cell = Cell::of('g', Style::PLAIN);
        for y in 0..32 {
            let twice: Vec<u8> = line(&small, cell, y / 2).chunks(2).flat_map(|pixel| pixel.repeat(2)).collect();
            assert_eq!(line(&large, cell, y), twice);
        }
    }

    #[test]
    fn text_mode_has_no_painter() {
        assert!(Painter::new(&framebuffer(80, 25, 16, PixelFormat::Text)).is_none());
    }

    proptest! {
        /// For any framebuffer, no cell exceeds a line, and no line exceeds the screen.
        #[test]
        fn cells_lie_on_the_screen(width in 1..=16384u32, height in 1..=16384u32, depth in 15..=32u8, code: u8, style: u8) {
            let framebuffer = framebuffer(width, height, depth, rgb(depth.min(24)));
            prop_assume!(framebuffer.is_sound());
            let painter = Painter::new(&framebuffer).unwrap();
            prop_assert!(painter.columns <= MOST_COLUMNS && painter.rows <= MOST_ROWS);
            prop_assert!(painter.columns * painter.line_length() <= framebuffer.pitch as usize);
            prop_assert!(painter.rows * painter.cell_height() <= height as usize);
            let colours = Style::new(Colour::ALL[usize::from(style & 15)], Colour::ALL[usize::from(style >> 4)]);
            let painted = line(&painter, Cell::new(code, colours), painter.cell_height() - 1);
            prop_assert_eq!(painted.len(), painter.line_length());
        }
    }
}
