//! The HPET table: the address of the high precision event timer (IA-PC HPET specification 1.0a, 3.2.4).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::address::RawAddress;
use super::table::{self, Signature, TableError};
use super::{AddressSpace, GenericAddress};
use ballonet::memory::PhysAddr;

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHpet {
    block_id: U32,
    base: RawAddress,
    number: u8,
    min_tick: U16,
    page_protection: u8,
}

/// The event timer block. For its capabilities, trust its registers, not this table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hpet {
    /// Address of its registers (1 KiB).
    pub base: PhysAddr,
    /// Its number, 0 for the first.
    pub number: u8,
    /// The minimum number of ticks between two interrupts that loses none in periodic mode.
    pub min_tick: u16,
    /// The upper half of its capabilities: PCI vendor ID.
    pub vendor: u16,
}

impl Hpet {
    /// Reads a HPET table.
    ///
    /// # Errors
    /// When the table is damaged, or its base is not a memory address.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let (_, body) = table::open(bytes, Signature::HPET)?;
        let (raw, _) = table::body::<RawHpet>(body)?;
        let Some(register) = GenericAddress::parse(raw.base) else { return Err(TableError::Address(0)) };
        let base = PhysAddr::new(register.address).filter(|_| register.space == AddressSpace::Memory);
        Ok(Self {
            base: base.ok_or(TableError::Address(register.address))?,
            number: raw.number,
            min_tick: raw.min_tick.get(),
            vendor: (raw.block_id.get() >> 16) as u16,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::fake::{assert_damage_is_refused, gas, parse_every_prefix, table};

    /// As in QEMU's table.
    fn body(space: u8, base: u64) -> Vec<u8> {
        let mut body = 0x8086_a201u32.to_le_bytes().to_vec();
        body.extend(gas(space, 0, 0, base));
        body.extend([0, 0x80, 0x00, 0]);
        body
    }

    #[test]
    fn the_timer_is_where_the_table_says() {
        let hpet = Hpet::parse(&table(Signature::HPET, 1, &body(0, 0xfed0_0000))).unwrap();
        assert_eq!(hpet, Hpet { base: PhysAddr::new(0xfed0_0000).unwrap(), number: 0, min_tick: 0x80, vendor: 0x8086 });
    }

    #[test]
    fn a_base_that_cannot_be_is_an_error() {
        for (space, base) in [(0, 0), (1, 0xfed0_0000), (0, 1 << 52), (0, u64::MAX)] {
            assert_eq!(Hpet::parse(&table(Signature::HPET, 1, &body(space, base))), Err(TableError::Address(base)));
        }
    }

    #[test]
    fn damage_is_refused() {
        assert_damage_is_refused(&table(Signature::HPET, 1, &body(0, 0xfed0_0000)), Hpet::parse);
        parse_every_prefix(Signature::HPET, &body(0, 0xfed0_0000), Hpet::parse);
    }

    proptest! {
        #[test]
        fn any_body_is_a_table_or_an_error(body: Vec<u8>) {
            let _ = Hpet::parse(&table(Signature::HPET, 1, &body));
        }
    }
}
