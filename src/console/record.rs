//! The log in memory: its beginning permanently, and the newest lines of the rest.
//!
//! Nothing here allocates, since the log begins before there is a heap.

use core::fmt::{self, Write};

/// Bytes for the beginning: the boot log.
const HEAD: usize = 32 << 10;
/// Bytes for the rest: a ring.
const TAIL: usize = 96 << 10;
/// Characters kept of a line.
pub(super) const LONGEST: usize = 400;
/// Bytes before each line: its style and its length.
const PREFIX: usize = 3;

/// The log. An empty log is all zero bits, so that a static one takes no space in the image.
pub(crate) struct Record {
    head: [u8; HEAD],
    head_used: usize,
    head_lines: u64,
    /// A line did not fit into the head; all later lines go to the ring.
    head_full: bool,
    tail: [u8; TAIL],
    tail_start: usize,
    tail_used: usize,
    tail_lines: u64,
    lost: u64,
}

impl Record {
    /// No lines.
    pub(crate) const fn new() -> Self {
        Self {
            head: [0; HEAD],
            head_used: 0,
            head_lines: 0,
            head_full: false,
            tail: [0; TAIL],
            tail_start: 0,
            tail_used: 0,
            tail_lines: 0,
            lost: 0,
        }
    }

    /// Adds a line. Line feeds split it; unprintable characters become question marks.
    pub(crate) fn push(&mut self, style: u8, text: fmt::Arguments<'_>) {
        let mut line = Line { record: self, style, bytes: [0; LONGEST], length: 0 };
        // Writing to it cannot fail.
        let _ = line.write_fmt(text);
        line.end();
    }

    /// The number of lines so far, kept or not.
    pub(crate) const fn lines(&self) -> u64 {
        self.head_lines + self.lost + self.tail_lines
    }

    /// Calls `each` with the number, style and text of each line from number `first` (counted from 0), until it
    /// returns false. A notice replaces lost lines.
    pub(crate) fn for_each(&self, first: u64, mut each: impl FnMut(u64, u8, &str) -> bool) {
        let mut text = [0; LONGEST];
        let mut at = 0;
        for number in 0..self.head_lines {
            let (style, length) = prefix(|index| self.head[(at + index) % HEAD]);
            let bytes = self.head.get(at + PREFIX..at + PREFIX + length).unwrap_or_default();
            if number >= first && !each(number, style, core::str::from_utf8(bytes).unwrap_or_default()) {
                return;
            }
            at += PREFIX + length;
        }
        let behind = self.head_lines + self.lost;
        if self.lost > 0 && first < behind && !self.pass_lost(&mut each) {
            return;
        }
        let mut at = self.tail_start;
        for number in behind..self.lines() {
            let (style, length) = prefix(|index| self.tail[(at + index) % TAIL]);
            if number >= first {
                let bytes = text.get_mut(..length).unwrap_or_default();
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = self.tail[(at + PREFIX + index) % TAIL];
                }
                if !each(number, style, core::str::from_utf8(bytes).unwrap_or_default()) {
                    return;
                }
            }
            at += PREFIX + length;
        }
    }

    fn pass_lost(&self, each: &mut impl FnMut(u64, u8, &str) -> bool) -> bool {
        let mut gap = Gap { bytes: [0; 64], length: 0 };
        // Longer text is cut.
        let _ = write!(gap, "-- {} lost here --", super::count(self.lost, "line"));
        let text = core::str::from_utf8(gap.bytes.get(..gap.length).unwrap_or_default()).unwrap_or_default();
        each(self.head_lines + self.lost - 1, 0, text)
    }

    fn keep(&mut self, style: u8, text: &[u8]) {
        let [low, high] = (text.len() as u16).to_le_bytes();
        let size = PREFIX + text.len();
        let bytes = [style, low, high].into_iter().chain(text.iter().copied());
        if !self.head_full && self.head_used + size <= HEAD {
            self.head.iter_mut().skip(self.head_used).zip(bytes).for_each(|(to, byte)| *to = byte);
            self.head_used += size;
            self.head_lines += 1;
            return;
        }
        self.head_full = true;
        while self.tail_used + size > TAIL {
            self.forget();
        }
        for (index, byte) in bytes.enumerate() {
            self.tail[(self.tail_start + self.tail_used + index) % TAIL] = byte;
        }
        self.tail_used += size;
        self.tail_lines += 1;
    }

    /// Drops the oldest line of the ring.
    fn forget(&mut self) {
        let (_, length) = prefix(|index| self.tail[(self.tail_start + index) % TAIL]);
        let size = (PREFIX + length).min(self.tail_used);
        self.tail_start = (self.tail_start + size) % TAIL;
        self.tail_used -= size;
        self.tail_lines -= 1;
        self.lost += 1;
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

/// A line's style and length.
fn prefix(byte: impl Fn(usize) -> u8) -> (u8, usize) {
    (byte(0), usize::from(u16::from_le_bytes([byte(1), byte(2)])))
}

/// A line being written.
struct Line<'r> {
    record: &'r mut Record,
    style: u8,
    bytes: [u8; LONGEST],
    length: usize,
}

