//! The memory map: regions of physical addresses, sorted and without overlap.

use core::fmt;

use super::{Note, PhysRange, Region, RegionKind};

/// The memory map: at most `CAPACITY` regions, ascending, none overlapping, neighbours of one kind joined.
#[derive(Clone)]
pub struct MemoryMap {
    /// The first `count` are regions of the map; the rest is filler.
    slots: [Region; Self::CAPACITY],
    count: usize,
    /// Whether regions were left out for lack of room.
    pub truncated: bool,
}

/// The most that firmware keeps of memory in one piece; a larger region is something else.
const KEPT_MAX: u64 = 16 << 20;

impl MemoryMap {
    /// The most regions of a map. A PC's map has 5 to 100.
    pub(crate) const CAPACITY: usize = 256;

    const FILLER: Region = match PhysRange::parse(0, 1) {
        Ok(range) => Region { range, kind: RegionKind::Reserved },
        Err(_) => panic!("one byte is a range"),
    };

    /// The map with no region.
    pub(crate) const fn empty() -> Self {
        Self { slots: [Self::FILLER; Self::CAPACITY], count: 0, truncated: false }
    }

    /// Makes a map of a loader's entries, which may come in any order and overlap.
    ///
    /// Bytes that several entries claim get the strictest kind: a byte is usable only if every entry for it says so.
    /// Overlaps are reported, and so are regions for which there is no room; memory left out for that reason is not
    /// usable.
    pub(crate) fn from_entries(entries: &(impl Iterator<Item = Region> + Clone), report: &mut dyn FnMut(Note)) -> Self {
        let mut map = Self::empty();
        // The strictest kind first: each later entry gets only the remainder.
        for precedence in 0..RegionKind::PRECEDENCES {
            // A strict region was left out, so a less strict one may overlap it.
            if map.truncated {
                break;
            }
            for region in entries.clone().filter(|region| region.kind.precedence() == precedence) {
                map.add(region, report);
            }
        }
        if map.truncated {
            report(Note::MapTruncated { capacity: Self::CAPACITY });
        }
        map
    }

    /// The regions, ascending.
    pub fn regions(&self) -> &[Region] {
        self.slots.get(..self.count).unwrap_or(&[])
    }

