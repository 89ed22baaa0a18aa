//! The access paths to PCI configuration space: memory from the MCFG table (ECAM), and the two ports.

use alloc::sync::Arc;
use core::ptr::NonNull;

use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::Registers;
use ballonet::raw::{PortConfig, RawRegisters};
use x86_64::instructions::port::Port;

use crate::acpi::EcamRegion;
use crate::machine::lock::Lock;
use crate::machine::memory::frames;
use crate::machine::paging::{self, Access, PagingError};

/// `CONFIG_ADDRESS`: which function and which register (PCI 3.0, 3.2.2.3.2).
const ADDRESS: u16 = 0xCF8;
/// `CONFIG_ADDRESS`: access configuration space.
const ENABLE: u32 = 1 << 31;

/// Held for each access: an access through the two ports takes two steps, one through a device's own window to its BARs
/// four, and interrupt handlers make accesses too.
pub(crate) static ORDER: Lock<()> = Lock::new(());

/// A region of configuration space that is mapped permanently.
#[derive(Debug)]
pub(super) struct Ecam {
    region: EcamRegion,
    start: NonNull<u8>,
}

// SAFETY: it only holds an address of registers, the same on every CPU; whoever accesses them holds `ORDER`.
unsafe impl Send for Ecam {}
// SAFETY: as above.
unsafe impl Sync for Ecam {}

impl Ecam {
    /// Maps a region.
    pub(super) fn map(region: EcamRegion) -> Result<Self, PagingError> {
        let (start, length) = (region.range.start().as_u64(), region.range.bytes());
        let start = paging::with(|space| space.open_window(start, length, Access::Device, &mut frames::ForTables))?;
        Ok(Self { region, start })
    }

    fn contains(&self, function: Bdf) -> bool {
        self.region.segment == function.segment()
            && (self.region.first_bus..=self.region.last_bus).contains(&function.bus())
    }

    /// The start of a function in it.
    fn offset(&self, function: Bdf) -> usize {
        let bus = usize::from(function.bus() - self.region.first_bus);
        bus << 20 | usize::from(function.device()) << 15 | usize::from(function.function()) << 12
    }

    /// The registers of a function in it.
    fn registers(&self, function: Bdf) -> RawRegisters {
        // SAFETY: the region is mapped permanently, and has 4 KiB for each function of its buses.
        unsafe { RawRegisters::memory(self.start.add(self.offset(function)), 4096) }
    }
}

/// The access paths to configuration space, without locking: the caller holds [`ORDER`].
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    mapped: Arc<[Ecam]>,
    /// Whether the two ports are there.
    ports: bool,
}

impl Paths {
    /// `mapped` and, if they are there, the ports.
    pub(super) fn new(mapped: Arc<[Ecam]>, ports: bool) -> Self {
        Self { mapped, ports }
    }

    /// The regions that are mapped.
    pub(super) fn regions(&self) -> impl Iterator<Item = EcamRegion> {
        self.mapped.iter().map(|ecam| ecam.region)
    }

    /// Where the 4 KiB of `function` are in memory; `None` if only the ports reach it.
    pub(super) fn address(&self, function: Bdf) -> Option<u64> {
        let ecam = self.ecam(function)?;
        Some(ecam.region.range.start().as_u64() + ecam.offset(function) as u64)
    }

    /// Whether the two ports are there.
    pub(super) fn has_ports(&self) -> bool {
        self.ports
    }

    fn ecam(&self, function: Bdf) -> Option<&Ecam> {
        self.mapped.iter().find(|ecam| ecam.contains(function))
    }

    /// The two ports, if they reach this register.
    fn through_ports(&self, function: Bdf, offset: u16) -> Option<PortConfig> {
        // SAFETY: the ports are there, and `ORDER` is held.
        (self.ports && function.cam_address(offset).is_some()).then(|| unsafe { PortConfig::new() })
    }
}

/// Whether the two ports are there.
pub(super) fn has_ports() -> bool {
    ORDER.with(|()| {
        // SAFETY: CONFIG_ADDRESS accepts any value; if it does not exist, the write has no effect.
        unsafe {
            let mut address = Port::<u32>::new(ADDRESS);
            address.write(ENABLE);
            address.read() == ENABLE
        }
    })
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, function: Bdf, offset: u16) -> $type {
            if let Some(ecam) = self.ecam(function) {
                return ecam.registers(function).$read(offset.into());
            }
            self.through_ports(function, offset).map_or(<$type>::MAX, |ports| ports.$read(function, offset))
        }

        fn $write(&mut self, function: Bdf, offset: u16, value: $type) {
            if let Some(ecam) = self.ecam(function) {
                return ecam.registers(function).$write(offset.into(), value);
            }
            if let Some(mut ports) = self.through_ports(function, offset) {
                ports.$write(function, offset, value);
            }
        }
    };
}

impl ConfigSpace for Paths {
    fn size(&self, segment: u16, bus: u8) -> u16 {
        let function = Bdf::new(segment, bus, 0, 0);
        if function.is_some_and(|function| self.ecam(function).is_some()) {
            4096
        } else if self.ports && segment == 0 {
            256
        } else {
            0
        }
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
