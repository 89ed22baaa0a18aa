//! A device's registers, and the location of a window of them.

use core::fmt;

use super::DeviceAddress;

/// The location of a window of device registers on the bus, and the device that owns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterWindow {
    /// The device that owns the registers.
    pub device: DeviceAddress,
    /// On PCI, the index of the BAR that holds the window: 0 to 5.
    pub bar: Option<u8>,
    /// Whether the addresses are I/O ports.
    pub io: bool,
    /// The first address (bus address, or port number).
    pub address: u64,
    /// Length in bytes, not 0.
    pub length: u64,
}

impl RegisterWindow {
    /// The `length` bytes of this window from `offset` on; `None` if the part is empty or extends beyond the window.
    pub fn part(&self, offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length)?;
        let address = self.address.checked_add(offset)?;
        (length != 0 && end <= self.length).then_some(Self { address, length, ..*self })
    }
}

impl fmt::Display for RegisterWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.device)?;
        if let Some(bar) = self.bar {
            write!(f, "BAR{bar} ")?;
        }
        let space = if self.io { "ports" } else { "memory" };
        write!(f, "{space} {:#x}+{:#x}", self.address, self.length)
    }
}

/// A window of device registers, in memory or I/O space: all or part of one BAR.
///
/// Offsets are in bytes from the start of the window. Accesses have exactly the named width and are naturally aligned.
/// An access outside the window or a misaligned one is a bug of the caller and panics: the window's size is checked
/// when it is created.
pub trait Registers {
    /// Size of the window in bytes.
    fn len(&self) -> usize;

    /// Whether the window is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the 8-bit register at `offset`.
    fn read8(&self, offset: usize) -> u8;
    /// Reads the 16-bit register at `offset`.
    fn read16(&self, offset: usize) -> u16;
    /// Reads the 32-bit register at `offset`.
    fn read32(&self, offset: usize) -> u32;
    /// Writes the 8-bit register at `offset`.
    fn write8(&mut self, offset: usize, value: u8);
    /// Writes the 16-bit register at `offset`.
    fn write16(&mut self, offset: usize, value: u16);
    /// Writes the 32-bit register at `offset`.
    fn write32(&mut self, offset: usize, value: u32);

    /// Writes the 64-bit register at `offset` as two 32-bit stores, low half first (virtio 1.4, 4.1.3.1).
    fn write64(&mut self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}
