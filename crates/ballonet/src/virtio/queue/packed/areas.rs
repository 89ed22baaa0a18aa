//! The shared memory of a packed queue, field by field: every access that the driver makes to it, and its byte order.

use core::mem::offset_of;

use super::PackedLayout;
use super::suppression::Suppression;
use crate::bus::DmaMemory;
use crate::virtio::queue::chain::Segment;
use crate::virtio::queue::index::QueueAddresses;
use crate::virtio::spec::{Descriptor, PackedDescriptor};

/// Descriptor ring and event suppression structures.
#[derive(Debug)]
pub(super) struct Areas<M> {
    memory: M,
    layout: PackedLayout,
}

impl<M: DmaMemory> Areas<M> {
    /// The queue in `memory`, which is zeroed. A platform that returns less than requested is broken.
    pub(super) fn new(memory: M, layout: PackedLayout) -> Self {
        assert!(memory.len() >= layout.bytes(), "queue memory is smaller than requested");
        Self { memory, layout }
    }

    pub(super) fn size(&self) -> u16 {
        self.layout.size()
    }

    pub(super) fn into_memory(self) -> M {
        self.memory
    }

    pub(super) fn addresses(&self) -> QueueAddresses {
        let start = self.memory.device_address();
        QueueAddresses {
            descriptors: start,
            driver: start + self.layout.driver() as u64,
            device: start + self.layout.device() as u64,
        }
    }

    /// Writes a descriptor except for its flags, which make it available.
    #[inline]
    pub(super) fn write_descriptor(&mut self, offset: u16, segment: Segment, id: u16) {
        write_descriptor(&mut self.memory, usize::from(offset) * size_of::<Descriptor>(), segment, id);
    }

    pub(super) fn flags(&self, offset: u16) -> u16 {
        u16::from_le(
            self.memory.load16(usize::from(offset) * size_of::<Descriptor>() + offset_of!(PackedDescriptor, flags)),
        )
    }

    pub(super) fn set_flags(&mut self, offset: u16, flags: u16) {
        set_flags(&mut self.memory, usize::from(offset) * size_of::<Descriptor>(), flags);
    }

    /// ID and length of a used descriptor, as the device claims.
    pub(super) fn used(&self, offset: u16) -> (u16, u32) {
        let at = usize::from(offset) * size_of::<Descriptor>();
        let id = u16::from_le(self.memory.load16(at + offset_of!(PackedDescriptor, id)));
        (id, u32::from_le(self.memory.load32(at + offset_of!(PackedDescriptor, len))))
    }

    /// Writes when the driver wants an interrupt.
    pub(super) fn set_driver_suppression(&mut self, suppression: Suppression) {
        self.memory.store32(self.layout.driver(), suppression.word().to_le());
    }

    /// Reads when the device wants a kick.
    pub(super) fn device_suppression(&self, event_idx: bool) -> Suppression {
        Suppression::from_word(u32::from_le(self.memory.load32(self.layout.device())), event_idx)
    }
}

/// Writes the descriptor at `offset` of a table, except for its flags.
#[inline]
pub(super) fn write_descriptor<M: DmaMemory>(table: &mut M, offset: usize, segment: Segment, id: u16) {
    table.store64(offset + offset_of!(PackedDescriptor, addr), segment.address.to_le());
    table.store32(offset + offset_of!(PackedDescriptor, len), segment.length.to_le());
    table.store16(offset + offset_of!(PackedDescriptor, id), id.to_le());
}

/// Writes the flags of the descriptor at `offset` of a table.
#[inline]
pub(super) fn set_flags<M: DmaMemory>(table: &mut M, offset: usize, flags: u16) {
    table.store16(offset + offset_of!(PackedDescriptor, flags), flags.to_le());
}
