//! Text in a fixed buffer, for code that cannot allocate.

use core::fmt;

/// Up to `SIZE` bytes of text; what does not fit is cut off between characters.
#[derive(Debug, Clone)]
pub(crate) struct Text<const SIZE: usize> {
    bytes: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> Text<SIZE> {
    /// No text.
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; SIZE], length: 0 }
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        // Whole characters only are ever written.
        self.bytes.get(..self.length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl<const SIZE: usize> Default for Text<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SIZE: usize> fmt::Write for Text<SIZE> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let end = self.length + character.len_utf8();
            let Some(room) = self.bytes.get_mut(self.length..end) else { return Err(fmt::Error) };
            character.encode_utf8(room);
            self.length = end;
        }
        Ok(())
    }
}
