//! Base address registers: the kind, number and location of the addresses that a function decodes.
//!
//! A [`Bar`] results from sizing ([`super::Bars`]). A [`RegisterWindow`] is a part of a BAR that was checked to lie
//! inside it and to have an address.

use core::fmt;

use derive_more::{Display, Error};

use super::Bdf;
use super::range::AddressRange;
use crate::bus::RegisterWindow;

/// Where in memory a BAR may be placed (PCI 3.0, 6.2.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemoryWidth {
    /// Anywhere below 4 GiB.
    #[doc(alias = "PCI_BASE_ADDRESS_MEM_TYPE_32")]
    Bits32,
    /// Below 1 MiB, in functions older than PCI 2.2.
    #[doc(alias = "PCI_BASE_ADDRESS_MEM_TYPE_1M")]
    Below1MiB,
    /// Anywhere; the BAR takes two registers.
    #[doc(alias = "PCI_BASE_ADDRESS_MEM_TYPE_64")]
    Bits64,
}

/// The kind of addresses that a BAR decodes (PCI 3.0, 6.2.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BarKind {
    /// I/O ports.
    #[doc(alias = "PCI_BASE_ADDRESS_SPACE_IO")]
    Io,
    /// Memory.
    Memory {
        /// Where it may be placed.
        width: MemoryWidth,
        /// Reads have no side effects and writes may be merged, so bridges may prefetch.
        #[doc(alias = "PCI_BASE_ADDRESS_MEM_PREFETCH")]
        prefetchable: bool,
    },
}

/// A base address register that the function implements, with valid sizing results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Bar {
    /// The function it belongs to.
    pub function: Bdf,
    /// Its index, 0 to 5. A 64-bit BAR has the index of its lower half.
    pub index: u8,
    /// The kind of addresses.
    pub(crate) kind: BarKind,
    /// The register's address bits; 0 before an address was assigned.
    pub(super) address: u64,
    /// Size in bytes: a power of two, at most 2^52.
    pub size: u64,
}

impl Bar {
    /// Whether it decodes I/O ports.
    pub const fn is_io(&self) -> bool {
        matches!(self.kind, BarKind::Io)
    }

    /// Whether it may be placed above 4 GiB.
    pub(crate) const fn is_64_bit(&self) -> bool {
        matches!(self.kind, BarKind::Memory { width: MemoryWidth::Bits64, .. })
    }

    /// The addresses that it decodes; `None` if none were assigned, or they are invalid.
    ///
    /// Address 0 is what reset leaves, and no PC has a device there.
    pub fn range(&self) -> Option<AddressRange> {
        if self.address == 0 { None } else { AddressRange::new(self.address, self.size) }
    }

    /// The `length` bytes from `offset` on of its addresses.
    ///
    /// # Errors
    /// When there is no such part, or the BAR has no address.
    pub fn window(&self, offset: u64, length: u64) -> Result<RegisterWindow, WindowError> {
        let Self { function, index: bar, size, .. } = *self;
        let outside = WindowError::Outside { function, bar, offset, length, size };
        let end = offset.checked_add(length).ok_or(outside)?;
        if length == 0 || end > size {
            return Err(outside);
        }
        let range = self.range().ok_or(WindowError::Unassigned { function, bar })?;
        Ok(RegisterWindow {
            device: function.into(),
            bar: Some(bar),
            io: self.is_io(),
            address: range.first() + offset,
            length,
        })
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} BAR{} ", self.function, self.index)?;
        f.write_str(match self.kind {
            BarKind::Io => "ports",
            BarKind::Memory { prefetchable: true, .. } => "prefetchable memory",
            BarKind::Memory { prefetchable: false, .. } => "memory",
        })?;
        write!(f, " {:#x}+{:#x}", self.address, self.size)
    }
}

/// Why a part of a BAR is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum WindowError {
    /// The part is empty or not inside the BAR.
    #[display("{function} BAR{bar}: {offset:#x}+{length:#x} is no part of its {size:#x} bytes")]
    Outside {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
        /// Where the part starts, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// The size of the BAR in bytes.
        size: u64,
    },
    /// The BAR has no address.
    #[display("{function} BAR{bar} has no address")]
    Unassigned {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
    },
}

/// Why a function has no usable BAR with this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum BarError {
    /// The header has no register with this index.
    #[display("{function} has no room for a BAR{bar}")]
    NoSuchRegister {
        /// The function.
        function: Bdf,
        /// The requested index.
        bar: u8,
    },
    /// The register exists, but the function does not implement it.
    #[display("{function} does not implement BAR{bar}")]
    Unimplemented {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
    },
    /// The register is the upper half of the 64-bit BAR before it.
    #[display("{function} BAR{bar} is the upper half of the BAR before it")]
    UpperHalf {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
    },
    /// The BARs of this function were not sized, since that could cut off the CPU from memory.
    #[display("{function} BAR{bar} was not sized")]
    NotSized {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
    },
    /// It claims to be 64-bit, but is the last register.
    #[display("{function} BAR{bar} has no register for its upper half")]
    NoUpperHalf {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
    },
    /// Its type bits are reserved.
    #[display("{function} BAR{bar} has reserved type bits {bits:#x}")]
    ReservedType {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
        /// The low four bits of the register.
        bits: u8,
    },
    /// The writable bits do not form a power of two, or one above 2^52.
    #[display("{function} BAR{bar} has no sane size: writable address bits {mask:#x}")]
    BadSize {
        /// The function.
        function: Bdf,
        /// The BAR's index.
        bar: u8,
        /// The writable address bits.
        mask: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(address: u64, size: u64) -> Bar {
        let kind = BarKind::Memory { width: MemoryWidth::Bits64, prefetchable: true };
        Bar { function: Bdf::new(0, 0, 3, 0).unwrap(), index: 4, kind, address, size }
    }

    #[test]
    fn a_window_lies_inside_its_bar() {
        let bar = bar(0xFE00_0000, 0x4000);
        let window = bar.window(0x3000, 0x1000).unwrap();
        assert_eq!((window.address, window.length, window.bar, window.io), (0xFE00_3000, 0x1000, Some(4), false));
        for (offset, length) in [(0x3000, 0x1001), (0x4000, 1), (0, 0), (u64::MAX, 1), (1, u64::MAX), (0x5000, 0)] {
            let error = bar.window(offset, length).unwrap_err();
            assert!(matches!(error, WindowError::Outside { .. }), "{offset:#x}+{length:#x}: {error}");
        }
    }

    #[test]
    fn a_bar_without_an_address_has_no_window() {
        let error = bar(0, 0x4000).window(0, 4).unwrap_err();
        assert_eq!(error.to_string(), "00:03.0 BAR4 has no address");
        assert!(matches!(bar(u64::MAX - 0xFFF, 0x4000).window(0, 4), Err(WindowError::Unassigned { .. })));
    }

    #[test]
    fn a_part_of_a_window_lies_inside_the_window() {
        let window = bar(0x1000, 0x1000).window(0, 0x1000).unwrap();
        assert_eq!(window.part(0x10, 0x20).unwrap().address, 0x1010);
        assert_eq!(window.part(0x10, 0), None);
        assert_eq!(window.part(0xFFF, 2), None);
        assert_eq!(window.part(u64::MAX, 2), None);
    }
}
