//! Host bridges: the addresses at which PCI devices can be reached.
//!
//! The authority is each host bridge's `_CRS`, which is AML. Without it, the windows are those known for a fixed kind
//! of host bridge, or otherwise everything unused.

use alloc::vec::Vec;

use super::Function;
use super::range::{AddressRange, Pool};

/// Addresses available for BARs, in order of preference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostWindows {
    /// I/O ports.
    pub io: Vec<AddressRange>,
    /// Memory below 4 GiB.
    pub memory: Vec<AddressRange>,
    /// Memory above 4 GiB.
    pub memory64: Vec<AddressRange>,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every PC has interrupt controllers, timers and firmware from here to 4 GiB.
const TOP_OF_LOW_WINDOW: u64 = 0xFEBF_FFFF;

/// Addresses below 1 TiB that AMD processors reserve for `HyperTransport`.
const HYPERTRANSPORT: (u64, u64) = (0xFD_0000_0000, 0xFF_FFFF_FFFF);

/// The most address bits that four-level page tables can map one to one.
const MAPPABLE_BITS: u8 = 47;

impl HostWindows {
    /// The windows of a host bridge of a known fixed kind.
    ///
    /// QEMU's generic PCI Express host bridge on an x86-64 microvm has 512 MiB below 4 GiB, 512 GiB above, and no
    /// ports.
    pub fn of_host_bridge(bridge: &Function) -> Option<Self> {
        if (bridge.vendor, bridge.device) != (0x1B36, 0x0008) {
            return None;
        }
        Some(Self {
            io: Vec::new(),
            memory: AddressRange::inclusive(0xC000_0000, 0xDFFF_FFFF).into_iter().collect(),
            memory64: AddressRange::new(0xC0_0000_0000, 512 * GIB).into_iter().collect(),
        })
    }

    /// The windows of a PC's host bridge: all unused addresses.
    ///
    /// `ram` is all memory, whatever its use (including ACPI tables and hot-plug ranges). `used` are other occupied
    /// addresses: reserved ranges of the memory map, and ECAM; `used_ports` likewise for ports. `address_bits` is the
    /// width of physical addresses (CPUID leaf 0x80000008). Addresses in BARs need not be included.
    pub fn from_gaps(
        ram: &[AddressRange],
        used: &[AddressRange],
        used_ports: &[AddressRange],
        address_bits: u8,
    ) -> Self {
        Self {
            // Firmware places BARs from 0xC000 on; below that boards have undocumented ports.
            io: free([(0xC000, 0xFEFF), (0x1000, 0x9FFF)], used_ports, 0x100),
            memory: free([(above_low_ram(ram), TOP_OF_LOW_WINDOW)], used, MIB),
            memory64: high_window(ram, used, address_bits),
        }
    }
}

/// The inclusive `ranges` minus `used`, without pieces smaller than `least`.
fn free(ranges: impl IntoIterator<Item = (u64, u64)>, used: &[AddressRange], least: u64) -> Vec<AddressRange> {
    let mut pool = Pool::new(ranges.into_iter().filter_map(|(first, last)| AddressRange::inclusive(first, last)));
    for taken in used {
        pool.exclude(*taken);
    }
    let mut left = pool.into_ranges();
    left.retain(|range| range.last() - range.first() >= least - 1);
    left
}

/// The lowest address available for PCI: above the last RAM below 4 GiB and above the ISA holes.
fn above_low_ram(ram: &[AddressRange]) -> u64 {
    let low = ram.iter().filter(|range| range.first() < 4 * GIB);
    end_of(low).clamp(16 * MIB, 4 * GIB).next_multiple_of(MIB)
}

/// The address after the last of `ranges`.
fn end_of<'r>(ranges: impl IntoIterator<Item = &'r AddressRange>) -> u64 {
    ranges.into_iter().map(|range| range.last()).max().map_or(0, |last| last.saturating_add(1))
}

/// Addresses above all RAM. The preferred ones start at a quarter of the address space: directly above RAM there may
/// be room for RAM that no table mentions, and a virtual machine may claim more address bits than its host has.
fn high_window(ram: &[AddressRange], used: &[AddressRange], address_bits: u8) -> Vec<AddressRange> {
    let space = 1 << address_bits.min(MAPPABLE_BITS);
    let Some(bottom) = end_of(ram).max(4 * GIB).checked_next_multiple_of(GIB) else { return Vec::new() };
    let best = bottom.max(space / 4);
    let mut used = used.to_vec();
    used.extend(AddressRange::inclusive(HYPERTRANSPORT.0, HYPERTRANSPORT.1));
    free([(best, space - 1), (bottom, best - 1)], &used, MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> AddressRange {
        AddressRange::inclusive(first, last).unwrap()
    }

    #[test]
    fn q35_with_2_gib_has_the_gaps_around_ecam() {
        let ram = [range(0, 0x9_FBFF), range(0x10_0000, 0x7FFD_EFFF)];
        let used = [range(0x7FFD_F000, 0x7FFF_FFFF), range(0xB000_0000, 0xBFFF_FFFF), range(0xFEFF_C000, 0xFEFF_FFFF)];
        let windows = HostWindows::from_gaps(&ram, &used, &[], 40);
        assert_eq!(windows.memory, [range(0x8000_0000, 0xAFFF_FFFF), range(0xC000_0000, 0xFEBF_FFFF)]);
        assert_eq!(windows.memory64, [range(0x40_0000_0000, 0xFC_FFFF_FFFF), range(0x1_0000_0000, 0x3F_FFFF_FFFF)]);
        assert_eq!(windows.io, [range(0xC000, 0xFEFF), range(0x1000, 0x9FFF)]);
    }

    #[test]
    fn no_window_overlaps_ram_or_used_addresses() {
        let ram = [range(0, 0xBFFF_FFFF), range(0x1_0000_0000, 0x5_3FFF_FFFF)];
        let used = [range(0xE000_0000, 0xEFFF_FFFF)];
        let ports = [range(0xC200, 0xC2FF)];
        let windows = HostWindows::from_gaps(&ram, &used, &ports, 36);
        for window in windows.memory.iter().chain(&windows.memory64) {
            assert!(ram.iter().chain(&used).all(|taken| !taken.overlaps(*window)), "{window}");
            assert!(window.last() < 1 << 36);
        }
        assert!(windows.io.iter().all(|window| !window.overlaps(ports[0])));
        assert!(windows.memory64.iter().all(|window| window.first() >= 0x5_4000_0000));
    }

    #[test]
    fn ram_up_to_4_gib_leaves_no_low_window() {
        let ram = [range(0, 0x1_3FFF_FFFF)];
        assert_eq!(HostWindows::from_gaps(&ram, &[], &[], 40).memory, []);
        assert_eq!(HostWindows::from_gaps(&[range(0, u64::MAX)], &[], &[], 52).memory64, []);
    }

    #[test]
    fn absurd_address_widths_give_no_high_window_or_a_mappable_one() {
        assert_eq!(HostWindows::from_gaps(&[], &[], &[], 32).memory64, []);
        assert_eq!(HostWindows::from_gaps(&[], &[], &[], 0).memory64, []);
        let windows = HostWindows::from_gaps(&[], &[], &[], 255);
        assert!(windows.memory64.iter().all(|window| window.last() < 1 << 47));
    }
}
