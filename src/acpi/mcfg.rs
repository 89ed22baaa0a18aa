//! The MCFG table: the address of PCI configuration space (PCI Firmware specification 3.3, 4.1.2).

use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::table::{self, HEADER_SIZE, Signature, TableError};
use super::{EntryFlaw, Flaw, HostBridge};
use crate::boot::PhysRange;

/// Bytes of configuration space per bus: 32 devices, 8 functions, 4 KiB each.
const BUS_BYTES: u64 = 1 << 20;

/// Reserved bytes before the entries.
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

/// The memory-mapped configuration space of some buses of a segment group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EcamRegion {
    /// The segment group.
    pub segment: u16,
    /// The first bus.
    pub first_bus: u8,
    /// The last bus, not below the first.
    pub last_bus: u8,
    /// The memory of all its buses.
    pub range: PhysRange,
}

impl EcamRegion {
    fn new(raw: &RawEntry) -> Result<Self, Flaw> {
        let (base, first, last) = (raw.base.get(), raw.first_bus, raw.last_bus);
        let buses = u64::from(last.checked_sub(first).ok_or(Flaw::NoBus { first, last })?) + 1;
        if base == 0 || !base.is_multiple_of(BUS_BYTES) {
            return Err(Flaw::Address(base));
        }
        // The base is bus 0's, whatever the first bus.
        let start = base.checked_add(u64::from(first) * BUS_BYTES).ok_or(Flaw::Address(base))?;
        let range = PhysRange::parse(start, buses * BUS_BYTES).map_err(|_| Flaw::Address(base))?;
        Ok(Self { segment: raw.segment.get(), first_bus: first, last_bus: last, range })
    }

    /// The configuration space that a host bridge describes: for machines without an MCFG table.
    pub(crate) fn of_host_bridge(bridge: &HostBridge) -> Option<Self> {
        let (first_bus, last_bus) = bridge.buses;
        let base = U64::new(bridge.ecam?.as_u64());
        Self::new(&RawEntry { base, segment: U16::new(0), first_bus, last_bus, reserved: [0; 4] }).ok()
    }
}

/// Every region of mapped configuration space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mcfg {
    /// The regions, in the order of the table.
    pub regions: Vec<EcamRegion>,
    /// Flaws of entries, the first few.
    pub flaws: Vec<EntryFlaw>,
}

impl Mcfg {
    /// The most entries to read: several times the number of segment groups on the largest machines.
    const MOST: usize = 256;

    /// Parses an MCFG table. Skips invalid entries.
    ///
    /// # Errors
    /// When the table is damaged.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TableError> {
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acpi::fake::{assert_damage_is_refused, parse_every_prefix, table};

    fn entry(base: u64, segment: u16, first_bus: u8, last_bus: u8) -> Vec<u8> {
        let mut bytes = base.to_le_bytes().to_vec();
        bytes.extend(segment.to_le_bytes());
        bytes.extend([first_bus, last_bus, 0, 0, 0, 0]);
        bytes
    }

    fn body(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![0; 8];
        body.extend(entries.concat());
        body
    }

    fn parse(entries: &[Vec<u8>]) -> Mcfg {
        Mcfg::parse(&table(Signature::MCFG, 1, &body(entries))).unwrap()
    }

    #[test]
    fn regions_are_read_with_the_memory_of_their_buses() {
        let mcfg = parse(&[entry(0xb000_0000, 0, 0, 255), entry(0x10_0000_0000, 1, 0x40, 0x7f)]);
        assert!(mcfg.flaws.is_empty());
        let [first, second] = mcfg.regions[..] else { panic!("{mcfg:?}") };
        assert_eq!((first.range.start().as_u64(), first.range.bytes()), (0xb000_0000, 256 << 20));
        assert_eq!((second.segment, second.first_bus, second.last_bus), (1, 0x40, 0x7f));
        // The base is bus 0's, so the region begins 0x40 buses later.
        assert_eq!((second.range.start().as_u64(), second.range.bytes()), (0x10_0400_0000, 64 << 20));
    }

    #[test]
    fn entries_that_cannot_be_are_named_and_skipped() {
        let bad = [
            (entry(0, 0, 0, 255), Flaw::Address(0)),
            (entry(0xb000_1000, 0, 0, 255), Flaw::Address(0xb000_1000)),
            (entry(u64::MAX << 20, 0, 1, 255), Flaw::Address(u64::MAX << 20)),
            (entry((1 << 52) - (1 << 20), 0, 0, 1), Flaw::Address((1 << 52) - (1 << 20))),
            (entry(0xb000_0000, 0, 2, 1), Flaw::NoBus { first: 2, last: 1 }),
        ];
        for (bad, flaw) in bad {
            let mcfg = parse(&[bad, entry(0xe000_0000, 0, 0, 255)]);
            assert_eq!(mcfg.flaws, [EntryFlaw { table: Signature::MCFG, offset: 44, flaw }]);
            assert_eq!(mcfg.regions.len(), 1);
        }
    }

    #[test]
    fn an_entry_cut_off_is_named() {
        let mcfg = parse(&[entry(0xb000_0000, 0, 0, 255), vec![1, 2, 3]]);
        assert_eq!(mcfg.flaws, [EntryFlaw { table: Signature::MCFG, offset: 60, flaw: Flaw::CutOff }]);
        assert_eq!(mcfg.regions.len(), 1);
    }

    #[test]
    fn damage_is_refused() {
        let body = body(&[entry(0xb000_0000, 0, 0, 255)]);
        assert_damage_is_refused(&table(Signature::MCFG, 1, &body), Mcfg::parse);
        parse_every_prefix(Signature::MCFG, &body, Mcfg::parse);
    }

    /// Each region has the memory of its buses.
    fn check(mcfg: &Mcfg) {
        for region in &mcfg.regions {
            let buses = (region.first_bus..=region.last_bus).count() as u64;
            assert!(buses > 0 && region.range.bytes() == buses * BUS_BYTES, "{region:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_a_table_or_an_error(body: Vec<u8>) {
            if let Ok(mcfg) = Mcfg::parse(&table(Signature::MCFG, 1, &body)) {
                check(&mcfg);
            }
        }

        #[test]
        fn a_region_has_the_memory_of_its_buses(
            entries in prop::collection::vec((0..1u64 << 33, 0..3u16, 0..=u8::MAX, 0..=u8::MAX), 0..8),
        ) {
            let entry = |(base, segment, first, last): &(u64, _, _, _)| entry(base << 20, *segment, *first, *last);
            check(&parse(&entries.iter().map(entry).collect::<Vec<_>>()));
        }
    }
}
