//! Where the three areas of a packed queue lie in its one block of memory (virtio 1.4, 2.8.11).

use crate::virtio::spec::{Descriptor, EventSuppression, QUEUE_SIZE_MAX};

/// Alignment of the areas in bytes: a cache line, so that driver and device do not write the same one. The
/// specification requires only 16 and 4.
const LINE: usize = 64;

/// The layout of a packed queue: descriptor ring, driver's and device's event suppression structures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::virtio::queue) struct PackedLayout {
    size: u16,
}

impl PackedLayout {
    /// The layout of a queue of `size` entries, or `None` if that is 0 or above 32768 (2.8.10.1). It need not be a
    /// power of two.
    pub(in crate::virtio::queue) const fn new(size: u16) -> Option<Self> {
        if size != 0 && size <= QUEUE_SIZE_MAX { Some(Self { size }) } else { None }
    }

    /// Entries in the queue.
    pub(in crate::virtio::queue) const fn size(self) -> u16 {
        self.size
    }

    /// Alignment of the block in bytes.
    pub(in crate::virtio::queue) const fn align(self) -> usize {
        LINE
    }

    /// Offset of the event suppression structure that the driver writes.
    pub(in crate::virtio::queue) const fn driver(self) -> usize {
        (self.size as usize * size_of::<Descriptor>()).next_multiple_of(LINE)
    }

    /// Offset of the event suppression structure that the device writes.
    pub(in crate::virtio::queue) const fn device(self) -> usize {
        self.driver() + LINE
    }

    /// Size of the whole, in bytes.
    pub(in crate::virtio::queue) const fn bytes(self) -> usize {
        self.device() + size_of::<EventSuppression>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_from_1_to_32768_is_a_queue_size() {
        for size in 0..=u16::MAX {
            assert_eq!(PackedLayout::new(size).is_some(), (1..=32768).contains(&size), "{size}");
        }
    }

    #[test]
    fn areas_are_aligned_and_apart_at_every_size() {
        for layout in (1..=32768).filter_map(PackedLayout::new) {
            assert!(layout.driver().is_multiple_of(4) && layout.device().is_multiple_of(4));
            assert!(layout.driver() >= 16 * usize::from(layout.size()));
            assert!(layout.device() >= layout.driver() + 4);
            assert!(layout.bytes() >= layout.device() + 4);
        }
    }
}
