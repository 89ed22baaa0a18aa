//! The SRAT: the affinity of address ranges (ACPI 6.5, 5.2.16). Only memory entries are parsed.

use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::madt;
use super::table::{self, HEADER_SIZE, Signature, TableError};
use super::{EntryFlaw, Flaw};
use crate::boot::PhysRange;

const RESERVED_BYTES: usize = 12;
const MEMORY: u8 = 1;
const ENABLED: u32 = 1 << 0;
const HOT_PLUGGABLE: u32 = 1 << 1;
const NON_VOLATILE: u32 = 1 << 2;

/// Type 1: memory affinity.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMemory {
    head: [u8; 2],
    proximity: U32,
    reserved: U16,
    base: U64,
    length: U64,
    reserved_too: U32,
    flags: U32,
}

/// An address range for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryAffinity {
    /// The addresses.
    pub range: PhysRange,
    /// Hot-pluggable: memory may be added later, so the range may be empty.
    pub is_hot_pluggable: bool,
    /// Non-volatile.
    pub is_persistent: bool,
}

/// The memory entries of a SRAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Srat {
    /// The address ranges for memory, in the order of the table.
    pub memory: Vec<MemoryAffinity>,
    /// Flaws of entries, the first few.
    pub flaws: Vec<EntryFlaw>,
}

impl Srat {
    /// The most memory entries kept: far more than any machine has.
    const MOST: usize = 1024;

    /// Parses an SRAT. Skips entries of other types and disabled ones.
    ///
    /// # Errors
    /// When the table is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let (_, body) = table::open(bytes, Signature::SRAT)?;
        let (_, mut rest) = table::body::<[u8; RESERVED_BYTES]>(body)?;
        let mut srat = Self { memory: Vec::new(), flaws: Vec::new() };
        let mut offset = HEADER_SIZE + RESERVED_BYTES;
        while !rest.is_empty() {
            let entry = match madt::first_entry(rest) {
                Ok(entry) => entry,
                Err(flaw) => {
                    EntryFlaw { table: Signature::SRAT, offset, flaw }.note(&mut srat.flaws);
                    break;
                }
            };
            if let Err(flaw) = srat.take(entry) {
                EntryFlaw { table: Signature::SRAT, offset, flaw }.note(&mut srat.flaws);
            }
            offset += entry.len();
            rest = rest.get(entry.len()..).unwrap_or(&[]);
        }
        Ok(srat)
    }

    fn take(&mut self, entry: &[u8]) -> Result<(), Flaw> {
        if entry.first() != Some(&MEMORY) || self.memory.len() == Self::MOST {
            return Ok(());
        }
        let short = Flaw::TooShort { kind: MEMORY, length: entry.len() };
        let (raw, _) = RawMemory::read_from_prefix(entry).map_err(|_| short)?;
        // QEMU has an empty entry for memory above 4 GiB that does not exist.
        if raw.flags.get() & ENABLED == 0 || raw.length.get() == 0 {
            return Ok(());
        }
        let base = raw.base.get();
        let range = PhysRange::parse(base, raw.length.get()).map_err(|_| Flaw::Address(base))?;
        let has = |flag| raw.flags.get() & flag != 0;
        let (is_hot_pluggable, is_persistent) = (has(HOT_PLUGGABLE), has(NON_VOLATILE));
        self.memory.push(MemoryAffinity { range, is_hot_pluggable, is_persistent });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acpi::fake::{assert_damage_is_refused, parse_every_prefix, table};

    fn memory(base: u64, length: u64, flags: u32) -> Vec<u8> {
        let mut entry = vec![MEMORY, 40, 0, 0, 0, 0, 0, 0];
        entry.extend(base.to_le_bytes());
        entry.extend(length.to_le_bytes());
        entry.extend([0; 4]);
        entry.extend(flags.to_le_bytes());
        entry.extend([0; 8]);
        entry
    }

    /// QEMU 7.2's and 10.0's table for 512 MiB, room for 4 GiB, and a DIMM of 256 MiB, which it does not mention.
    fn of_qemu() -> Vec<u8> {
        let mut body = vec![0; 12];
        body.extend([0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for (base, length, flags) in
            [(0, 0xA_0000, 1), (0x10_0000, 0x1FF0_0000, 1), (0, 0, 0), (0x1_0000_0000, 0x1_E000_0000, 3)]
        {
            body.extend(memory(base, length, flags));
        }
        body
    }

    #[test]
    fn the_ranges_are_read_and_which_may_be_empty() {
        let srat = Srat::parse(&table(Signature::SRAT, 1, &of_qemu())).unwrap();
        let ranges: Vec<_> = srat
            .memory
            .iter()
            .map(|memory| (memory.range.start().as_u64(), memory.range.end(), memory.is_hot_pluggable))
            .collect();
        assert_eq!(
            ranges,
            [(0, 0xA_0000, false), (0x10_0000, 0x2000_0000, false), (0x1_0000_0000, 0x2_E000_0000, true)]
        );
        assert_eq!(srat.flaws, []);
    }

    #[test]
    fn entries_that_cannot_be_are_named() {
        let mut body = of_qemu();
        body.extend(memory(u64::MAX, 2, 1));
        body.extend([MEMORY, 8, 0, 0, 0, 0, 0, 0]);
        body.extend([MEMORY, 1]);
        let srat = Srat::parse(&table(Signature::SRAT, 1, &body)).unwrap();
        assert_eq!(srat.memory.len(), 3);
        let flaws: Vec<_> = srat.flaws.iter().map(|flaw| flaw.flaw).collect();
        assert_eq!(flaws, [Flaw::Address(u64::MAX), Flaw::TooShort { kind: MEMORY, length: 8 }, Flaw::NoLength(1),]);
    }

    #[test]
    fn damage_is_refused() {
        assert_damage_is_refused(&table(Signature::SRAT, 1, &of_qemu()), Srat::parse);
        parse_every_prefix(Signature::SRAT, &of_qemu(), Srat::parse);
    }
}
