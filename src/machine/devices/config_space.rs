//! PCI configuration space: by memory where the MCFG table has it, elsewhere through the two ports.
//!
//! One lock, held with interrupts off, makes each access atomic, since an interrupt handler may reach a device's
//! registers through configuration space.

use alloc::vec::Vec;

use ballonet::pci::{Bdf, ConfigSpace};

use crate::acpi::{Acpi, EcamRegion};
use crate::machine::devices::config_paths::{self, Ecam, ORDER, Paths};

/// The machine's configuration space.
pub(crate) struct MachineConfig {
    paths: Paths,
}

impl MachineConfig {
    /// Maps the regions that ACPI lists, and probes the ports.
    pub(crate) fn new(acpi: Option<&Acpi>) -> Self {
        let mut mapped = Vec::new();
        for region in regions(acpi) {
            match Ecam::map(region) {
                Ok(ecam) => mapped.push(ecam),
                Err(error) => log::warn!("PCI configuration space of segment {}: {error}", region.segment),
            }
        }
        Self { paths: Paths::new(mapped.into(), config_paths::has_ports()) }
    }

    /// The regions that are mapped.
    pub(crate) fn regions(&self) -> impl Iterator<Item = EcamRegion> {
        self.paths.regions()
    }

    /// Where the 4 KiB of `function` are in memory; `None` if only the ports reach it.
    pub(crate) fn address(&self, function: Bdf) -> Option<u64> {
        self.paths.address(function)
    }

    /// Whether the two ports are there.
    pub(crate) fn has_ports(&self) -> bool {
        self.paths.has_ports()
    }

    /// The access paths, for registers that are reached through configuration space.
    pub(crate) fn paths(&self) -> Paths {
        self.paths.clone()
    }
}

/// The regions of the MCFG table; without one, that of the host bridge.
fn regions(acpi: Option<&Acpi>) -> Vec<EcamRegion> {
    let Some(acpi) = acpi else { return Vec::new() };
    match &acpi.mcfg {
        Some(mcfg) => mcfg.regions.clone(),
        None => acpi.host_bridge.as_ref().and_then(EcamRegion::of_host_bridge).into_iter().collect(),
    }
}

macro_rules! in_order {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, function: Bdf, offset: u16) -> $type {
            ORDER.with(|()| self.paths.$read(function, offset))
        }

        fn $write(&mut self, function: Bdf, offset: u16, value: $type) {
            ORDER.with(|()| self.paths.$write(function, offset, value));
        }
    };
}

impl ConfigSpace for MachineConfig {
    fn size(&self, segment: u16, bus: u8) -> u16 {
        self.paths.size(segment, bus)
    }

    in_order!(read8, write8, u8);
    in_order!(read16, write16, u16);
    in_order!(read32, write32, u32);
}
