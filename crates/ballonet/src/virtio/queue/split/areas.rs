//! The shared memory of a split queue, field by field: every access that the driver makes to it, and its byte order.

use core::mem::offset_of;

use super::SplitLayout;
use crate::bus::DmaMemory;
use crate::virtio::queue::chain::Segment;
use crate::virtio::queue::index::QueueAddresses;
use crate::virtio::spec::{AvailableRing, Descriptor, UsedElement, UsedRing};

/// Descriptor table, available ring and used ring. Indices are free-running; this reduces them modulo the size.
#[derive(Debug)]
pub(super) struct Areas<M> {
    memory: M,
    layout: SplitLayout,
    /// Offsets of the available and the used ring, cached: each request needs them several times.
    available: usize,
    used: usize,
}

impl<M: DmaMemory> Areas<M> {
    /// The queue in `memory`, which is zeroed. A platform that returns less than requested is broken.
    pub(super) fn new(memory: M, layout: SplitLayout) -> Self {
        assert!(memory.len() >= layout.bytes(), "queue memory is smaller than requested");
        Self { memory, layout, available: layout.available(), used: layout.used() }
    }

    pub(super) fn layout(&self) -> SplitLayout {
        self.layout
    }

    pub(super) fn into_memory(self) -> M {
        self.memory
    }

    pub(super) fn addresses(&self) -> QueueAddresses {
        let start = self.memory.device_address();
        QueueAddresses {
            descriptors: start,
            driver: start + self.layout.available() as u64,
            device: start + self.layout.used() as u64,
        }
    }

    #[inline]
    pub(super) fn write_descriptor(&mut self, index: u16, segment: Segment, flags: u16, next: u16) {
        write_descriptor(&mut self.memory, usize::from(index) * size_of::<Descriptor>(), segment, flags, next);
    }

    /// Stores the head of a chain in the available entry at `index`.
    #[inline]
    pub(super) fn write_available(&mut self, index: u16, head: u16) {
        let offset = self.available + offset_of!(AvailableRing, ring) + self.position(index) * size_of::<u16>();
        self.memory.store16(offset, head.to_le());
    }

    #[inline]
    pub(super) fn set_available_index(&mut self, index: u16) {
        self.memory.store16(self.available + offset_of!(AvailableRing, idx), index.to_le());
    }

    pub(super) fn set_available_flags(&mut self, flags: u16) {
        self.memory.store16(self.available + offset_of!(AvailableRing, flags), flags.to_le());
    }

    pub(super) fn set_used_event(&mut self, index: u16) {
        self.memory.store16(self.layout.used_event(), index.to_le());
    }

    pub(super) fn used_index(&self) -> u16 {
        u16::from_le(self.memory.load16(self.used + offset_of!(UsedRing, idx)))
    }

    pub(super) fn used_flags(&self) -> u16 {
        u16::from_le(self.memory.load16(self.used + offset_of!(UsedRing, flags)))
    }

    pub(super) fn available_event(&self) -> u16 {
        u16::from_le(self.memory.load16(
            self.used + offset_of!(UsedRing, ring) + usize::from(self.layout.size()) * size_of::<UsedElement>(),
        ))
    }

    /// The used entry at `index`: a descriptor's index and a length, as the device claims.
    pub(super) fn used_entry(&self, index: u16) -> (u32, u32) {
        let offset = self.used + offset_of!(UsedRing, ring) + self.position(index) * size_of::<UsedElement>();
        (u32::from_le(self.memory.load32(offset)), u32::from_le(self.memory.load32(offset + 4)))
    }

    fn position(&self, index: u16) -> usize {
        usize::from(index & (self.layout.size() - 1))
    }
}

/// Writes the descriptor at `offset` of a table.
#[inline]
pub(super) fn write_descriptor<M: DmaMemory>(table: &mut M, offset: usize, segment: Segment, flags: u16, next: u16) {
    table.store64(offset + offset_of!(Descriptor, addr), segment.address.to_le());
    table.store32(offset + offset_of!(Descriptor, len), segment.length.to_le());
    table.store16(offset + offset_of!(Descriptor, flags), flags.to_le());
    table.store16(offset + offset_of!(Descriptor, next), next.to_le());
}
