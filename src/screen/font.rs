//! The shapes of characters, in pixels: Noto Sans Mono, and a few that it lacks.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster};

use super::Cell;

/// Pixels of a cell from left to right. A character is one narrower, so that a line of a cell is a whole number of
/// words.
pub const GLYPH_WIDTH: usize = 8;
/// Pixels of a cell from top to bottom.
pub const GLYPH_HEIGHT: usize = RasterHeight::Size16.val();

/// A character's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Glyph {
    /// Nothing.
    Blank,
    /// The whole cell.
    Block,
    /// A line down its middle.
    Vertical,
    /// A character of the font.
    Letter(RasterizedChar),
}

/// The shape of the character of this code.
pub(crate) fn glyph(code: u8) -> Glyph {
    match code {
        Cell::BLOCK => Glyph::Block,
        Cell::VERTICAL => Glyph::Vertical,
        b'!'..=b'~' => {
            get_raster(char::from(code), FontWeight::Regular, RasterHeight::Size16).map_or(Glyph::Blank, Glyph::Letter)
        }
        _ => Glyph::Blank,
    }
}

/// The pixels of a character that are covered by half or more: a byte per line, the leftmost pixel in its highest bit.
pub const fn bitmap(code: u8) -> [u8; GLYPH_HEIGHT] {
    let mut lines = [0; GLYPH_HEIGHT];
    let Some(letter) = get_raster(code as char, FontWeight::Regular, RasterHeight::Size16) else { return lines };
    let mut pixel = 0;
    while pixel < GLYPH_WIDTH * GLYPH_HEIGHT {
        let (x, y) = (pixel % GLYPH_WIDTH, pixel / GLYPH_WIDTH);
        if matches!(letter.pixel(x, y), Some(128..)) {
            lines[y] |= 0x80 >> x;
        }
        pixel += 1;
    }
    lines
}

impl Glyph {
    /// How much of a pixel the character covers, from 0 to 255. Outside of the cell, nothing.
    pub(crate) fn coverage(&self, x: usize, y: usize) -> u8 {
        match self {
            Self::Blank => 0,
            Self::Block => u8::MAX,
            Self::Vertical => {
                if x == GLYPH_WIDTH / 2 {
                    u8::MAX
                } else {
                    0
                }
            }
            Self::Letter(letter) => letter.pixel(x, y).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(code: u8) -> Vec<(usize, usize)> {
        let glyph = glyph(code);
        let all = (0..GLYPH_HEIGHT).flat_map(|y| (0..GLYPH_WIDTH).map(move |x| (x, y)));
        all.filter(|&(x, y)| glyph.coverage(x, y) >= 128).collect()
    }

    #[test]
    fn each_visible_character_has_a_shape_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for code in (b'!'..=b'~').chain([Cell::BLOCK, Cell::VERTICAL]) {
            let pixels = covered(code);
            assert!(pixels.len() >= 2, "{}", char::from(code));
            assert!(seen.insert(pixels), "{}", char::from(code));
        }
        for code in [0, b' ', 0x7F, 0xFF] {
            assert_eq!(covered(code), []);
        }
    }

    #[test]
    fn a_bitmap_has_the_pixels_that_are_covered() {
        for code in b' '..=b'~' {
            let lines = bitmap(code);
            let set = |&(x, y): &(usize, usize)| lines[y] & 0x80 >> x != 0;
            let all = (0..GLYPH_HEIGHT).flat_map(|y| (0..GLYPH_WIDTH).map(move |x| (x, y)));
            assert_eq!(all.filter(set).collect::<Vec<_>>(), covered(code), "{}", char::from(code));
        }
    }

    #[test]
    fn characters_leave_room_between_them() {
        assert!((b'!'..=b'~').all(|code| covered(code).iter().all(|&(x, _)| x < GLYPH_WIDTH - 1)));
        assert_eq!(covered(Cell::BLOCK).len(), GLYPH_WIDTH * GLYPH_HEIGHT);
        assert_eq!(covered(Cell::VERTICAL).len(), GLYPH_HEIGHT);
    }
}
