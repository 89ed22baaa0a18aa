//! The MCFG table: where PCI configuration space is mapped (PCI Firmware specification 3.3, 4.1.2).

use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{self, HEADER_SIZE, Signature, TableError};
use super::{EntryFlaw, Flaw};
use crate::boot::PhysRange;
use crate::memory::PhysAddr;

/// Bytes of configuration space a bus: 32 devices, 8 functions, 4 KiB each.
const BUS_BYTES: u64 = 1 << 20;

/// What the table has before its entries.
const RESERVED_BYTES: usize = 8;
const ENTRIES_OFFSET: usize = HEADER_SIZE + RESERVED_BYTES;
const ENTRY_SIZE: usize = size_of::<RawEntry>();

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    base: U64,
    segment: U16,
    first_bus: u8,
    last_bus: u8,
    reserved: [u8; 4],
}

/// Configuration space of some buses of a segment group, mapped into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EcamRegion {
    segment: u16,
    first_bus: u8,
    last_bus: u8,
    range: PhysRange,
}

impl EcamRegion {
    fn new(raw: &RawEntry) -> Result<Self, Flaw> {
        let (base, first, last) = (raw.base.get(), raw.first_bus, raw.last_bus);
        let buses = u64::from(last.checked_sub(first).ok_or(Flaw::NoBus { first, last })?) + 1;
        if base == 0 || !base.is_multiple_of(BUS_BYTES) {
            return Err(Flaw::Address(base));
        }
        // The base is that of bus 0, whichever bus comes first.
        let start = base.checked_add(u64::from(first) * BUS_BYTES).ok_or(Flaw::Address(base))?;
        let range = PhysRange::new(start, buses * BUS_BYTES).map_err(|_| Flaw::Address(base))?;
        Ok(Self { segment: raw.segment.get(), first_bus: first, last_bus: last, range })
    }

    /// The segment group.
    pub const fn segment(self) -> u16 {
        self.segment
    }

    /// The first bus.
    pub const fn first_bus(self) -> u8 {
        self.first_bus
    }

    /// The last bus, not below the first.
    pub const fn last_bus(self) -> u8 {
        self.last_bus
    }

    /// The memory that all of it takes, from the first bus to the last.
    pub const fn range(self) -> PhysRange {
        self.range
    }

    /// Where the configuration space of `bus` begins, 1 MiB of it; `None` for a bus that is not in this region.
    pub fn bus_address(self, bus: u8) -> Option<PhysAddr> {
        let offset = u64::from(bus.checked_sub(self.first_bus)?) * BUS_BYTES;
        if bus > self.last_bus { None } else { self.range.start().checked_add(offset) }
    }
}

/// Every region of mapped configuration space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcfg {
    regions: Vec<EcamRegion>,
    flaws: Vec<EntryFlaw>,
}

impl Mcfg {
    /// Entries that are read: as many as there are segment groups on the largest machines, many times over.
    const MOST: usize = 256;

    /// Reads a MCFG table. Entries that cannot be are skipped.
    ///
    /// # Errors
    /// When the table is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let (_, body) = table::open(bytes, Signature::MCFG)?;
        let (_, entries) = table::body::<[u8; RESERVED_BYTES]>(body)?;
        let mut mcfg = Self { regions: Vec::new(), flaws: Vec::new() };
        for (index, entry) in entries.chunks(ENTRY_SIZE).take(Self::MOST).enumerate() {
            let raw = RawEntry::read_from_bytes(entry).map_err(|_| Flaw::CutOff);
            match raw.and_then(|raw| EcamRegion::new(&raw)) {
                Ok(region) => mcfg.regions.push(region),
                Err(flaw) => {
                    let offset = ENTRIES_OFFSET + index * ENTRY_SIZE;
                    EntryFlaw { table: Signature::MCFG, offset, flaw }.note(&mut mcfg.flaws);
                }
            }
        }
        Ok(mcfg)
    }

    /// The regions, in the order of the table.
    pub fn regions(&self) -> &[EcamRegion] {
        &self.regions
    }

    /// The first region that has this bus.
    pub fn region(&self, segment: u16, bus: u8) -> Option<EcamRegion> {
        let has_bus = |region: &&EcamRegion| region.segment == segment && region.bus_address(bus).is_some();
        self.regions.iter().find(has_bus).copied()
    }

    /// What was wrong with entries, the first few.
    pub fn flaws(&self) -> &[EntryFlaw] {
        &self.flaws
    }
}
