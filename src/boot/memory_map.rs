//! The memory map: which physical addresses are what, sorted and without overlap.

use core::fmt;

use derive_more::Display;

use super::{Note, PhysRange};

/// What a range of physical addresses is for (ACPI 6.5, 15.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display)]
pub enum RegionKind {
    /// RAM that the kernel may use.
    #[display("usable")]
    Usable,
    /// Not for the kernel: devices, firmware, or nothing at all.
    #[display("reserved")]
    Reserved,
    /// ACPI tables: usable once they have been read.
    #[display("ACPI tables")]
    AcpiReclaimable,
    /// ACPI non-volatile storage, to be left alone.
    #[display("ACPI NVS")]
    AcpiNvs,
    /// Memory in which errors were found.
    #[display("unusable")]
    Unusable,
    /// Memory that keeps its contents without power.
    #[display("persistent")]
    Persistent,
    /// A kind with a number that no specification we know gives a meaning to. Left alone.
    #[display("kind {_0}")]
    Other(u32),
}

impl RegionKind {
    /// The kind with this number in the map of INT 15h E820h and of everything modelled on it (ACPI 6.5, table 15.6).
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

    /// Who keeps the bytes that two entries claim: the kind that allows less, which is the one with the lower number.
    const fn precedence(self) -> usize {
        match self {
            Self::Unusable => 0,
            Self::Reserved | Self::Other(_) => 1,
            Self::AcpiNvs => 2,
            Self::AcpiReclaimable => 3,
            Self::Persistent => 4,
            Self::Usable => 5,
        }
    }

    const PRECEDENCES: usize = 6;
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

/// The memory map: at most [`MemoryMap::CAPACITY`] regions, ascending, none overlapping, neighbours of one kind joined.
#[derive(Clone)]
pub struct MemoryMap {
    /// The first `count` are regions of the map; the rest is filler.
    slots: [Region; Self::CAPACITY],
    count: usize,
    truncated: bool,
}

impl MemoryMap {
    /// How many regions a map holds. A PC's map has 5 to 100.
    pub const CAPACITY: usize = 256;

    const FILLER: Region = match PhysRange::parse(0, 1) {
        Ok(range) => Region { range, kind: RegionKind::Reserved },
        Err(_) => panic!("one byte is a range"),
    };

    /// The map with no region.
    pub const fn empty() -> Self {
        Self { slots: [Self::FILLER; Self::CAPACITY], count: 0, truncated: false }
    }

    /// Sorts out a loader's entries, which may come in any order and overlap.
    ///
    /// Bytes that several entries claim go to the kind that allows least, so nothing is usable unless every entry that
    /// speaks of it says so. Overlaps are reported, and so are regions for which there is no room; what was left out
    /// for that reason is not usable either.
    pub fn from_entries(entries: &(impl Iterator<Item = Region> + Clone), report: &mut dyn FnMut(Note)) -> Self {
        let mut map = Self::empty();
        // The strictest kind first: each later entry then gets only what is left over.
        for precedence in 0..RegionKind::PRECEDENCES {
            // Something strict was left out, so what is less strict cannot be known to be free of it.
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
    pub fn of_kind(&self, kind: RegionKind) -> impl Iterator<Item = PhysRange> + Clone + '_ {
        self.regions().iter().filter(move |region| region.kind == kind).map(|region| region.range)
    }

    /// Usable memory in bytes.
    pub fn usable_bytes(&self) -> u64 {
        // No overlap and nothing above 2^52: the sum fits.
        self.usable().map(PhysRange::bytes).sum()
    }

    /// Whether regions had to be left out.
    pub const fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Adds what no region has claimed yet of `region`.
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
