//! The structures of the table (DSP0134, 6.1): a header, a formatted area, and strings numbered from 1.

use alloc::string::String;

/// The table's last structure.
const END: u8 = 127;
/// Type, length, handle.
const HEADER: usize = 4;
/// The most structures to read, whatever the table's size.
const MOST: usize = 4096;
/// Characters kept of a string.
const LONGEST: usize = 64;

/// Placeholders that makers leave instead of a name, in lower case.
const PLACEHOLDERS: [&str; 12] = [
    "to be filled by o.e.m.",
    "default string",
    "system manufacturer",
    "system product name",
    "system version",
    "base board manufacturer",
    "not specified",
    "not applicable",
    "o.e.m.",
    "oem",
    "none",
    "unknown",
];

/// A structure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Structure<'a> {
    /// The header and the formatted area.
    formatted: &'a [u8],
    /// The strings, each with its NUL.
    strings: &'a [u8],
}

/// The structures of a table, up to the first invalid one.
pub(super) struct Structures<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Structures<'a> {
    pub(super) const fn of(table: &'a [u8]) -> Self {
        Self { rest: table, left: MOST }
    }
}

impl<'a> Iterator for Structures<'a> {
    type Item = Structure<'a>;

    fn next(&mut self) -> Option<Structure<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (&kind, &length) = (self.rest.first()?, self.rest.get(1)?);
        if kind == END || usize::from(length) < HEADER {
            return None;
        }
        let (formatted, behind) = self.rest.split_at_checked(length.into())?;
        // An empty string ends the strings; without strings there are two NULs.
        let end = behind.windows(2).position(|pair| pair == [0, 0])?;
        let (strings, rest) = behind.split_at_checked(end + 2)?;
        self.rest = rest;
        Some(Structure { formatted, strings })
    }
}

impl Structure<'_> {
    pub(super) fn kind(&self) -> u8 {
        self.formatted.first().copied().unwrap_or(END)
    }

    /// The string whose number is at this offset of the formatted area; empty if there is none or it is a
    /// placeholder.
    pub(super) fn text(&self, at: usize) -> String {
        let number = self.formatted.get(at).copied().unwrap_or(0);
        let Some(index) = usize::from(number).checked_sub(1) else { return String::new() };
        let bytes = self.strings.split(|byte| *byte == 0).take_while(|text| !text.is_empty()).nth(index);
        let shown = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
        let text: String = bytes.unwrap_or_default().iter().take(LONGEST).map(shown).collect();
        let text = text.trim();
        if PLACEHOLDERS.iter().any(|placeholder| text.eq_ignore_ascii_case(placeholder)) {
            return String::new();
        }
        text.into()
    }
}
