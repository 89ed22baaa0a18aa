//! Boot information, whichever protocol it came by.

use derive_more::Display;

use super::{BadRange, CommandLine, Framebuffer, LoaderAreas, MemoryMap, PhysRange, Region, Unreadable};

/// What the loader said. A value of about 9 KiB that borrows nothing: the loader's memory may be reused.
#[derive(Debug, Clone)]
pub struct BootInfo {
    /// The boot protocol's name.
    pub protocol: &'static str,
    /// Which physical addresses are what. Empty if the loader did not say.
    pub memory_map: MemoryMap,
    /// The kernel command line, empty if none was given.
    pub command_line: CommandLine,
    /// Where the ACPI root pointer is, and how many bytes there are of it at most, if the loader said.
    pub rsdp: Option<PhysRange>,
    /// UEFI's system table, if the loader said where it is.
    pub efi: Option<EfiSystemTable>,
    /// The screen, if the loader set one up.
    pub framebuffer: Option<Framebuffer>,
    /// What the loader left in memory that the map calls usable.
    pub areas: LoaderAreas,
}

/// UEFI's system table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiSystemTable {
    /// Its physical address, as the loader gives it.
    pub address: u64,
    /// The firmware's pointers have 64 bits; else 32.
    pub wide: bool,
}

impl BootInfo {
    /// Boot information that says nothing.
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
}

/// Something in the boot information that had to be skipped, cut or corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Note {
    /// The loader gave no memory map.
    #[display("the loader gave no memory map")]
    NoMemoryMap,
    /// The memory map has more entries than are looked at.
    #[display("the memory map claims {count} entries: only the first {considered} are read")]
    TooManyEntries {
        /// Entries claimed.
        count: u32,
        /// Entries read.
        considered: u32,
    },
    /// The memory map runs out of memory that can be read.
    #[display("the memory map ends before entry {index}: {error}")]
    EntryUnreadable {
        /// The first entry that is missing.
        index: u32,
        /// Why.
        error: Unreadable,
    },
    /// An entry of the memory map is no range.
    #[display("memory map entry {index} ({length:#x} bytes at {start:#x}) is skipped: {reason}")]
    BadEntry {
        /// Which entry.
        index: u32,
        /// Its start.
        start: u64,
        /// Its length in bytes.
        length: u64,
        /// What is wrong with it.
        reason: BadRange,
    },
    /// Part of a memory map entry was claimed by another that allows less, or by an earlier one of the same kind.
    #[display("memory map entry {region} overlaps others: it gets only what they leave")]
    Overlap {
        /// The entry.
        region: Region,
    },
    /// There was no room for a region.
    #[display("no room in the memory map for {region}: it is not used")]
    RegionDropped {
        /// The region.
        region: Region,
    },
    /// The memory map is incomplete.
    #[display("THE MEMORY MAP IS INCOMPLETE: it has more than {capacity} regions, the rest of memory is not used")]
    MapTruncated {
        /// Regions kept.
        capacity: usize,
    },
    /// The command line was cut.
    #[display("the command line is cut after {capacity} bytes")]
    CommandLineTruncated {
        /// Bytes kept.
        capacity: usize,
    },
    /// The command line runs out of memory that can be read.
    #[display("the command line is cut: {_0}")]
    CommandLineUnreadable(Unreadable),
    /// The command line has no end where the loader says that it ends.
    #[display("the command line has no end in its {room} bytes: it is taken to end with them")]
    CommandLineUnterminated {
        /// Bytes that the loader has for it.
        room: u64,
    },
    /// Entries of the EFI memory map are of kinds that UEFI gives no meaning to.
    #[display(
        "the EFI memory map has {count} entries of kinds that UEFI does not name, {first:#x} the first: they are left alone"
    )]
    UnknownEfiKinds {
        /// How many.
        count: u32,
        /// The kind of the first.
        first: u32,
    },
    /// The pointer to the ACPI root pointer is no address.
    #[display("the loader's RSDP address {_0:#x} is not a physical address")]
    BadRsdpAddress(u64),
    /// A module is no range, or the module list cannot be read.
    #[display("module {index} is skipped: {length:#x} bytes at {start:#x} are no range")]
    BadModule {
        /// Which module.
        index: u32,
        /// Its start.
        start: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// The module list runs out of memory that can be read.
    #[display("the module list ends before module {index}: {error}")]
    ModuleUnreadable {
        /// The first module that is missing.
        index: u32,
        /// Why.
        error: Unreadable,
    },
    /// There was no room for all areas of the loader.
    #[display("the loader has {count} modules: only the first {kept} are kept from being overwritten")]
    TooManyModules {
        /// Modules claimed.
        count: u32,
        /// Modules noted as areas.
        kept: u32,
    },
    /// A tag of the boot information is cut, too small or too large. Those behind it, if any, are not seen.
    #[display("the tag at {address:#x}, type {kind}, cannot have {size} bytes: it is skipped")]
    BadTag {
        /// Its physical address.
        address: u64,
        /// Its type.
        kind: u32,
        /// The size that it claims.
        size: u32,
    },
    /// The framebuffer is of a kind that is not known, or cannot be.
    #[display("the framebuffer is not used: {}", DisplayOr(_0, "it is of no known kind"))]
    BadFramebuffer(Option<Framebuffer>),
}

/// A value, or what to say where there is none.
struct DisplayOr<'a, T>(&'a Option<T>, &'static str);

impl<T: core::fmt::Display> core::fmt::Display for DisplayOr<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(self.1),
        }
    }
}
