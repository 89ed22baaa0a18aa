//! The three areas of a queue: sizes, positions in the arena, and descriptors as bytes.

use core::mem::offset_of;

use super::Part;
use crate::arena::Arena;
use crate::verdict::Verdict;
use ballonet::virtio::spec::{
    AvailableRing, Descriptor, DescriptorFlags, EventSuppression, PackedDescriptor, UsedElement, UsedRing,
};

/// The alignment of legacy queues, and the page size of their addresses (2.7.2).
pub(crate) const LEGACY_PAGE: usize = 4096;

/// Where the three areas of a queue are in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Areas {
    pub(crate) descriptors: usize,
    pub(crate) driver: usize,
    pub(crate) device: usize,
}

/// How the areas are placed, and the descriptors of a split queue used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// In order, each on a boundary of 64 bytes.
    Plain,
    /// In one block of pages, as legacy devices compute it (2.7.2).
    Block,
    /// In reverse order, each at the smallest legal alignment, with split descriptors used from the last to the first.
    Odd,
}

impl Areas {
    /// Finds room for the areas of a queue and zeroes them.
    pub(crate) fn place(arena: &mut Arena, size: u16, packed: bool, placement: Placement) -> Verdict<Areas> {
        let (descriptors, driver, device) = sizes(size, packed);
        // With each size the alignment that the specification requires (2.7, 2.8.10).
        let areas = if placement == Placement::Plain {
            let descriptors = arena.place(descriptors, 64, 0)?;
            let driver = arena.place(driver, 64, 0)?;
            Areas { descriptors, driver, device: arena.place(device, 64, 0)? }
        } else if placement == Placement::Block {
            let (ring, end) = (descriptors + driver, LEGACY_PAGE);
            let start = arena.place(ring.next_multiple_of(end) + device, end, 0)?;
            Areas { descriptors: start, driver: start + descriptors, device: start + ring.next_multiple_of(end) }
        } else {
            let device = arena.place(device, 64, 4)?;
            let driver = arena.place(driver, 64, if packed { 4 } else { 2 })?;
            Areas { descriptors: arena.place(descriptors, 64, 16)?, driver, device }
        };
        arena.zero(areas.descriptors, descriptors);
        arena.zero(areas.driver, driver);
        arena.zero(areas.device, device);
        Ok(areas)
    }
}

/// Sizes of the three areas in bytes.
pub(crate) const fn sizes(size: u16, packed: bool) -> (usize, usize, usize) {
    let entries = size as usize;
    if packed {
        return (entries * size_of::<Descriptor>(), size_of::<EventSuppression>(), size_of::<EventSuppression>());
    }
    // Each ring ends with the index for `EVENT_IDX`.
    (
        entries * size_of::<Descriptor>(),
        offset_of!(AvailableRing, ring) + entries * size_of::<u16>() + 2,
        offset_of!(UsedRing, ring) + entries * size_of::<UsedElement>() + 2,
    )
}

pub(super) const fn write_flag(part: Part) -> u16 {
    if part.writable { DescriptorFlags::WRITE.bits() } else { 0 }
}

pub(super) fn write_split(arena: &mut Arena, at: usize, part: Part, flags: u16, next: u16) {
    let mut bytes = [0; size_of::<Descriptor>()];
    bytes[..8].copy_from_slice(&part.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&part.length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    arena.write(at, &bytes);
}

/// A whole packed descriptor, the flags by a separate store.
pub(super) fn write_packed(arena: &mut Arena, at: usize, part: Part, id: u16, flags: u16) {
    let mut bytes = [0; offset_of!(PackedDescriptor, flags)];
    bytes[..8].copy_from_slice(&part.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&part.length.to_le_bytes());
    bytes[12..].copy_from_slice(&id.to_le_bytes());
    arena.write(at, &bytes);
    arena.store16(at + offset_of!(PackedDescriptor, flags), flags);
}
