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
    /// The longest line that is kept, in bytes: as much as Linux keeps on x86.
    pub const CAPACITY: usize = 2048;

    /// The empty line.
    pub const fn empty() -> Self {
        Self { bytes: [0; Self::CAPACITY], length: 0 }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// Copies the NUL-terminated line at `address`. A line that is too long is cut, one that runs out of memory ends
    /// there; both are reported.
    pub(super) fn read(memory: &impl PhysicalMemory, address: u64, report: &mut dyn FnMut(Note)) -> Self {
        let mut line = Self::empty();
        loop {
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
