//! PCI configuration space: mapped into memory where the MCFG table says so, through the two ports elsewhere.
//!
//! One lock, held with interrupts off, keeps the steps of an access together, since the registers of a device may have to
//! be reached through it in an interrupt handler.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;

use x86_64::instructions::port::Port;

use super::frames;
use super::lock::Lock;
use super::mmio::Window;
use super::paging::{self, Access};
use crate::acpi::{Acpi, EcamRegion};
use ballonet::pci::{Bdf, ConfigSpace};
use ballonet::platform::Registers;

/// `CONFIG_ADDRESS`: which function and which register (PCI 3.0, 3.2.2.3.2).
const ADDRESS: u16 = 0xCF8;
/// `CONFIG_DATA`: four bytes of it.
const DATA: u16 = 0xCFC;
/// `CONFIG_ADDRESS`: access configuration space.
const ENABLE: u32 = 1 << 31;

/// Held for each access: through the two ports it takes two steps, and through a device's own window to its BARs four;
/// interrupt handlers make them too.
pub(super) static ORDER: Lock<()> = Lock::new(());

/// The machine's configuration space.
pub(crate) struct MachineConfig {
    paths: Paths,
}

impl MachineConfig {
    /// Maps what ACPI says is mapped, and looks for the ports.
    pub(crate) fn new(acpi: Option<&Acpi>) -> Self {
        let mut mapped = Vec::new();
        for region in regions(acpi) {
            match map(region) {
                Ok(ecam) => mapped.push(ecam),
                Err(error) => log::warn!("PCI configuration space of segment {}: {error}", region.segment()),
            }
        }
        let ports = ORDER.with(|()| {
            // SAFETY: CONFIG_ADDRESS takes any value; where there is none nothing answers.
            unsafe {
                let mut address = Port::<u32>::new(ADDRESS);
                address.write(ENABLE);
                address.read() == ENABLE
            }
        });
        Self { paths: Paths { mapped: mapped.into(), ports } }
    }

    /// The regions that are mapped.
    pub(crate) fn regions(&self) -> impl Iterator<Item = EcamRegion> {
        self.paths.mapped.iter().map(|ecam| ecam.region)
    }

    /// Where the 4 KiB of `function` are in memory; `None` if only the ports reach it.
    pub(crate) fn address(&self, function: Bdf) -> Option<u64> {
        let ecam = self.paths.mapped.iter().find(|ecam| ecam.contains(function))?;
        Some(ecam.region.range().start().as_u64() + ecam.offset(function) as u64)
    }

    /// Whether the two ports are there.
    pub(crate) fn has_ports(&self) -> bool {
        self.paths.ports
    }

    /// The ways to it, for registers that are reached through it.
    pub(super) fn paths(&self) -> Paths {
        self.paths.clone()
    }
}

/// A region of configuration space that is mapped, for ever.
#[derive(Debug)]
struct Ecam {
    region: EcamRegion,
    start: NonNull<u8>,
}

// SAFETY: it is where registers are, which is the same on every CPU; who reads or writes them holds `ORDER`.
unsafe impl Send for Ecam {}
// SAFETY: as above.
unsafe impl Sync for Ecam {}

impl Ecam {
    fn contains(&self, function: Bdf) -> bool {
        self.region.segment() == function.segment()
            && (self.region.first_bus()..=self.region.last_bus()).contains(&function.bus())
    }

    /// Where a function in it begins.
    fn offset(&self, function: Bdf) -> usize {
        let bus = usize::from(function.bus() - self.region.first_bus());
        bus << 20 | usize::from(function.device()) << 15 | usize::from(function.function()) << 12
    }

    /// The registers of a function in it.
    fn function(&self, function: Bdf) -> Window {
        // SAFETY: the region is mapped for ever, and has 4 KiB for each function of its buses.
        unsafe { Window::memory(self.start.add(self.offset(function)), 4096) }
    }
}

/// The ways to configuration space, without the order that their users have to keep: [`ORDER`] is held.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    mapped: Arc<[Ecam]>,
    /// Whether the two ports are there.
    ports: bool,
}

impl Paths {
    fn mapped(&self, function: Bdf) -> Option<Window> {
        Some(self.mapped.iter().find(|ecam| ecam.contains(function))?.function(function))
    }

    /// Selects a register through `CONFIG_ADDRESS` and returns the port of its first byte.
    fn select(&self, function: Bdf, offset: u16) -> Option<u16> {
        let address = function.cam_address(offset & !3).filter(|_| self.ports)?;
        // SAFETY: selecting has no effect of its own, and nobody else selects before the data has moved.
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

fn map(region: EcamRegion) -> Result<Ecam, paging::PagingError> {
    let (start, length) = (region.range().start().as_u64(), region.range().bytes());
    let start = paging::with(|space| space.open_window(start, length, Access::Device, &mut frames::ForTables))?;
    Ok(Ecam { region, start })
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        fn $read(&self, function: Bdf, offset: u16) -> $type {
            if let Some(registers) = self.mapped(function) {
                return registers.$read(usize::from(offset));
            }
            let Some(port) = self.select(function, offset) else { return <$type>::MAX };
            // SAFETY: CONFIG_DATA shows the register just selected.
            unsafe { Port::<$type>::new(port).read() }
        }

        fn $write(&mut self, function: Bdf, offset: u16, value: $type) {
            if let Some(mut registers) = self.mapped(function) {
                return registers.$write(usize::from(offset), value);
            }
            let Some(port) = self.select(function, offset) else { return };
            // SAFETY: CONFIG_DATA is the register just selected; what is written is the PCI layer's responsibility.
            unsafe { Port::<$type>::new(port).write(value) }
        }
    };
}

impl ConfigSpace for Paths {
    fn size(&self, segment: u16, bus: u8) -> u16 {
        let function = Bdf::new(segment, bus, 0, 0);
        if function.is_some_and(|function| self.mapped.iter().any(|ecam| ecam.contains(function))) {
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
