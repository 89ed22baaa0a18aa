//! Changes the last line of a terminal to another text, with as few bytes as possible.

use core::fmt;

/// Carriage return, erase to the end of the line (ECMA-48 EL).
pub(crate) const ERASE_LINE: &str = "\r\x1b[K";
/// Columns of the narrowest terminal: a longer line may have wrapped, and then the cursor moves differently.
const NARROW: usize = 80;
/// Unchanged characters that are rewritten, since jumping over them takes as many bytes.
const GAP: usize = 4;

/// Writes what turns the line `old` into `new`. The cursor is at the end of the line, before and after.
pub(crate) fn redraw(old: &str, new: &str, out: &mut impl fmt::Write) -> fmt::Result {
    let is_simple = |line: &str| line.len() < NARROW && line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if old == new {
        return Ok(());
    }
    if old.is_empty() || !is_simple(old) || !is_simple(new) {
        out.write_str(ERASE_LINE)?;
        return out.write_str(new);
    }
    let (old, bytes) = (old.as_bytes(), new.as_bytes());
    let differs = |at: usize| at < bytes.len() && old.get(at) != bytes.get(at);
    // The cursor's column; it starts right of everything that can change.
    let mut cursor = old.len();
    let mut next = 0;
    while let Some(start) = (next..bytes.len()).find(|&at| differs(at)) {
        // The end of the difference, including unchanged characters that are not worth a jump.
        let mut end = start + 1;
        while let Some(further) = (end..(end + GAP).min(bytes.len())).find(|&at| differs(at)) {
            end = further + 1;
        }
        go(cursor, start, out)?;
        out.write_str(new.get(start..end).unwrap_or_default())?;
        (cursor, next) = (end, end);
    }
    go(cursor, bytes.len(), out)?;
    if old.len() > bytes.len() { out.write_str("\x1b[K") } else { Ok(()) }
}

/// Moves the cursor within the line.
fn go(from: usize, to: usize, out: &mut impl fmt::Write) -> fmt::Result {
    if to < from {
        out.write_str("\r")?;
    }
    match if to < from { to } else { to - from } {
        0 => Ok(()),
        columns => write!(out, "\x1b[{columns}C"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    /// A line of a terminal, and the column of its cursor.
    struct Terminal(Vec<u8>, usize);

    impl Terminal {
        fn showing(line: &str) -> Self {
            Self(line.as_bytes().to_vec(), line.len())
        }

        fn take(&mut self, text: &str) {
            let mut rest = text;
            while let Some(first) = rest.chars().next() {
                let command = rest.strip_prefix("\x1b[").and_then(|rest| rest.split_once(['C', 'K']));
                match command {
                    Some((columns, behind)) => {
                        match columns {
                            "" => self.0.truncate(self.1),
                            columns => self.1 += columns.parse::<usize>().unwrap(),
                        }
                        rest = behind;
                        continue;
                    }
                    None if first == '\r' => self.1 = 0,
                    None => {
                        self.0.resize(self.0.len().max(self.1 + 1), b' ');
                        self.0[self.1] = first as u8;
                        self.1 += 1;
                    }
                }
                rest = &rest[1..];
            }
        }
    }

    fn bytes(old: &str, new: &str) -> String {
        let mut out = String::new();
        redraw(old, new, &mut out).unwrap();
        let mut terminal = Terminal::showing(old);
        terminal.take(&out);
        assert_eq!((String::from_utf8_lossy(&terminal.0).as_ref(), terminal.1), (new, new.len()), "{out:?}");
        out
    }

    #[test]
    fn progress_takes_some_bytes() {
        let old = "inflating balloon by 2048 of 8192 MiB  25 % 1.83 GiB/s > ";
        let new = "inflating balloon by 4160 of 8192 MiB  50 % 1.91 GiB/s > ";
        assert!(bytes(old, new).len() <= 32, "{:?}", bytes(old, new));
        assert_eq!(bytes(new, new), "");
        assert_eq!(bytes("", "> "), "\r\x1b[K> ");
        bytes(new, "> ");
        bytes("> ", new);
    }

    proptest! {
        #[test]
        fn any_line_becomes_any_other(old in "[a-c >]{0,90}", new in "[a-c >]{0,90}") {
            bytes(&old, &new);
        }
    }
}
