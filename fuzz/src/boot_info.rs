//! A PVH loader as a fuzz input: start info, memory map, modules and command line, anywhere in memory or absent.

use arbitrary::Arbitrary;
use ballonet::memory::{PhysAddr, PhysRange};
use ballonet_kernel::boot::{BootInfo, KernelOptions, MemoryImage, MemoryMap, RegionKind, pvh};

/// Where the loader's memory begins.
pub(crate) const BASE: u64 = 0x6000;
/// Offsets of the lists; the start info is at offset 0.
const LISTS: [usize; 3] = [0x100, 0x1000, 0x2000];

/// Where the loader puts what.
#[derive(Debug, Arbitrary)]
pub struct Loader<'a> {
    magic: Option<u32>,
    version: u32,
    /// Number of entries and modules that the start info gives, if not the true ones.
    counts: [Option<u32>; 2],
    /// Addresses that the start info gives: map, modules, command line.
    addresses: [Option<u64>; 3],
    rsdp: u64,
    map: Vec<Entry>,
    modules: Vec<(u64, u64)>,
    command_line: &'a [u8],
    /// Bytes of memory that exist.
    length: u16,
}

/// An entry of the memory map.
#[derive(Debug, Arbitrary)]
pub struct Entry {
    start: u64,
    length: u64,
    /// Whether addresses are frame numbers close to each other, so that entries meet.
    near: bool,
    kind: u8,
}

impl Entry {
    fn range(&self) -> (u64, u64) {
        if self.near { (self.start % 64 * 0x1000, self.length % 16 * 0x1000) } else { (self.start, self.length) }
    }
}

/// Parses everything and checks the results.
pub fn run(loader: &Loader<'_>) {
    let image = loader.image();
    let memory = MemoryImage::new(address(BASE), &image);
    let mut notes = 0_usize;
    let parsed = pvh::parse(&memory, address(BASE), &mut |note| {
        notes += 1;
        assert!(!note.to_string().is_empty());
    });
    let info = match parsed {
        Ok(info) => info,
        Err(error) => {
            assert!(loader.magic.is_some() || image.len() < 56, "{error}");
            return;
        }
    };
    // Each entry causes a note if it is no range, overlaps another, or does not fit.
    assert!(notes <= 3 * ENTRIES_READ + 32, "{notes} notes");
    check_map(&info.memory_map);
    check_info(&info);
    let told = loader.counts == [None; 2] && loader.addresses == [None; 3] && loader.version >= 1;
    if told && image.len() > LISTS[2] && loader.map.len() <= ENTRIES {
        check_entries(&loader.map, &info.memory_map);
    }
}

/// The most entries of a map that are read.
pub(crate) const ENTRIES_READ: usize = 4096;

/// The most entries that fit.
const ENTRIES: usize = (LISTS[1] - LISTS[0]) / 24;

pub(crate) fn address(value: u64) -> PhysAddr {
    PhysAddr::new(value).expect("below 2^52")
}

pub(crate) fn check_map(map: &MemoryMap) {
    for pair in map.regions().windows(2) {
        let (end, start) = (pair[0].range.end(), pair[1].range.start().as_u64());
        assert!(end <= start, "{} overlaps {}", pair[0], pair[1]);
        assert!(end < start || pair[0].kind != pair[1].kind, "{} and {} are one", pair[0], pair[1]);
    }
    assert!(map.usable().map(PhysRange::bytes).sum::<u64>() <= 1 << 52);
}

pub(crate) fn check_info(info: &BootInfo) {
    let line = info.command_line.as_bytes();
    assert!(!line.contains(&0));
    let _ = KernelOptions::parse(line, &mut |warning| drop(warning.to_string()));
}

/// Memory is usable only where every entry that covers it says so; all of it is found, unless the map ran full.
fn check_entries(entries: &[Entry], map: &MemoryMap) {
    let ranges: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let (start, length) = entry.range();
            Some((PhysRange::parse(start, length).ok()?, RegionKind::from_e820(entry.kind.into())))
        })
        .collect();
    let usable = |at: PhysAddr| map.usable().any(|range| range.contains(at));
    for (range, _) in &ranges {
        for at in [range.start(), address(range.end() - 1)] {
            let mut kinds = ranges.iter().filter(|(other, _)| other.contains(at)).map(|(_, kind)| *kind);
            let expected = kinds.all(|kind| kind == RegionKind::Usable);
            assert!(usable(at) == expected || map.truncated && !usable(at), "{at:?}: {ranges:?}");
        }
    }
}

impl Loader<'_> {
    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; 0x3000];
        let listed = |which: usize| self.addresses[which].unwrap_or(BASE + LISTS[which] as u64);
        let count = |which: usize, length: usize| self.counts[which].unwrap_or(length as u32);
        let mut start = Vec::new();
        for word in [self.magic.unwrap_or(pvh::START_MAGIC), self.version, 0, count(1, self.modules.len())] {
            start.extend(word.to_le_bytes());
        }
        for address in [listed(1), listed(2), self.rsdp, listed(0)] {
            start.extend(address.to_le_bytes());
        }
        start.extend(count(0, self.map.len()).to_le_bytes());
        put(&mut image, 0, &start);
        let entries = self.map.iter().flat_map(|entry| {
            let (start, length) = entry.range();
            [start, length, entry.kind.into()].map(u64::to_le_bytes).concat()
        });
        put(&mut image, LISTS[0], &entries.take(24 * ENTRIES).collect::<Vec<u8>>());
        let modules =
            self.modules.iter().flat_map(|(start, length)| [*start, *length, 0, 0].map(u64::to_le_bytes).concat());
        put(&mut image, LISTS[1], &modules.take(0x1000).collect::<Vec<u8>>());
        put(&mut image, LISTS[2], self.command_line.get(..0xfff).unwrap_or(self.command_line));
        image.truncate(image.len() - usize::from(self.length) % image.len());
        image
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}
