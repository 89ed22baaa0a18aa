//! Boot information, the same for every boot protocol.

use super::{CommandLine, Framebuffer, LoaderAreas, MemoryMap, Note, PhysRange};
use ballonet::memory::PhysAddr;

/// The boot information: some 9 KiB that borrow nothing, so that the loader's memory may be reused.
#[derive(Debug, Clone)]
pub struct BootInfo {
    /// The boot protocol's name.
    pub protocol: &'static str,
    /// The memory map; empty if the loader gave none.
    pub memory_map: MemoryMap,
    /// The kernel command line, empty if none was given.
    pub command_line: CommandLine,
    /// Where the ACPI root pointer is, with an upper bound of its length, if the loader gave it.
    pub rsdp: Option<PhysRange>,
    /// UEFI's system table, if the loader gave its address.
    pub(crate) efi: Option<EfiSystemTable>,
    /// The screen, if the loader set one up.
    pub framebuffer: Option<Framebuffer>,
    /// The loader's data in memory that the map calls usable.
    pub(crate) areas: LoaderAreas,
}

/// UEFI's system table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EfiSystemTable {
    /// Its physical address, as the loader gives it.
    pub address: u64,
    /// Whether the firmware's pointers have 64 bits; else 32.
    pub wide: bool,
}

impl BootInfo {
    /// Empty boot information.
    pub(crate) const fn empty(protocol: &'static str) -> Self {
        Self {
            protocol,
            memory_map: MemoryMap::empty(),
            command_line: CommandLine::empty(),
            rsdp: None,
            efi: None,
            framebuffer: None,
            areas: LoaderAreas::empty(),
        }
    }
    /// Notes where the root pointer is, which has its own length; 0 means that there is none.
    pub(super) fn set_rsdp(&mut self, address: u64, report: &mut dyn FnMut(Note)) {
        /// Bytes of the root pointer since ACPI 2.0; that of 1.0 is shorter (ACPI 6.5, 5.2.5.3).
        const LONGEST: u64 = 36;
        if address == 0 {
            return;
        }
        let room = LONGEST.min((PhysAddr::MAX.as_u64() + 1).saturating_sub(address));
        self.rsdp = PhysRange::parse(address, room).ok();
        if self.rsdp.is_none() {
            report(Note::BadRsdpAddress(address));
        }
    }
}
