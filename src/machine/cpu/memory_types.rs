//! Memory types: the MTRRs, which stay as firmware set them, and the PAT, of which the kernel needs two entries (SDM
//! vol. 3, 13.11 and 13.12).

use derive_more::Display;
use x86_64::instructions::tlb;

use crate::machine::cpu::cpuid::Features;
use crate::machine::cpu::msr;

/// A memory type, with its encoding in MTRRs and the PAT (SDM vol. 3, table 13-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub(crate) enum MemoryType {
    /// Each access goes to the bus, in order.
    #[display("uncached")]
    Uncached,
    /// Writes are combined.
    #[display("write-combining")]
    WriteCombining,
    /// Writes go to memory at once.
    #[display("write-through")]
    WriteThrough,
    /// Only reads are cached.
    #[display("write-protected")]
    WriteProtected,
    /// The type that memory must have.
    #[display("write-back")]
    WriteBack,
}

impl MemoryType {
    /// The type of an encoding; reserved ones count as uncached, which is always safe.
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::WriteCombining,
            4 => Self::WriteThrough,
            5 => Self::WriteProtected,
            6 => Self::WriteBack,
            _ => Self::Uncached,
        }
    }

    /// The type where two ranges overlap (SDM vol. 3, 13.11.4.1).
    const fn overlapping(self, other: Self) -> Self {
        match (self, other) {
            (Self::WriteBack, Self::WriteThrough | Self::WriteBack) => other,
            (Self::WriteThrough, Self::WriteBack | Self::WriteThrough) => Self::WriteThrough,
            _ => Self::Uncached,
        }
    }
}

const CAPABILITIES: u32 = 0xFE;
const DEFAULT_TYPE: u32 = 0x2FF;
/// The first variable range: base, then mask; the others follow.
const FIRST_BASE: u32 = 0x200;
/// Default type: MTRRs are on. Mask of a range: the range is valid.
const ENABLED: u64 = 1 << 11;
/// The most variable ranges that are read: CPUs have 8 to 10.
const MOST_RANGES: usize = 16;

/// A variable range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
    kind: MemoryType,
}

impl Range {
    /// The range of a base and a mask register; `None` if it is not in use. A non-contiguous mask, which firmware does
    /// not use, is read as that of its smallest block.
    fn of(base: u64, mask: u64, physical_bits: u8) -> Option<Self> {
        let addresses = (1 << physical_bits) - 1;
        let bits = (mask & addresses) >> 12;
        let size = 1_u64.checked_shl(bits.trailing_zeros() + 12)?;
        let start = base & addresses & !0xFFF;
        let valid = mask & ENABLED != 0 && bits != 0;
        valid.then_some(Self { start, end: start.saturating_add(size), kind: MemoryType::of(base as u8) })
    }
}

/// The memory types that the MTRRs give to addresses from 1 MiB on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mtrrs {
    default: MemoryType,
    ranges: [Option<Range>; MOST_RANGES],
}

impl Mtrrs {
    /// Reads them; `None` if the CPU has none, or lacks some that it announces.
    pub(crate) fn read(features: &Features) -> Option<Self> {
        if !features.mtrr {
            return None;
        }
        let default = msr::read(DEFAULT_TYPE)?;
        let mut ranges = [None; MOST_RANGES];
        if default & ENABLED != 0 {
            let count = msr::read(CAPABILITIES)? as u32 & 0xFF;
            for (pair, range) in (0..count).zip(&mut ranges) {
                let base = FIRST_BASE + 2 * pair;
                *range = Range::of(msr::read(base)?, msr::read(base + 1)?, features.physical_bits);
            }
        }
        // While they are off, all memory is uncached.
        let default = if default & ENABLED != 0 { MemoryType::of(default as u8) } else { MemoryType::Uncached };
        Some(Self { default, ranges })
    }

    /// The type of addresses that no range covers.
    pub(crate) fn default_type(&self) -> MemoryType {
        self.default
    }

    fn at(&self, address: u64) -> MemoryType {
        let covering = self.ranges.iter().flatten().filter(|range| (range.start..range.end).contains(&address));
        covering.map(|range| range.kind).reduce(MemoryType::overlapping).unwrap_or(self.default)
    }

    /// The first part of `start..end` that is not write-back: its start and type.
    pub(crate) fn first_slow(&self, start: u64, end: u64) -> Option<(u64, MemoryType)> {
        // Types change only where ranges begin or end.
        let borders = self.ranges.iter().flatten().flat_map(|range| [range.start, range.end]);
        let points = borders.filter(|point| (start + 1..end).contains(point)).chain([start]);
        points
            .map(|point| (point, self.at(point)))
            .filter(|(_, kind)| *kind != MemoryType::WriteBack)
            .min_by_key(|slow| slow.0)
    }
}

