//! A line editor for one line of ASCII with history. A terminal's input is fed to it byte by byte.
//!
//! Why no crate: the line is drawn in two places, on the terminal after a balloon's progress and on the PC's screen,
//! and typing must never block. So the editor must do no I/O, and its line must be readable. `noline` (0.5) keeps its
//! I/O-free core private; its editors block until a line is complete, write by themselves, and first ask the terminal
//! for its size, which a pipe never answers; it has no completion. `embedded-cli` (0.2, of 2024) echoes into one
//! writer, and neither its line nor its cursor can be read. `menu` and `ushell` do not edit within the line.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Longest line, in characters.
const CAPACITY: usize = 120;
/// Lines remembered.
const HISTORY: usize = 16;

/// The outcome of a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Nothing to show.
    Nothing,
    /// The line or the cursor changed.
    Changed,
    /// The line is finished; the editor holds an empty one again.
    Line(String),
    /// Tab: complete the line.
    Complete,
    /// Ctrl-L: clear the screen.
    Clear,
    /// Scroll the log.
    Turn(Page),
}

/// The direction in which the log scrolls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// A page up: earlier lines.
    Up,
    /// A page down.
    Down,
    /// To the newest line.
    End,
}

/// The state of an escape sequence (ECMA-48, 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// ESC.
    Begun,
    /// ESC and `[` or `O`, with the number so far.
    Sequence(u8),
}

/// The editor. Keys: the usual control characters of a shell, arrows, Home, End, Delete, Tab, Page Up, Page Down.
#[derive(Debug, Clone)]
pub struct LineEditor {
    line: String,
    cursor: usize,
    escape: Escape,
    history: VecDeque<String>,
    /// Which line of the history is shown, counted from the newest.
    recalled: Option<usize>,
    after_return: bool,
}

impl LineEditor {
    /// An empty line.
    pub const fn new() -> Self {
        Self {
            line: String::new(),
            cursor: 0,
            escape: Escape::None,
            history: VecDeque::new(),
            recalled: None,
            after_return: false,
        }
    }

    /// The line.
    pub fn text(&self) -> &str {
        &self.line
    }

    /// The line up to the cursor.
    pub(crate) fn left_of_cursor(&self) -> &str {
        self.line.get(..self.cursor).unwrap_or_default()
    }

    /// Types text, as far as there is room.
    pub(crate) fn insert(&mut self, text: &str) {
        for byte in text.bytes() {
            self.type_character(byte);
        }
    }

    /// How many characters of the line are to the right of the cursor.
    pub fn right_of_cursor(&self) -> usize {
        self.line.len() - self.cursor
    }

    /// Takes one byte.
    pub fn feed(&mut self, byte: u8) -> Edit {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match self.escape {
            Escape::None => self.key(byte, after_return),
            Escape::Begun if byte == b'[' || byte == b'O' => {
                self.escape = Escape::Sequence(0);
                Edit::Nothing
            }
            Escape::Begun => {
                self.escape = Escape::None;
                Edit::Nothing
            }
            Escape::Sequence(number) => self.sequence(number, byte),
        }
    }

    fn key(&mut self, byte: u8, after_return: bool) -> Edit {
        match byte {
            b'\n' if after_return => Edit::Nothing,
            b'\r' | b'\n' => Edit::Line(self.finish()),
            0x1b => {
                self.escape = Escape::Begun;
                Edit::Nothing
            }
            0x08 | 0x7f => self.delete(self.cursor.checked_sub(1)),
            CTRL_D => self.delete(Some(self.cursor)),
            CTRL_A => self.move_to(0),
            CTRL_E => self.move_to(self.line.len()),
            CTRL_B => self.move_to(self.cursor.saturating_sub(1)),
            CTRL_F => self.move_to(self.cursor + 1),
            CTRL_P => self.recall(self.recalled.map_or(0, |index| index + 1)),
            CTRL_N => self.recall_newer(),
            CTRL_C => self.replace(String::new()),
            CTRL_U => self.delete_to_start(),
            CTRL_K => {
                self.line.truncate(self.cursor);
                Edit::Changed
            }
            CTRL_W => self.delete_word(),
            TAB => Edit::Complete,
            CTRL_L => Edit::Clear,
            byte => self.type_character(byte),
        }
    }

    fn type_character(&mut self, byte: u8) -> Edit {
        if !(b' '..=b'~').contains(&byte) || self.line.len() >= CAPACITY {
            return Edit::Nothing;
        }
        self.line.insert(self.cursor, char::from(byte));
        self.cursor += 1;
        Edit::Changed
    }

    fn sequence(&mut self, number: u8, byte: u8) -> Edit {
        if byte.is_ascii_digit() {
            self.escape = Escape::Sequence(number.saturating_mul(10).saturating_add(byte - b'0'));
            return Edit::Nothing;
        }
        // A sequence ends with a byte from @ to ~; other bytes in it are ignored.
        if (b'@'..=b'~').contains(&byte) {
            self.escape = Escape::None;
        }
        match (byte, number) {
            (b'A', _) => self.key(CTRL_P, false),
            (b'B', _) => self.key(CTRL_N, false),
            (b'C', _) => self.key(CTRL_F, false),
            (b'D', _) => self.key(CTRL_B, false),
            (b'H', _) | (b'~', 1 | 7) => self.key(CTRL_A, false),
            (b'F', _) | (b'~', 4 | 8) => self.key(CTRL_E, false),
            (b'~', 3) => self.key(CTRL_D, false),
            (b'~', 5) => Edit::Turn(Page::Up),
            (b'~', 6) => Edit::Turn(Page::Down),
            _ => Edit::Nothing,
        }
    }

