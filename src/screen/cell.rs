//! A character cell: a character and its colours, as VGA has them in text mode.

/// The sixteen colours of VGA's text modes, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Colour {
    /// 0.
    Black,
    /// 1.
    Blue,
    /// 2.
    Green,
    /// 3.
    Cyan,
    /// 4.
    Red,
    /// 5.
    Magenta,
    /// 6.
    Brown,
    /// 7.
    LightGrey,
    /// 8.
    DarkGrey,
    /// 9.
    LightBlue,
    /// 10.
    LightGreen,
    /// 11.
    LightCyan,
    /// 12.
    LightRed,
    /// 13.
    LightMagenta,
    /// 14.
    Yellow,
    /// 15.
    White,
}

impl Colour {
    /// All, by number.
    pub(crate) const ALL: [Self; 16] = [
        Self::Black,
        Self::Blue,
        Self::Green,
        Self::Cyan,
        Self::Red,
        Self::Magenta,
        Self::Brown,
        Self::LightGrey,
        Self::DarkGrey,
        Self::LightBlue,
        Self::LightGreen,
        Self::LightCyan,
        Self::LightRed,
        Self::LightMagenta,
        Self::Yellow,
        Self::White,
    ];

    /// Red, green and blue, from 0 to 255, as VGA mixes them.
    pub(crate) fn rgb(self) -> [u8; 3] {
        // Brown is the exception to the rule: dark yellow with half of its green.
        if matches!(self, Self::Brown) {
            return [0xAA, 0x55, 0x00];
        }
        let number = self as u8;
        let base = if number & 8 != 0 { 0x55 } else { 0 };
        let strength = |bit: u8| if number & bit != 0 { base + 0xAA } else { base };
        [strength(4), strength(2), strength(1)]
    }
}

/// A character's colours. VGA has only the first eight behind a character: the others make it blink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style(u8);

impl Style {
    /// Most of the text.
    pub(crate) const PLAIN: Self = Self::new(Colour::LightGrey, Colour::Black);
    /// Emphasis.
    pub const STRONG: Self = Self::new(Colour::White, Colour::Black);
    /// Minor text.
    pub(crate) const FAINT: Self = Self::new(Colour::DarkGrey, Colour::Black);
    /// Warnings.
    pub(crate) const WARNING: Self = Self::new(Colour::Yellow, Colour::Black);
    /// Errors.
    pub(crate) const ERROR: Self = Self::new(Colour::LightRed, Colour::Black);
    /// The line at the top.
    pub const TITLE: Self = Self::new(Colour::White, Colour::Blue);
    /// The line at the top of a report of the kernel's own failure.
    pub const ALARM: Self = Self::new(Colour::White, Colour::Red);
    /// The cursor.
    pub(crate) const CURSOR: Self = Self::new(Colour::Black, Colour::LightGrey);

    /// These colours.
    pub const fn new(text: Colour, behind: Colour) -> Self {
        Self(text as u8 | (behind as u8 & 7) << 4)
    }

    /// As a byte.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// The style of [`Style::bits`]; any byte has the colours that VGA would show.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x7F)
    }
}

/// A cell: the character in the low byte, the colours in the high one. All zeros are nothing on black.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell(u16);

impl Cell {
    /// Nothing.
    pub(crate) const BLANK: Self = Self(0);
    /// A value unlike any cell: a blinking style, which no cell has.
    pub(crate) const UNKNOWN: Self = Self(0x8000);
    /// The character that fills its cell, in VGA's character set (code page 437).
    pub const BLOCK: u8 = 0xDB;
    /// A vertical line through the middle of the cell, likewise.
    pub const VERTICAL: u8 = 0xB3;

    /// The cell of a character in VGA's set.
    pub const fn new(code: u8, style: Style) -> Self {
        Self(code as u16 | (style.0 as u16) << 8)
    }

    /// What VGA stores.
    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The cell of any character: one that is not ASCII, or not printable, is a question mark.
    pub const fn of(character: char, style: Style) -> Self {
        let code = if character.is_ascii_graphic() || character == ' ' { character as u8 } else { b'?' };
        Self::new(code, style)
    }

    /// The character.
    pub(crate) const fn code(self) -> u8 {
        self.0 as u8
    }

    /// The number of the character's colour.
    pub(crate) const fn text(self) -> usize {
        (self.0 >> 8 & 0xF) as usize
    }

    /// The number of the colour behind it.
    pub(crate) const fn behind(self) -> usize {
        (self.0 >> 12) as usize
    }

    /// Whether only the background is visible.
    const fn is_blank(self) -> bool {
        matches!(self.code(), 0 | b' ')
    }

    /// Whether it looks like another one: of blank cells only the background is visible.
    pub(crate) const fn looks_like(self, other: Self) -> bool {
        self.0 == other.0 || self.is_blank() && other.is_blank() && self.behind() == other.behind()
    }

    /// The cell that looks like this one and differs least from `other`, so that replacing `other` takes the fewest
    /// stores.
    pub(crate) const fn nearest(self, other: Self) -> Self {
        if self.is_blank() && self.behind() == other.behind() { Self(self.0 & 0xFF | other.0 & 0xFF00) } else { self }
    }

    /// As VGA stores it.
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_vga() {
        let rgb: Vec<_> =
            [Colour::Black, Colour::Red, Colour::Brown, Colour::DarkGrey, Colour::LightCyan, Colour::White]
                .map(Colour::rgb)
                .into();
        let expected = [[0, 0, 0], [0xAA, 0, 0], [0xAA, 0x55, 0], [0x55; 3], [0x55, 0xFF, 0xFF], [0xFF; 3]];
        assert_eq!(rgb, expected);
        for (number, colour) in Colour::ALL.into_iter().enumerate() {
            assert_eq!(colour as usize, number);
        }
    }

    #[test]
    fn a_cell_keeps_what_it_is_made_of() {
        let cell = Cell::of('A', Style::new(Colour::Yellow, Colour::Blue));
        assert_eq!((cell.code(), cell.text(), cell.behind(), cell.bits()), (b'A', 14, 1, 0x1E41));
        assert_eq!(Cell::of('é', Style::PLAIN).code(), b'?');
        assert_eq!(Cell::of('\x1b', Style::PLAIN).code(), b'?');
        assert_eq!(Cell::BLANK, Cell::default());
    }

    #[test]
    fn nothing_blinks() {
        for colour in Colour::ALL {
            assert_eq!(Cell::new(0, Style::new(Colour::White, colour)).bits() & 0x8000, 0);
        }
    }
}
