//! Single entries of a ring, with any contents. Nothing here keeps to the rules or updates the queue's own records.

use core::mem::offset_of;

use super::RawQueue;
use crate::arena::Arena;
use ballonet::virtio::spec::{AvailableRing, Descriptor, UsedElement, UsedRing};

/// A descriptor: of a split ring, of a packed ring or of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawDescriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    /// The next descriptor; on a packed ring the buffer id.
    pub(crate) next: u16,
}

impl RawDescriptor {
    /// Its bytes. Both formats have the fields at the same offsets, but with `flags` and `next` swapped.
    fn bytes(self, packed: bool) -> [u8; size_of::<Descriptor>()] {
        let (first, second) = if packed { (self.next, self.flags) } else { (self.flags, self.next) };
        let mut bytes = [0; size_of::<Descriptor>()];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&first.to_le_bytes());
        bytes[14..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    /// Writes it as entry `place` of the descriptors at `start`.
    pub(crate) fn put(self, arena: &mut Arena, start: usize, place: u16, packed: bool) {
        arena.write(start + usize::from(place) * size_of::<Descriptor>(), &self.bytes(packed));
    }
}

/// A 16-bit field of a split queue, by its owner in lawful use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RingField {
    /// The driver's.
    AvailableFlags,
    AvailableIndex,
    /// An entry of the available ring.
    AvailableEntry(u16),
    /// With `EVENT_IDX`.
    UsedEvent,
    /// The device's.
    UsedFlags,
    UsedIndex,
    /// With `EVENT_IDX`.
    AvailableEvent,
}

impl RawQueue {
    fn place(&self, field: RingField) -> usize {
        let (driver, device, size) = (self.areas.driver, self.areas.device, usize::from(self.size));
        match field {
            RingField::AvailableFlags => driver,
            RingField::AvailableIndex => driver + offset_of!(AvailableRing, idx),
            RingField::AvailableEntry(entry) => {
                driver + offset_of!(AvailableRing, ring) + usize::from(entry % self.size) * size_of::<u16>()
            }
            RingField::UsedEvent => driver + offset_of!(AvailableRing, ring) + size * size_of::<u16>(),
            RingField::UsedFlags => device,
            RingField::UsedIndex => device + offset_of!(UsedRing, idx),
            RingField::AvailableEvent => device + offset_of!(UsedRing, ring) + size * size_of::<UsedElement>(),
        }
    }

    /// Overwrites a field of a split queue.
    pub(crate) fn overwrite(&self, arena: &mut Arena, field: RingField, value: u16) {
        arena.store16(self.place(field), value);
    }

    /// Overwrites the driver's event suppression structure of a packed queue: position and flags.
    pub(crate) fn overwrite_driver_event(&self, arena: &mut Arena, position: u16, flags: u16) {
        arena.store32(self.areas.driver, u32::from(flags) << 16 | u32::from(position));
    }

    /// Overwrites the device's, which only the device may write.
    pub(crate) fn overwrite_device_event(&self, arena: &mut Arena, position: u16, flags: u16) {
        arena.store32(self.areas.device, u32::from(flags) << 16 | u32::from(position));
    }
}
