//! The widths in which fields of the device configuration are read and written.

use crate::bus::Registers;

/// A field of the device configuration: `u8`, `u16` or `u32` (2.5).
pub trait ConfigField: Copy + PartialEq {
    /// The value read if no device responds.
    const ALL_ONES: Self;

    /// Reads the field at `offset`, in one load.
    fn read<R: Registers>(registers: &R, offset: usize) -> Self;

    /// Writes the field at `offset`, in one store.
    fn write<R: Registers>(self, registers: &mut R, offset: usize);
}

impl ConfigField for u8 {
    const ALL_ONES: Self = Self::MAX;

    fn read<R: Registers>(registers: &R, offset: usize) -> Self {
        registers.read8(offset)
    }

    fn write<R: Registers>(self, registers: &mut R, offset: usize) {
        registers.write8(offset, self);
    }
}

impl ConfigField for u16 {
    const ALL_ONES: Self = Self::MAX;

    fn read<R: Registers>(registers: &R, offset: usize) -> Self {
        registers.read16(offset)
    }

    fn write<R: Registers>(self, registers: &mut R, offset: usize) {
        registers.write16(offset, self);
    }
}

impl ConfigField for u32 {
    const ALL_ONES: Self = Self::MAX;

    fn read<R: Registers>(registers: &R, offset: usize) -> Self {
        registers.read32(offset)
    }

    fn write<R: Registers>(self, registers: &mut R, offset: usize) {
        registers.write32(offset, self);
    }
}
