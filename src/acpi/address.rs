//! Generic addresses: a register in memory, I/O space, or elsewhere (ACPI 6.5, 5.2.3.2).

use derive_more::Display;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The address space that a register is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum AddressSpace {
    /// Physical memory.
    #[display("memory")]
    Memory,
    /// I/O ports.
    #[display("I/O")]
    Io,
    /// PCI configuration space of segment 0, bus 0.
    #[display("PCI config")]
    PciConfig,
    /// Another, by its number.
    #[display("space {_0}")]
    Other(u8),
}

/// A register described by firmware. Its address is not zero.
#[doc(alias = "GAS")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[display("{space} {address:#x}")]
pub(crate) struct GenericAddress {
    /// Its address space.
    pub space: AddressSpace,
    /// Its width in bits; 0 where that is not given.
    pub bit_width: u8,
    /// Its first bit.
    pub bit_offset: u8,
    /// The access width in bytes, if given.
    pub access_bytes: Option<u8>,
    /// Its address in that space.
    pub address: u64,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawAddress {
    space: u8,
    bit_width: u8,
    bit_offset: u8,
    access_size: u8,
    address: U64,
}

impl GenericAddress {
    /// The register that the structure describes; `None` if its address is zero.
    pub(super) fn parse(raw: RawAddress) -> Option<Self> {
        let address = raw.address.get();
        if address == 0 {
            return None;
        }
        let space = match raw.space {
            0 => AddressSpace::Memory,
            1 => AddressSpace::Io,
            2 => AddressSpace::PciConfig,
            other => AddressSpace::Other(other),
        };
        let access_bytes = match raw.access_size {
            size @ 1..=4 => Some(1 << (size - 1)),
            _ => None,
        };
        Some(Self { space, bit_width: raw.bit_width, bit_offset: raw.bit_offset, access_bytes, address })
    }

    /// The register of `bytes` bytes at an I/O port; `None` if the port is zero.
    pub(super) fn io(port: u32, bytes: u8) -> Option<Self> {
        let address = u64::from(port);
        let bit_width = bytes.saturating_mul(8);
        (port != 0).then_some(Self { space: AddressSpace::Io, bit_width, bit_offset: 0, access_bytes: None, address })
    }

    /// The register directly behind this one, `bytes` wide; `None` beyond the end of the address space.
    pub(super) fn following(self, bytes: u8) -> Option<Self> {
        let address = self.address.checked_add(u64::from(bytes))?;
        Some(Self { address, bit_width: bytes.saturating_mul(8), ..self })
    }
}
