//! Access to PCI configuration space.

use super::Bdf;

/// PCI configuration space, whatever the access mechanism (ports, ECAM, a model).
///
/// Offsets are in bytes and naturally aligned for the access; `offset + size` must be at most [`ConfigSpace::size`],
/// or the call panics. An absent function reads as all ones and ignores writes, as on the bus.
pub trait ConfigSpace {
    /// Bytes of configuration space of a function on `segment`, `bus`: 4096 through ECAM, 256 through ports, 0 on an
    /// unreachable bus.
    fn size(&self, segment: u16, bus: u8) -> u16;

    /// Reads 8 bits.
    fn read8(&self, function: Bdf, offset: u16) -> u8;
    /// Reads 16 bits.
    fn read16(&self, function: Bdf, offset: u16) -> u16;
    /// Reads 32 bits.
    fn read32(&self, function: Bdf, offset: u16) -> u32;
    /// Writes 8 bits.
    fn write8(&mut self, function: Bdf, offset: u16, value: u8);
    /// Writes 16 bits.
    fn write16(&mut self, function: Bdf, offset: u16, value: u16);
    /// Writes 32 bits.
    fn write32(&mut self, function: Bdf, offset: u16, value: u32);
}