/// `IA32_PAT`, the page attribute table (SDM vol. 3, 13.12.2): a byte per entry, indexed by a page's PAT, PCD and PWT.
const PAT: u32 = 0x277;

/// As after a reset, except that entry 1 is write-combining: WB, WC, UC-, UC, then WB, WT, UC-, UC.
pub(crate) const PAGE_ATTRIBUTES: u64 = 0x0007_0406_0007_0106;

/// The entries that pages use before the table is set: 0 for memory, 3 (PWT and PCD) for registers.
const IN_USE: u64 = 0xFF | 0xFF << 24;

/// Whether pages in use change their type when the table does.
const fn changes_pages(table: u64) -> bool {
    (table ^ PAGE_ATTRIBUTES) & IN_USE != 0
}

/// Sets the page attribute table of the current CPU, if it has one. Returns whether firmware had changed it for pages
/// in use.
pub(crate) fn set_pat(features: &Features) -> bool {
    if !features.pat {
        return false;
    }
    let Some(table) = msr::read(PAT) else { return false };
    let changes_pages = changes_pages(table);
    let write_back = || {
        if changes_pages {
            // SAFETY: writing back the caches changes nothing that any CPU could see.
            unsafe { core::arch::asm!("wbinvd", options(nostack, preserves_flags)) };
        }
    };
    write_back();
    // SAFETY: the table gives the pages in use their intended types. Where it did not before, caches are written back
    // and the TLB is flushed around the change (SDM vol. 3, 13.12.4).
    unsafe { msr::write(PAT, PAGE_ATTRIBUTES) };
    write_back();
    if changes_pages {
        tlb::flush_all();
    }
    changes_pages
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn mtrrs(default: MemoryType, registers: &[(u64, u64)]) -> Mtrrs {
        let mut ranges = [None; MOST_RANGES];
        for (range, &(base, mask)) in ranges.iter_mut().zip(registers) {
            *range = Range::of(base, mask, 39);
        }
        Mtrrs { default, ranges }
    }

    /// A mask for a block of `size` bytes on a CPU with 39 address bits.
    fn mask(size: u64) -> u64 {
        (1 << 39) - size + ENABLED
    }

    #[test]
    fn a_hole_below_4_gib_is_found_and_memory_is_not() {
        // As SeaBIOS sets them: write-back except the hole.
        let all = mtrrs(MemoryType::WriteBack, &[(3 * GIB, mask(GIB))]);
        assert_eq!(all.first_slow(0x10_0000, 3 * GIB), None);
        assert_eq!(all.first_slow(4 * GIB, 512 * GIB), None);
        assert_eq!(all.first_slow(2 * GIB, 5 * GIB), Some((3 * GIB, MemoryType::Uncached)));
    }

    #[test]
    fn memory_that_firmware_forgot_is_found() {
        // 4 GiB of memory, of which the MTRRs cover only the first 3.5.
        let all =
            mtrrs(MemoryType::Uncached, &[(6, mask(2 * GIB)), (2 * GIB + 6, mask(GIB)), (3 * GIB + 6, mask(GIB / 2))]);
        assert_eq!(all.first_slow(0x10_0000, 3 * GIB + GIB / 2), None);
        assert_eq!(all.first_slow(0x10_0000, 4 * GIB), Some((3 * GIB + GIB / 2, MemoryType::Uncached)));
    }

    #[test]
    fn of_ranges_that_overlap_the_careful_type_holds() {
        let all = mtrrs(MemoryType::Uncached, &[(6, mask(4 * GIB)), (GIB + 4, mask(GIB)), (2 * GIB, mask(GIB))]);
        assert_eq!(all.at(0x10_0000), MemoryType::WriteBack);
        assert_eq!(all.at(GIB), MemoryType::WriteThrough);
        assert_eq!(all.at(2 * GIB), MemoryType::Uncached);
        assert_eq!(all.first_slow(0, 4 * GIB), Some((GIB, MemoryType::WriteThrough)));
    }

    #[test]
    fn ranges_that_are_not_in_use_or_make_no_sense_are_none() {
        assert_eq!(Range::of(6, mask(GIB) & !ENABLED, 39), None);
        assert_eq!(Range::of(6, ENABLED, 39), None);
        assert_eq!(mtrrs(MemoryType::WriteBack, &[]).first_slow(0, u64::MAX), None);
    }

    #[test]
    fn caches_are_written_back_when_memory_or_registers_change_their_type() {
        const AT_POWER_UP: u64 = 0x0007_0406_0007_0406;
        assert!(!changes_pages(AT_POWER_UP) && !changes_pages(PAGE_ATTRIBUTES));
        // As Linux leaves it.
        assert!(!changes_pages(0x0407_0501_0007_0106));
        assert!(changes_pages(0x0007_0406_0007_0404), "memory was write-through");
        assert!(changes_pages(0x0007_0406_0107_0406), "registers were write-combining");
    }
}
