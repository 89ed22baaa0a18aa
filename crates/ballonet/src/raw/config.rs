//! PCI configuration space: through the two ports of a PC, or mapped into memory (ECAM).

use core::ptr::NonNull;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use super::port::PortValue;
use crate::pci::Bdf;
use crate::pci::{BusRange, ConfigSpace};
use crate::platform::Registers;

use super::RawRegisters;

/// `CONFIG_ADDRESS`: which function and which register (PCI 3.0, 3.2.2.3.2).
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
const ADDRESS: u16 = 0xCF8;
/// `CONFIG_DATA`: the four bytes of the selected register.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
const DATA: u16 = 0xCFC;

/// Configuration space through the ports 0xCF8 and 0xCFC: segment 0, 256 bytes per function.
#[derive(Debug)]
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub struct PortConfig(());

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl PortConfig {
    /// # Safety
    /// The machine is a PC with these ports, and neither another CPU nor an interrupt handler uses them between the two
    /// steps of an access.
    pub const unsafe fn new() -> Self {
        Self(())
    }

    /// Selects the register at `offset`. Returns the port of its first byte.
    fn select(function: Bdf, offset: u16) -> Option<u16> {
        let address = function.cam_address(offset)?;
        // SAFETY: by the promise to `new` this is CONFIG_ADDRESS, and no other access selects a register before the
        // data has moved.
        unsafe { address.write(ADDRESS) };
        Some(DATA + (offset & 3))
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
macro_rules! through_ports {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, function: Bdf, offset: u16) -> $type {
            super::check(size_of::<$type>(), offset.into(), 256);
            // SAFETY: CONFIG_DATA stands for the register that was just selected.
            Self::select(function, offset).map_or(<$type>::MAX, |port| unsafe { <$type>::read(port) })
        }

        fn $write(&mut self, function: Bdf, offset: u16, value: $type) {
            super::check(size_of::<$type>(), offset.into(), 256);
            if let Some(port) = Self::select(function, offset) {
                // SAFETY: as for the read. The library gives devices no memory addresses but those of DMA memory from
                // the platform.
                unsafe { value.write(port) };
            }
        }
    };
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl ConfigSpace for PortConfig {
    fn size(&self, segment: u16, _bus: u8) -> u16 {
        if segment == 0 { 256 } else { 0 }
    }

    through_ports!(read8, write8, u8);
    through_ports!(read16, write16, u16);
    through_ports!(read32, write32, u32);
}

/// Configuration space that is mapped into memory (PCIe 5.0, 7.2.2): one region, as described by an entry of the MCFG
/// table or by a device tree node. 4096 bytes per function.
#[derive(Debug)]
pub struct EcamConfig {
    buses: BusRange,
    registers: RawRegisters,
}

impl EcamConfig {
    /// Bytes for each bus.
    pub(crate) const BYTES_PER_BUS: usize = 1 << 20;

    /// The region of `buses`; `start` is that of the first one. Note that the MCFG table gives the address of bus 0,
    /// even if its range starts later.
    ///
    /// # Safety
    /// As for [`RawRegisters::memory`], with 1 MiB for each of the buses, while the value lives.
    pub unsafe fn new(start: NonNull<u8>, buses: BusRange) -> Self {
        let count = usize::from(buses.last() - buses.first()) + 1;
        // SAFETY: the caller's promise.
        Self { buses, registers: unsafe { RawRegisters::memory(start, count * Self::BYTES_PER_BUS) } }
    }

    /// Where a register of a function is in the region; `None` for a function that is not in it.
    fn place(&self, function: Bdf, offset: u16) -> Option<usize> {
        if self.size(function.segment(), function.bus()) == 0 {
            return None;
        }
        // Below 2^28, which a usize holds.
        let first = u64::from(self.buses.first()) << 20;
        function.ecam_offset(offset).map(|place| (place - first) as usize)
    }
}

macro_rules! through_memory {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, function: Bdf, offset: u16) -> $type {
            super::check(size_of::<$type>(), offset.into(), 4096);
            self.place(function, offset).map_or(<$type>::MAX, |place| self.registers.$read(place))
        }

        fn $write(&mut self, function: Bdf, offset: u16, value: $type) {
            super::check(size_of::<$type>(), offset.into(), 4096);
            if let Some(place) = self.place(function, offset) {
                self.registers.$write(place, value);
            }
        }
    };
}

impl ConfigSpace for EcamConfig {
    fn size(&self, segment: u16, bus: u8) -> u16 {
        let is_here = segment == self.buses.segment() && (self.buses.first()..=self.buses.last()).contains(&bus);
        if is_here { 4096 } else { 0 }
    }

    through_memory!(read8, write8, u8);
    through_memory!(read16, write16, u16);
    through_memory!(read32, write32, u32);
}