    fn finish(&mut self) -> String {
        let line = core::mem::take(&mut self.line);
        self.cursor = 0;
        self.recalled = None;
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.truncate(HISTORY - 1);
            self.history.push_front(line.clone());
        }
        line
    }

    fn delete(&mut self, index: Option<usize>) -> Edit {
        match index.filter(|&index| index < self.line.len()) {
            Some(index) => {
                self.line.remove(index);
                self.cursor = index;
                Edit::Changed
            }
            None => Edit::Nothing,
        }
    }

    fn delete_word(&mut self) -> Edit {
        let left = self.line.get(..self.cursor).unwrap_or_default();
        let start = left.trim_end().rfind(' ').map_or(0, |space| space + 1);
        self.line.replace_range(start..self.cursor, "");
        self.cursor = start;
        Edit::Changed
    }

    fn delete_to_start(&mut self) -> Edit {
        self.line.replace_range(..self.cursor, "");
        self.cursor = 0;
        Edit::Changed
    }

    fn move_to(&mut self, cursor: usize) -> Edit {
        self.cursor = cursor.min(self.line.len());
        Edit::Changed
    }

    fn replace(&mut self, line: String) -> Edit {
        self.line = line;
        self.cursor = self.line.len();
        Edit::Changed
    }

    fn recall(&mut self, index: usize) -> Edit {
        let Some(line) = self.history.get(index).cloned() else { return Edit::Nothing };
        self.recalled = Some(index);
        self.replace(line)
    }

    fn recall_newer(&mut self) -> Edit {
        match self.recalled {
            Some(index @ 1..) => self.recall(index - 1),
            Some(0) => {
                self.recalled = None;
                self.replace(String::new())
            }
            None => Edit::Nothing,
        }
    }
}

impl Default for LineEditor {
    fn default() -> Self {
        Self::new()
    }
}

const CTRL_A: u8 = 0x01;
const CTRL_B: u8 = 0x02;
const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_E: u8 = 0x05;
const CTRL_F: u8 = 0x06;
const TAB: u8 = b'\t';
const CTRL_K: u8 = 0x0b;
const CTRL_L: u8 = 0x0c;
const CTRL_N: u8 = 0x0e;
const CTRL_P: u8 = 0x10;
const CTRL_U: u8 = 0x15;
const CTRL_W: u8 = 0x17;

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut editor = LineEditor::new();
        bytes
            .iter()
            .filter_map(|&byte| match editor.feed(byte) {
                Edit::Line(line) => Some(line),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn lines_end_at_return_newline_or_both() {
        assert_eq!(lines(b"a\rb\nc\r\nd\n\n"), ["a", "b", "c", "d", ""]);
    }

    #[test]
    fn keys_edit_where_the_cursor_is() {
        assert_eq!(lines(b"hlp\x02\x02e\r"), ["help"]);
        assert_eq!(lines(b"xhelp\x1b[H\x1b[3~\r"), ["help"]);
        assert_eq!(lines(b"helpx\x7f\r"), ["help"]);
        assert_eq!(lines(b"mem hold 1M\x17\x172\r"), ["mem 2"]);
        assert_eq!(lines(b"left right\x01\x06\x06\x06\x06\x06\x15\r"), ["right"]);
        assert_eq!(lines(b"left right\x01\x06\x06\x06\x06\x0b\r"), ["left"]);
        assert_eq!(lines(b"junk\x03info\r"), ["info"]);
    }

    #[test]
    fn arrows_recall_lines() {
        assert_eq!(lines(b"one\rtwo\r\x1b[A\x1b[A\r"), ["one", "two", "one"]);
        assert_eq!(lines(b"one\rtwo\r\x1b[A\x1b[A\x1b[B\r"), ["one", "two", "two"]);
        assert_eq!(lines(b"one\r\x1b[A\x1b[B\r"), ["one", ""]);
        assert_eq!(lines(b"\x1b[A\r"), [""]);
    }

    #[test]
    fn keys_for_others_are_passed_on() {
        let mut editor = LineEditor::new();
        let edits: Vec<_> = b"me\t\x0c\x1b[5~\x1b[6~".iter().map(|&byte| editor.feed(byte)).collect();
        let other: Vec<_> = edits.into_iter().filter(|edit| !matches!(edit, Edit::Nothing | Edit::Changed)).collect();
        assert_eq!(other, [Edit::Complete, Edit::Clear, Edit::Turn(Page::Up), Edit::Turn(Page::Down)]);
        editor.feed(CTRL_B);
        assert_eq!((editor.left_of_cursor(), editor.text()), ("m", "me"));
        editor.insert("y\x1b\u{e9}");
        assert_eq!(editor.text(), "mye");
        editor.insert(&"x".repeat(2 * CAPACITY));
        assert_eq!(editor.text().len(), CAPACITY);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_leave_the_cursor_on_a_line_that_fits(bytes: Vec<u8>) {
            let mut editor = LineEditor::new();
            for byte in bytes {
                editor.feed(byte);
                proptest::prop_assert!(editor.cursor <= editor.line.len() && editor.line.len() <= CAPACITY);
                proptest::prop_assert!(editor.line.is_ascii());
            }
        }
    }
}
