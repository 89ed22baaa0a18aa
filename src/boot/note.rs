//! Parts of the boot information that were skipped, truncated or corrected.

use derive_more::Display;

use super::{BadRange, Framebuffer, Region, Unreadable};

/// A part of the boot information that was skipped, cut or corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Note {
    /// The loader gave no memory map.
    #[display("the loader gave no memory map")]
    NoMemoryMap,
    /// The memory map has more entries than are read.
    #[display("the memory map claims {count} entries: only the first {considered} are read")]
    TooManyEntries {
        /// Entries claimed.
        count: u32,
        /// Entries read.
        considered: u32,
    },
    /// The memory map leaves readable memory.
    #[display("the memory map ends before entry {index}: {error}")]
    EntryUnreadable {
        /// The first entry that is missing.
        index: u32,
        /// Why.
        error: Unreadable,
    },
    /// An entry of the memory map is not a valid range.
    #[display("memory map entry {index} ({length:#x} bytes at {start:#x}) is skipped: {reason}")]
    BadEntry {
        /// Which entry.
        index: u32,
        /// Its start.
        start: u64,
        /// Its length in bytes.
        length: u64,
        /// Its flaw.
        reason: BadRange,
    },
    /// Part of a memory map entry was claimed by a stricter one, or by an earlier one of the same kind.
    #[display("memory map entry {region} overlaps others: only the rest counts")]
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
    #[display("THE MEMORY MAP IS INCOMPLETE: it has more than {capacity} regions; the rest of memory is not used")]
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
    /// The command line leaves readable memory.
    #[display("the command line is cut: {_0}")]
    CommandLineUnreadable(Unreadable),
    /// The command line has no NUL within the loader's buffer.
    #[display("the command line has no NUL in its {room} bytes: it ends with them")]
    CommandLineUnterminated {
        /// Size of the loader's buffer.
        room: u64,
    },
    /// Entries of the EFI memory map are of kinds that UEFI does not define.
    #[display(
        "the EFI memory map has {count} entries of kinds that UEFI does not define, the first {first:#x}: they are left alone"
    )]
    UnknownEfiKinds {
        /// How many.
        count: u32,
        /// The kind of the first.
        first: u32,
    },
    /// The address of the ACPI root pointer is invalid.
    #[display("the loader's RSDP address {_0:#x} is not a physical address")]
    BadRsdpAddress(u64),
    /// A module is not a valid range.
    #[display("module {index} is skipped: {length:#x} bytes at {start:#x} are not a valid range")]
    BadModule {
        /// Which module.
        index: u32,
        /// Its start.
        start: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// The module list leaves readable memory.
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
    /// A tag of the boot information is truncated, too small or too large. Later tags are not read.
    #[display("the tag at {address:#x}, type {kind}, cannot have {size} bytes: it is skipped")]
    BadTag {
        /// Its physical address.
        address: u64,
        /// Its type.
        kind: u32,
        /// The size that it claims.
        size: u32,
    },
    /// The framebuffer is of an unknown kind, or impossible.
    #[display("the framebuffer is not used: {}", DisplayOr(_0, "its kind is unknown"))]
    BadFramebuffer(Option<Framebuffer>),
}

/// A value, or words instead of it.
struct DisplayOr<'a, T>(&'a Option<T>, &'static str);

impl<T: core::fmt::Display> core::fmt::Display for DisplayOr<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(self.1),
        }
    }
}
