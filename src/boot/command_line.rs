//! The kernel command line as the loader gave it: bytes, of bounded length.

use core::fmt;

use super::{Note, PhysicalMemory, Unreadable};

/// A copy of the kernel command line. Empty if there was none; any bytes but NUL, not necessarily UTF-8.
#[derive(Clone)]
pub struct CommandLine {
    /// The first `length` bytes are the line.
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl CommandLine {
    /// The longest line, in bytes: that of Linux on x86.
    pub(crate) const CAPACITY: usize = 2048;

    /// The empty line.
    pub(crate) const fn empty() -> Self {
        Self { bytes: [0; Self::CAPACITY], length: 0 }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// Copies the NUL-terminated line at `address`, in a buffer of `room` bytes. A line that is too long, or leaves the
    /// buffer or readable memory, is truncated and reported.
    pub(super) fn read(memory: &impl PhysicalMemory, address: u64, room: u64, report: &mut dyn FnMut(Note)) -> Self {
        let mut line = Self::empty();
        loop {
            if line.length as u64 >= room {
                report(Note::CommandLineUnterminated { room });
                return line;
            }
            // Byte by byte, because the line may end just before memory does.
            match read_byte(memory, address, line.length) {
                Ok(0) => return line,
                Ok(byte) => {
                    let Some(slot) = line.bytes.get_mut(line.length) else {
                        report(Note::CommandLineTruncated { capacity: Self::CAPACITY });
                        return line;
                    };
                    *slot = byte;
                    line.length += 1;
                }
                Err(error) => {
                    report(Note::CommandLineUnreadable(error));
                    return line;
                }
            }
        }
    }
}

fn read_byte(memory: &impl PhysicalMemory, address: u64, offset: usize) -> Result<u8, Unreadable> {
    let address = address.checked_add(offset as u64).ok_or(Unreadable { address, length: offset })?;
    memory.read_value::<u8>(address)
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::MemoryImage;
    use ballonet::memory::PhysAddr;

    const BASE: u64 = 0x1000;

    fn read(bytes: &[u8], address: u64) -> (CommandLine, Vec<Note>) {
        let mut notes = Vec::new();
        let memory = MemoryImage::new(PhysAddr::new(BASE).unwrap(), bytes);
        let line = CommandLine::read(&memory, address, u64::MAX, &mut |note| notes.push(note));
        (line, notes)
    }

    #[test]
    fn a_line_ends_where_its_room_does() {
        let mut notes = Vec::new();
        let memory = MemoryImage::new(PhysAddr::new(BASE).unwrap(), b"mode=checkmate\0");
        for (room, expected) in [(0, &b""[..]), (10, b"mode=check")] {
            let line = CommandLine::read(&memory, BASE, room, &mut |note| notes.push(note));
            assert_eq!(line.as_bytes(), expected);
            assert_eq!(notes.pop(), Some(Note::CommandLineUnterminated { room }));
        }
        let line = CommandLine::read(&memory, BASE, 15, &mut |note| notes.push(note));
        assert_eq!((line.as_bytes(), notes.len()), (&b"mode=checkmate"[..], 0));
    }

    #[test]
    fn a_line_ends_at_its_nul() {
        let (line, notes) = read(b"mode=check\0mode=bench\0", BASE);
        assert_eq!((line.as_bytes(), notes.len()), (&b"mode=check"[..], 0));
        assert_eq!(read(b"\0", BASE).0.as_bytes(), b"");
    }

    #[test]
    fn a_line_that_runs_out_of_memory_ends_there() {
        let (line, notes) = read(b"mode=check", BASE);
        assert_eq!(line.as_bytes(), b"mode=check");
        assert_eq!(notes, [Note::CommandLineUnreadable(Unreadable { address: BASE + 10, length: 1 })]);
        assert!(matches!(read(b"", u64::MAX).1[..], [Note::CommandLineUnreadable(_)]));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut bytes = vec![b'x'; CommandLine::CAPACITY];
        bytes.push(0);
        let (line, notes) = read(&bytes, BASE);
        assert_eq!((line.as_bytes().len(), notes.len()), (CommandLine::CAPACITY, 0));
        bytes.insert(0, b'x');
        let (line, notes) = read(&bytes, BASE);
        assert_eq!(line.as_bytes().len(), CommandLine::CAPACITY);
        assert_eq!(notes, [Note::CommandLineTruncated { capacity: CommandLine::CAPACITY }]);
    }

    #[test]
    fn a_line_of_any_bytes_can_be_shown() {
        let (line, _) = read(b"a=\xff\x1b[2J\0", BASE);
        assert_eq!(line.to_string(), "a=\\xff\\x1b[2J");
    }
}
