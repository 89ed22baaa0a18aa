//! Access to registers that cannot be mapped: through the PCI configuration access capability, a window in
//! configuration space to a device's BARs (virtio 1.4, 4.1.4.9).
//!
//! Each access takes four steps: write BAR, offset and width into the capability, then read or write the data
//! register, which makes the device perform the access. There is one window for all structures and all CPUs: its user
//! must exclude others during an access, including the device's interrupt handler, which reads the ISR byte.

use core::fmt;

use super::{Bdf, Capability, ConfigSpace};

/// Fields of the capability, from its start (4.1.4, 4.1.4.9): the index of the BAR,
const BAR: u16 = 4;
/// the offset in the BAR,
const BAR_OFFSET: u16 = 8;
/// the width of the access,
const BAR_LENGTH: u16 = 12;
/// and the data register.
const DATA: u16 = 16;

/// A structure reached through configuration space. A platform turns it into registers
/// ([`crate::platform::Platform::map_through_config`]): these accesses, each under a lock.
///
/// Offsets are in bytes from the start of the structure. As with all registers, a misaligned access or one outside the
/// structure is a bug of the caller and panics. The device only sees accesses to the structure at their natural width,
/// as the specification requires (4.1.4.9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigWindow {
    /// The function whose configuration space has the window.
    pub function: Bdf,
    /// Offset of the capability in configuration space.
    capability: u16,
    bar: u8,
    offset: u32,
    /// Size of the structure in bytes.
    pub length: u32,
}

impl ConfigWindow {
    /// The `length` bytes at `offset` of a BAR, reached through `access`, a capability of the same function with room
    /// for the data register.
    pub(crate) const fn new(access: Capability, bar: u8, offset: u32, length: u32) -> Self {
        Self { function: access.function, capability: access.offset, bar, offset, length }
    }

    /// Reads `width` bytes of the structure, 1, 2 or 4, at `offset`.
    pub fn read<C: ConfigSpace>(&self, config: &mut C, offset: usize, width: usize) -> u32 {
        self.select(config, offset, width as u32);
        let data = self.capability + DATA;
        match width {
            1 => config.read8(self.function, data).into(),
            2 => config.read16(self.function, data).into(),
            _ => config.read32(self.function, data),
        }
    }

    /// Writes the low `width` bytes of `value`, 1, 2 or 4, to the structure at `offset`.
    pub fn write<C: ConfigSpace>(&self, config: &mut C, offset: usize, width: usize, value: u32) {
        self.select(config, offset, width as u32);
        let data = self.capability + DATA;
        match width {
            1 => config.write8(self.function, data, value as u8),
            2 => config.write16(self.function, data, value as u16),
            _ => config.write32(self.function, data, value),
        }
    }

    /// Selects `width` bytes of the structure for the data register.
    fn select<C: ConfigSpace>(&self, config: &mut C, offset: usize, width: u32) {
        let end = |at: u32| at.checked_add(width).filter(|end| *end <= self.length);
        // The structure ends inside its BAR and begins below 2^32: the sum overflows only for an access outside the
        // structure.
        let start =
            u32::try_from(offset).ok().filter(|at| end(*at).is_some()).and_then(|at| at.checked_add(self.offset));
        let Some(start) = start.filter(|start| start % width == 0) else {
            panic!("register access of {width} bytes at {offset:#x} in {self}");
        };
        let function = self.function;
        config.write8(function, self.capability + BAR, self.bar);
        config.write32(function, self.capability + BAR_OFFSET, start);
        config.write32(function, self.capability + BAR_LENGTH, width);
    }
}

impl fmt::Display for ConfigWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, bar, offset, length, .. } = self;
        write!(f, "{function} BAR{bar} {offset:#x}+{length:#x} through configuration space")
    }
}

#[cfg(test)]
mod tests;
