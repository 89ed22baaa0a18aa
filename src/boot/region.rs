//! A region of memory, and its use.

use derive_more::Display;

use super::PhysRange;

/// What a range of physical addresses is for (ACPI 6.5, 15.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display)]
pub enum RegionKind {
    /// RAM that the kernel may use.
    #[display("usable")]
    Usable,
    /// Not for the kernel: devices, firmware, or nothing.
    #[display("reserved")]
    Reserved,
    /// ACPI tables: usable once they have been read.
    #[display("ACPI tables")]
    AcpiReclaimable,
    /// ACPI non-volatile storage; must be left alone.
    #[display("ACPI NVS")]
    AcpiNvs,
    /// Memory in which errors were found.
    #[display("unusable")]
    Unusable,
    /// Memory that keeps its contents without power.
    #[display("persistent")]
    Persistent,
    /// A kind that no specification known to us defines. Left alone.
    #[display("kind {_0}")]
    Other(u32),
}

impl RegionKind {
    /// The kind with this number in the map of INT 15h E820h and of its successors (ACPI 6.5, table 15.6).
    pub const fn from_e820(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            2 => Self::Reserved,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            7 => Self::Persistent,
            other => Self::Other(other),
        }
    }

    /// The kind of an entry of the EFI memory map, once boot services are over (UEFI 2.10, table 7.10).
    pub(crate) const fn from_efi(number: u32) -> Self {
        match number {
            // Loader code and data, boot services code and data, conventional memory.
            1..=4 | 7 => Self::Usable,
            8 => Self::Unusable,
            9 => Self::AcpiReclaimable,
            10 => Self::AcpiNvs,
            14 => Self::Persistent,
            _ => Self::Reserved,
        }
    }

    /// Whether UEFI defines this kind of entry and the kernel knows it: the next kind is memory that must be accepted
    /// first.
    pub(crate) const fn is_known_to_efi(number: u32) -> bool {
        number <= 14
    }

    /// The precedence of bytes that two entries claim: the kind that allows less has the lower number.
    pub(super) const fn precedence(self) -> usize {
        match self {
            Self::Unusable => 0,
            Self::Reserved | Self::Other(_) => 1,
            Self::AcpiNvs => 2,
            Self::AcpiReclaimable => 3,
            Self::Persistent => 4,
            Self::Usable => 5,
        }
    }

    pub(super) const PRECEDENCES: usize = 6;
}

/// A range of physical addresses of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("{range} {kind}")]
pub struct Region {
    /// Which addresses.
    pub range: PhysRange,
    /// What they are for.
    pub kind: RegionKind,
}
