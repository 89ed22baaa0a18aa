//! Indirect descriptor tables: one descriptor in the queue points to a whole table outside of it (virtio 1.4, 2.7.5.3,
//! 2.8.19).

use super::chain::Segment;
use super::options::QueueOptions;
use crate::bus::DmaMemory;
use crate::platform::Platform;
use crate::virtio::spec::Descriptor;

/// A table for each descriptor of a queue.
#[derive(Debug)]
pub(super) struct Tables<M> {
    memory: M,
    /// Descriptors per table.
    entries: u16,
}

impl<M: DmaMemory> Tables<M> {
    /// The tables of a queue of `size`, if the options ask for them. Without memory for them, chains go into the queue
    /// directly.
    pub(super) fn allocate<P>(platform: &mut P, size: u16, options: QueueOptions) -> Option<Self>
    where
        P: Platform<Memory = M>,
    {
        let entries = options.indirect_entries;
        match Self::bytes(size, entries) {
            0 => None,
            bytes => Some(Self { memory: platform.allocate_dma(bytes, size_of::<Descriptor>()).ok()?, entries }),
        }
    }

    /// Size of all tables in bytes. Tables of fewer than two descriptors would be useless.
    fn bytes(size: u16, entries: u16) -> usize {
        if entries < 2 { 0 } else { usize::from(size) * usize::from(entries) * size_of::<Descriptor>() }
    }

    /// Whether a chain of `length` descriptors goes through a table.
    pub(super) fn carry(&self, length: usize) -> bool {
        length >= 2 && length <= usize::from(self.entries)
    }

    /// Offset of an entry of a table.
    pub(super) fn entry(&self, table: u16, position: usize) -> usize {
        (usize::from(table) * usize::from(self.entries) + position) * size_of::<Descriptor>()
    }

    /// The segment of the first `length` entries of a table.
    pub(super) fn segment(&self, table: u16, length: usize) -> Segment {
        let address = self.memory.device_address() + self.entry(table, 0) as u64;
        // A chain that a table carries has at most 65535 descriptors of 16 bytes.
        Segment { address, length: (length * size_of::<Descriptor>()) as u32 }
    }

    /// The memory of all tables.
    pub(super) fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
    }

    /// The memory of all tables, which the device no longer uses.
    pub(super) fn into_memory(self) -> M {
        self.memory
    }
}

#[cfg(test)]
impl Tables<crate::virtio::fake::Ram> {
    /// Tables in fake memory, of which a clone is for the device.
    pub(super) fn for_test(size: u16, options: QueueOptions) -> (Option<Self>, Option<crate::virtio::fake::Ram>) {
        let bytes = Self::bytes(size, options.indirect_entries);
        let memory = (bytes > 0).then(|| crate::virtio::fake::Ram::new(bytes));
        (memory.clone().map(|memory| Self { memory, entries: options.indirect_entries }), memory)
    }
}