    /// The usable ranges, ascending.
    pub fn usable(&self) -> impl Iterator<Item = PhysRange> + Clone + '_ {
        self.of_kind(RegionKind::Usable)
    }

    /// The ranges of one kind, ascending.
    pub(crate) fn of_kind(&self, kind: RegionKind) -> impl Iterator<Item = PhysRange> + Clone + '_ {
        self.regions().iter().filter(move |region| region.kind == kind).map(|region| region.range)
    }

    /// The ends of the memory below 4 GiB and of all memory: the addresses of the first byte that is none. Small regions
    /// right behind usable memory are memory that firmware keeps.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let end_below = |limit: u64| {
            let usable = self.usable().filter(|range| range.start().as_u64() < limit).last();
            let behind = |end: u64| {
                let next = self.regions().iter().find(|region| region.range.start().as_u64() == end);
                next.filter(|region| region.range.bytes() <= KEPT_MAX && end < limit).map(|region| region.range.end())
            };
            core::iter::successors(usable.map(PhysRange::end), |end| behind(*end)).last().unwrap_or(0)
        };
        (end_below(1 << 32), end_below(u64::MAX))
    }

    /// Usable memory in bytes.
    #[cfg(test)]
    pub(crate) fn usable_bytes(&self) -> u64 {
        // No overlap and nothing above 2^52: the sum fits.
        self.usable().map(PhysRange::bytes).sum()
    }

    /// Adds usable memory that is in no entry. Returns whether it is in the map now: not if it overlaps a region, or if
    /// there is no room.
    pub(crate) fn add_usable(&mut self, range: PhysRange) -> bool {
        let index = self.regions().partition_point(|placed| placed.range.end() <= range.start().as_u64());
        let is_free = self.regions().get(index).is_none_or(|next| !next.range.overlaps(range));
        is_free && !self.truncated && self.place(index, Region { range, kind: RegionKind::Usable })
    }

    /// The parts of `range` that are in no region, ascending.
    pub(crate) fn unnamed(&self, range: PhysRange) -> impl Iterator<Item = PhysRange> + '_ {
        let ends = self.regions().iter().map(|region| region.range.end());
        let starts = self.regions().iter().map(|region| region.range.start().as_u64());
        let gaps = core::iter::once(0).chain(ends).zip(starts.chain(core::iter::once(u64::MAX)));
        gaps.filter_map(move |(start, end)| {
            let (start, end) = (start.max(range.start().as_u64()), end.min(range.end()));
            PhysRange::parse(start, end.checked_sub(start)?).ok()
        })
    }

    /// Adds the parts of `region` that no region has yet.
    fn add(&mut self, region: Region, report: &mut dyn FnMut(Note)) {
        let (mut from, end) = (region.range.start().as_u64(), region.range.end());
        let mut overlapped = false;
        while from < end {
            let index = self.regions().partition_point(|placed| placed.range.end() <= from);
            let next = self.regions().get(index).map(|placed| placed.range);
            match next {
                Some(next) if next.start().as_u64() <= from => {
                    overlapped = true;
                    from = next.end();
                }
                _ => {
                    let until = next.map_or(end, |next| next.start().as_u64().min(end));
                    let Ok(range) = PhysRange::parse(from, until - from) else { return };
                    if !self.place(index, Region { range, kind: region.kind }) {
                        self.truncated = true;
                        report(Note::RegionDropped { region: Region { range, kind: region.kind } });
                        return;
                    }
                    from = until;
                }
            }
        }
        if overlapped {
            report(Note::Overlap { region });
        }
    }

    /// Puts a region that overlaps none before the one at `index`, joining neighbours. `false` if there is no room.
    fn place(&mut self, index: usize, region: Region) -> bool {
        let joined_below = index.checked_sub(1).and_then(|below| self.join(below, region));
        let joined_above = self.join(index, joined_below.unwrap_or(region));
        match (joined_below, joined_above) {
            (Some(_), Some(joined)) => {
                self.slots[index - 1] = joined;
                self.slots.copy_within(index + 1..self.count, index);
                self.count -= 1;
            }
            (Some(joined), None) => self.slots[index - 1] = joined,
            (None, Some(joined)) => self.slots[index] = joined,
            (None, None) if self.count < Self::CAPACITY => {
                self.slots.copy_within(index..self.count, index + 1);
                self.slots[index] = region;
                self.count += 1;
            }
            (None, None) => return false,
        }
        true
    }

    /// The region at `index` together with `region`, if they are neighbours of one kind.
    fn join(&self, index: usize, region: Region) -> Option<Region> {
        let placed = self.regions().get(index)?;
        let (low, high) =
            if placed.range.start() < region.range.start() { (*placed, region) } else { (region, *placed) };
        let start = low.range.start().as_u64();
        let range = PhysRange::parse(start, high.range.end() - start).ok()?;
        (low.kind == high.kind && low.range.end() == high.range.start().as_u64()).then_some(Region { range, ..low })
    }
}