impl Line<'_> {
    fn end(&mut self) {
        self.record.keep(self.style, self.bytes.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let byte = match character {
                '\n' => {
                    self.end();
                    continue;
                }
                '\r' => continue,
                '\t' => b' ',
                ' '..='~' => character as u8,
                _ => b'?',
            };
            if let Some(to) = self.bytes.get_mut(self.length) {
                *to = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

struct Gap {
    bytes: [u8; 64],
    length: usize,
}

impl Write for Gap {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, byte) in self.bytes.iter_mut().skip(self.length).zip(text.bytes()) {
            *to = byte;
            self.length += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use std::boxed::Box;

    fn lines(record: &Record, first: u64) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        record.for_each(first, |number, _, text| {
            found.push((number, text.to_owned()));
            true
        });
        found
    }

    #[test]
    fn lines_are_kept_with_their_styles() {
        let mut record = Box::new(Record::new());
        record.push(7, format_args!("one {}", 1));
        record.push(9, format_args!("two\nthr\u{e9}e\t\u{1b}\r"));
        record.push(7, format_args!(""));
        let mut seen = Vec::new();
        record.for_each(0, |number, style, text| {
            seen.push((number, style, text.to_owned()));
            true
        });
        let expected = [(0, 7, "one 1"), (1, 9, "two"), (2, 9, "thr?e ?"), (3, 7, "")];
        assert_eq!(seen, expected.map(|(number, style, text)| (number, style, String::from(text))));
        assert_eq!(lines(&record, 2).len(), 2);
    }

    /// However much is logged, the beginning and the newest lines remain; a notice between them gives the number of
    /// lost lines.
    #[test]
    fn the_beginning_is_never_lost() {
        let mut record = Box::new(Record::new());
        for number in 0..20_000 {
            record.push(0, format_args!("line {number} of many, and a little more text to fill the record"));
        }
        let lines = lines(&record, 0);
        assert_eq!(record.lines(), 20_000);
        assert!(lines.len() * 64 > 96 << 10, "{} lines are kept", lines.len());
        for (place, line) in lines.iter().take(400).enumerate() {
            assert!(line.1.starts_with(&format!("line {place} ")), "{line:?}");
        }
        assert!(lines.last().unwrap().1.starts_with("line 19999 "));
        let gap = lines.iter().position(|(_, text)| text.starts_with("-- ")).unwrap();
        let lost = lines[gap + 1].0 - lines[gap - 1].0 - 1;
        assert_eq!(lines[gap].1, format!("-- {lost} lines lost here --"));
        assert!(lines[gap + 1].1.starts_with(&format!("line {} ", lines[gap + 1].0)));
    }

    #[test]
    fn a_long_line_is_cut() {
        let mut record = Box::new(Record::new());
        record.push(0, format_args!("{}", "x".repeat(1000)));
        assert_eq!(lines(&record, 0)[0].1.len(), LONGEST);
    }

    proptest! {
        // Each fills the record more than once.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn what_is_kept_is_what_was_pushed(texts in prop::collection::vec("[ -~]{0,390}", 0..900)) {
            let mut record = Box::new(Record::new());
            for text in &texts {
                record.push(1, format_args!("{text}"));
            }
            prop_assert_eq!(record.lines(), texts.len() as u64);
            for (number, text) in lines(&record, 0).into_iter().filter(|(_, text)| !text.starts_with("-- ")) {
                prop_assert_eq!(&text, &texts[number as usize]);
            }
        }
    }
}
