//! PCI configuration space: mapped into memory where the MCFG table says so, through the two ports elsewhere.

use alloc::vec::Vec;

use x86_64::instructions::port::Port;

use super::frames;
use super::mmio::Window;
use super::paging::{self, Access};
use crate::acpi::{Acpi, EcamRegion};
use crate::pci::{Bdf, ConfigSpace};
use crate::platform::Registers;

/// `CONFIG_ADDRESS`: which function and which register (PCI 3.0, 3.2.2.3.2).
const ADDRESS: u16 = 0xCF8;
/// `CONFIG_DATA`: four bytes of it.
const DATA: u16 = 0xCFC;
/// `CONFIG_ADDRESS`: access configuration space.
const ENABLE: u32 = 1 << 31;

/// The machine's configuration space.
pub struct MachineConfig {
    mapped: Vec<(EcamRegion, Window)>,
    /// Whether the two ports are there.
    ports: bool,
}

impl MachineConfig {
    /// Maps what ACPI says is mapped, and looks for the ports.
    pub fn new(acpi: Option<&Acpi>) -> Self {
        let mut mapped = Vec::new();
        for region in regions(acpi) {
            match map(region) {
                Ok(window) => mapped.push((region, window)),
                Err(error) => log::warn!("PCI configuration space of segment {}: {error}", region.segment()),
            }
        }
        // SAFETY: CONFIG_ADDRESS takes any value; where there is none nothing answers.
        let ports = unsafe {
            let mut address = Port::<u32>::new(ADDRESS);
            address.write(ENABLE);
            address.read() == ENABLE
        };
        Self { mapped, ports }
    }

    /// The regions that are mapped.
    pub fn regions(&self) -> impl Iterator<Item = EcamRegion> {
        self.mapped.iter().map(|(region, _)| *region)
    }

    /// Whether the two ports are there.
    pub fn has_ports(&self) -> bool {
        self.ports
    }

    /// The mapped window that has `function`, and the offset of its first register in it.
    fn mapped(&self, function: Bdf) -> Option<(usize, usize)> {
        let index = self.mapped.iter().position(|(region, _)| {
            region.segment() == function.segment() && (region.first_bus()..=region.last_bus()).contains(&function.bus())
        })?;
        let buses = usize::from(function.bus() - self.mapped[index].0.first_bus());
        Some((index, buses << 20 | usize::from(function.device()) << 15 | usize::from(function.function()) << 12))
    }

    /// Selects a register through `CONFIG_ADDRESS` and returns the port of its first byte.
    fn select(&self, function: Bdf, offset: u16) -> Option<u16> {
        let address = function.cam_address(offset & !3).filter(|_| self.ports)?;
        // SAFETY: selecting has no effect of its own. One CPU walks the bus; interrupt handlers do not come here.
        unsafe { Port::<u32>::new(ADDRESS).write(address) };
        Some(DATA + (offset & 3))
    }
}

/// What the MCFG table names; without one, what the host bridge does.
fn regions(acpi: Option<&Acpi>) -> Vec<EcamRegion> {
    let Some(acpi) = acpi else { return Vec::new() };
    match &acpi.mcfg {
        Some(mcfg) => mcfg.regions().to_vec(),
        None => acpi.host_bridge.as_ref().and_then(EcamRegion::of_host_bridge).into_iter().collect(),
    }
}

fn map(region: EcamRegion) -> Result<Window, paging::PagingError> {
    let (start, length) = (region.range().start().as_u64(), region.range().bytes());
    let pointer = paging::with(|space| space.open_window(start, length, Access::Device, &mut frames::ForTables))?;
    // SAFETY: just mapped for ever; configuration registers are reached only through this value.
    Ok(unsafe { Window::memory(pointer, length as usize) })
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, function: Bdf, offset: u16) -> $type {
            if let Some((index, base)) = self.mapped(function) {
                return self.mapped[index].1.$read(base + usize::from(offset));
            }
            let Some(port) = self.select(function, offset) else { return <$type>::MAX };
            // SAFETY: CONFIG_DATA shows the register just selected.
            unsafe { Port::<$type>::new(port).read() }
        }

        fn $write(&mut self, function: Bdf, offset: u16, value: $type) {
            if let Some((index, base)) = self.mapped(function) {
                return self.mapped[index].1.$write(base + usize::from(offset), value);
            }
            let Some(port) = self.select(function, offset) else { return };
            // SAFETY: CONFIG_DATA is the register just selected; what is written is the PCI layer's responsibility.
            unsafe { Port::<$type>::new(port).write(value) }
        }
    };
}

impl ConfigSpace for MachineConfig {
    fn size(&self, segment: u16, bus: u8) -> u16 {
        let mapped = Bdf::new(segment, bus, 0, 0).and_then(|function| self.mapped(function));
        match mapped {
            Some(_) => 4096,
            None if self.ports && segment == 0 => 256,
            None => 0,
        }
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