impl fmt::Debug for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.regions()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(start: u64, end: u64, kind: RegionKind) -> Region {
        Region { range: PhysRange::parse(start, end - start).unwrap(), kind }
    }

    fn map(entries: &[Region]) -> (MemoryMap, Vec<Note>) {
        let mut notes = Vec::new();
        let map = MemoryMap::from_entries(&entries.iter().copied(), &mut |note| notes.push(note));
        (map, notes)
    }

    use RegionKind::{AcpiReclaimable, Reserved, Unusable, Usable};

    #[test]
    fn entries_are_sorted_and_neighbours_of_one_kind_joined() {
        let (map, notes) = map(&[
            region(0x9000, 0xa000, Usable),
            region(0x1000, 0x2000, Usable),
            region(0x3000, 0x4000, Reserved),
            region(0x2000, 0x3000, Usable),
            region(0x4000, 0x5000, Usable),
        ]);
        assert_eq!(
            map.regions(),
            [
                region(0x1000, 0x3000, Usable),
                region(0x3000, 0x4000, Reserved),
                region(0x4000, 0x5000, Usable),
                region(0x9000, 0xa000, Usable),
            ]
        );
        assert_eq!((notes, map.usable_bytes()), (vec![], 0x4000));
    }

    #[test]
    fn a_gap_filled_joins_both_sides() {
        let (map, _) = map(&[
            region(0x1000, 0x2000, Usable),
            region(0x3000, 0x4000, Usable),
            region(0x5000, 0x6000, Usable),
            region(0x2000, 0x3000, Usable),
        ]);
        assert_eq!(map.regions(), [region(0x1000, 0x4000, Usable), region(0x5000, 0x6000, Usable)]);
    }

    #[test]
    fn of_overlapping_entries_the_one_that_allows_less_wins() {
        let all = region(0x1000, 0x9000, Usable);
        let (map, notes) = map(&[all, region(0x3000, 0x5000, AcpiReclaimable), region(0x4000, 0x6000, Unusable)]);
        assert_eq!(
            map.regions(),
            [
                region(0x1000, 0x3000, Usable),
                region(0x3000, 0x4000, AcpiReclaimable),
                region(0x4000, 0x6000, Unusable),
                region(0x6000, 0x9000, Usable),
            ]
        );
        assert_eq!(
            notes,
            [Note::Overlap { region: region(0x3000, 0x5000, AcpiReclaimable) }, Note::Overlap { region: all }]
        );
    }

    #[test]
    fn an_entry_that_others_cover_whole_leaves_nothing() {
        let (map, notes) = map(&[region(0x1000, 0x9000, Reserved), region(0x2000, 0x3000, Usable)]);
        assert_eq!((map.usable().count(), notes.len()), (0, 1));
    }

    #[test]
    fn usable_yields_to_every_other_kind_in_either_order() {
        for kind in [2, 3, 4, 5, 6, 7, 99].map(RegionKind::from_e820) {
            let (usable, other) = (region(0x1000, 0x3000, Usable), region(0x2000, 0x4000, kind));
            for entries in [[usable, other], [other, usable]] {
                assert_eq!(map(&entries).0.regions(), [region(0x1000, 0x2000, Usable), other]);
            }
        }
    }

    #[test]
    fn the_whole_of_physical_memory_is_a_region() {
        let (map, _) = map(&[region(0, 1 << 52, Usable)]);
        assert_eq!(map.usable_bytes(), 1 << 52);
    }

    #[test]
    fn a_map_that_overflows_says_so_and_loses_usable_memory_first() {
        let mut entries: Vec<_> = (0..300).map(|n| region(n * 0x2000, n * 0x2000 + 0x1000, Usable)).collect();
        entries.push(region(0x100_0000, 0x100_1000, Reserved));
        let (map, notes) = map(&entries);
        assert!(map.truncated);
        assert_eq!((map.regions().len(), map.of_kind(Reserved).count()), (MemoryMap::CAPACITY, 1));
        assert_eq!(notes.last(), Some(&Note::MapTruncated { capacity: MemoryMap::CAPACITY }));
        assert!(notes.last().unwrap().to_string().contains("INCOMPLETE"));
    }

    #[test]
    fn memory_that_was_left_out_never_becomes_usable() {
        // Reserved regions that fill the map, the last two left out; then usable memory over everything.
        let mut entries: Vec<_> = (0..258).map(|n| region(n * 0x2000, n * 0x2000 + 0x1000, Reserved)).collect();
        // Joins the first two, which makes room for one more region.
        entries.push(region(0x1000, 0x2000, Reserved));
        entries.push(region(0, 0x1000_0000, Usable));
        let (map, _) = map(&entries);
        assert!(map.truncated);
        assert_eq!(map.usable().count(), 0);
    }

    #[test]
    fn numbers_of_kinds_are_those_of_e820() {
        let kinds = [1, 2, 3, 4, 5, 6, 7, 12].map(RegionKind::from_e820);
        assert_eq!(
            kinds.map(|kind| kind.to_string()),
            ["usable", "reserved", "ACPI tables", "ACPI NVS", "unusable", "kind 6", "persistent", "kind 12"]
        );
    }

    #[test]
    fn memory_that_no_entry_has_can_be_added() {
        let (mut map, _) = map(&[region(0x10, 0x20, Usable), region(0x40, 0x50, Reserved)]);
        let range = |start, end| PhysRange::parse(start, end - start).unwrap();
        for taken in [range(0x1F, 0x30), range(0x3F, 0x41), range(0x4F, 0x60), range(0, 0x100)] {
            assert!(!map.add_usable(taken), "{taken:?}");
        }
        assert!(map.add_usable(range(0x20, 0x30)) && map.add_usable(range(0x50, 0x60)));
        assert_eq!(
            map.regions(),
            [region(0x10, 0x30, Usable), region(0x40, 0x50, Reserved), region(0x50, 0x60, Usable)]
        );
        assert_eq!(map.unnamed(range(0, 0x58)).collect::<Vec<_>>(), [range(0, 0x10), range(0x30, 0x40)]);
        assert_eq!(map.unnamed(range(0x55, 0x70)).collect::<Vec<_>>(), [range(0x60, 0x70)]);
        assert_eq!(map.unnamed(range(0x40, 0x60)).count(), 0);
    }

    #[test]
    fn memory_ends_behind_what_firmware_keeps_of_it() {
        const GIB: u64 = 1 << 30;
        let low = [region(0, 0xa_0000, Usable), region(0x10_0000, GIB - 0x2_0000, Usable)];
        let kept = region(GIB - 0x2_0000, GIB, AcpiReclaimable);
        // Configuration space, which is no memory.
        let large = region(GIB, GIB + (256 << 20), Reserved);
        let ends = |more: &[Region]| map(&[&low, more].concat()).0.ends();
        assert_eq!(ends(&[]), (GIB - 0x2_0000, GIB - 0x2_0000));
        assert_eq!(ends(&[kept, large]), (GIB, GIB));
        assert_eq!(ends(&[kept, region(4 * GIB, 5 * GIB, Usable)]), (GIB, 5 * GIB));
        assert_eq!(map(&[]).0.ends(), (0, 0));
    }

    proptest! {
        /// Compared, byte by byte, with asking every entry.
        #[test]
        fn each_byte_goes_to_the_strictest_entry_that_has_it(
            entries in prop::collection::vec((0u64..60, 1u64..20, 1u32..8), 0..24),
        ) {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(start, length, kind)| region(start, start + length, RegionKind::from_e820(kind)))
                .collect();
            let (map, _) = map(&entries);
            for pair in map.regions().windows(2) {
                prop_assert!(pair[0].range.end() <= pair[1].range.start().as_u64());
                prop_assert!(pair[0].range.end() < pair[1].range.start().as_u64() || pair[0].kind != pair[1].kind);
            }
            for byte in (0..90).map(|byte| ballonet::memory::PhysAddr::new(byte).unwrap()) {
                let asked = entries.iter().filter(|entry| entry.range.contains(byte));
                let expected = asked.min_by_key(|entry| entry.kind.precedence()).map(|entry| entry.kind.precedence());
                let found = map.regions().iter().find(|placed| placed.range.contains(byte));
                prop_assert_eq!(found.map(|placed| placed.kind.precedence()), expected);
            }
        }
    }
}
