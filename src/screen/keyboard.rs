//! From a keyboard's scan codes to the bytes that a terminal would send for its keys.

use pc_keyboard::{DecodedKey, HandleControl, KeyCode, PS2Keyboard, ScancodeSet1, layouts::Us104Key};

/// The input of a key: a byte, or an escape sequence (ECMA-48) for keys that move the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A byte of ASCII.
    Byte(u8),
    /// An escape sequence.
    Sequence(&'static [u8]),
}

impl Typed {
    /// Its bytes.
    pub(crate) const fn bytes(&self) -> &[u8] {
        match self {
            Self::Byte(byte) => core::slice::from_ref(byte),
            Self::Sequence(bytes) => bytes,
        }
    }
}

/// A keyboard with US layout that sends scan code set 1, as the controller of a PC translates it.
pub(crate) struct Keyboard {
    decoder: PS2Keyboard<Us104Key, ScancodeSet1>,
}

impl Keyboard {
    /// No key is held.
    pub(crate) const fn new() -> Self {
        Self { decoder: PS2Keyboard::new(ScancodeSet1::new(), Us104Key, HandleControl::MapLettersToUnicode) }
    }

    /// Takes a byte from the keyboard. Bytes that are no scan codes are ignored.
    pub(crate) fn feed(&mut self, byte: u8) -> Option<Typed> {
        let event = self.decoder.add_byte(byte).ok()??;
        match self.decoder.process_keyevent(event)? {
            DecodedKey::Unicode('\n') => Some(Typed::Byte(b'\r')),
            DecodedKey::Unicode('\u{7f}') => Some(Typed::Sequence(b"\x1b[3~")),
            // A line editor would mistake the key Escape for the start of a sequence.
            DecodedKey::Unicode('\u{1b}') => None,
            DecodedKey::Unicode(character) => u8::try_from(character).ok().filter(u8::is_ascii).map(Typed::Byte),
            DecodedKey::RawKey(key) => sequence(key).map(Typed::Sequence),
        }
    }
}

impl Default for Keyboard {
    fn default() -> Self {
        Self::new()
    }
}

const fn sequence(key: KeyCode) -> Option<&'static [u8]> {
    Some(match key {
        KeyCode::ArrowUp => b"\x1b[A",
        KeyCode::ArrowDown => b"\x1b[B",
        KeyCode::ArrowRight => b"\x1b[C",
        KeyCode::ArrowLeft => b"\x1b[D",
        KeyCode::Home => b"\x1b[H",
        KeyCode::End => b"\x1b[F",
        KeyCode::PageUp => b"\x1b[5~",
        KeyCode::PageDown => b"\x1b[6~",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{Edit, LineEditor};

    fn typed(codes: &[u8]) -> Vec<u8> {
        let mut keyboard = Keyboard::new();
        codes.iter().filter_map(|&code| keyboard.feed(code)).flat_map(|typed| typed.bytes().to_vec()).collect()
    }

    #[test]
    fn letters_digits_and_shift() {
        // a, Shift held: B, released: 1, Return.
        assert_eq!(typed(&[0x1E, 0x9E, 0x2A, 0x30, 0xB0, 0xAA, 0x02, 0x82, 0x1C, 0x9C]), b"aB1\r");
        // Control held: u.
        assert_eq!(typed(&[0x1D, 0x16]), [0x15]);
        assert_eq!(typed(&[0x0E, 0x39]), b"\x08 ");
    }

    #[test]
    fn keys_that_move_the_cursor_send_sequences() {
        assert_eq!(typed(&[0xE0, 0x48, 0xE0, 0xC8, 0xE0, 0x50]), b"\x1b[A\x1b[B");
        assert_eq!(typed(&[0xE0, 0x4D, 0xE0, 0x4B, 0xE0, 0x47, 0xE0, 0x4F]), b"\x1b[C\x1b[D\x1b[H\x1b[F");
        assert_eq!(typed(&[0xE0, 0x53, 0xE0, 0x49, 0xE0, 0x51]), b"\x1b[3~\x1b[5~\x1b[6~");
    }

    #[test]
    fn keys_that_type_nothing_are_ignored() {
        // Escape, F1, a command's acknowledgement, an overrun.
        assert_eq!(typed(&[0x01, 0x81, 0x3B, 0xBB, 0xFA, 0x00, 0xFF]), b"");
    }

    #[test]
    fn a_line_can_be_typed_and_recalled() {
        let mut keyboard = Keyboard::new();
        let mut editor = LineEditor::new();
        let mut lines = Vec::new();
        // h, e, Left, Delete, i, Return; Up, Return.
        let keys = [0x23, 0x12, 0xE0, 0x4B, 0xE0, 0x53, 0x17, 0x1C, 0xE0, 0x48, 0x1C];
        for typed in keys.into_iter().filter_map(|key| keyboard.feed(key)) {
            for &byte in typed.bytes() {
                if let Edit::Line(line) = editor.feed(byte) {
                    lines.push(line);
                }
            }
        }
        assert_eq!(lines, ["hi", "hi"]);
    }

    proptest::proptest! {
        #[test]
        fn any_codes_type_ascii(codes: Vec<u8>) {
            proptest::prop_assert!(typed(&codes).is_ascii());
        }
    }
}
