//! Where the three areas of a split queue lie in its one block of memory (virtio 1.4, 2.7 and 2.7.2).

use core::mem::offset_of;

use crate::virtio::spec::{AvailableRing, Descriptor, QUEUE_SIZE_MAX, UsedElement, UsedRing};

/// Alignment of the used ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::virtio::queue) enum Alignment {
    /// A cache line, so that driver and device do not write the same one. The specification requires only 4 bytes.
    Modern,
    /// 4096 bytes, where a legacy device expects it.
    Legacy,
}

impl Alignment {
    const fn bytes(self) -> usize {
        match self {
            Self::Modern => 64,
            Self::Legacy => 4096,
        }
    }
}

/// The layout of a split queue: descriptor table, available ring, used ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::virtio::queue) struct SplitLayout {
    size: u16,
    alignment: Alignment,
}

impl SplitLayout {
    /// The layout of a queue of `size` entries, or `None` if that is not a power of two up to 32768 (2.7).
    pub(in crate::virtio::queue) const fn new(size: u16, alignment: Alignment) -> Option<Self> {
        if size.is_power_of_two() && size <= QUEUE_SIZE_MAX { Some(Self { size, alignment }) } else { None }
    }

    /// Entries in the queue.
    pub(in crate::virtio::queue) const fn size(self) -> u16 {
        self.size
    }

    /// Alignment of the block in bytes.
    pub(in crate::virtio::queue) const fn align(self) -> usize {
        self.alignment.bytes()
    }

    /// Offset of the available ring.
    pub(in crate::virtio::queue) const fn available(self) -> usize {
        self.size as usize * size_of::<Descriptor>()
    }

    /// Offset of `used_event`, behind the available ring's entries.
    pub(in crate::virtio::queue) const fn used_event(self) -> usize {
        self.available() + offset_of!(AvailableRing, ring) + self.size as usize * size_of::<u16>()
    }

    /// Offset of the used ring.
    pub(in crate::virtio::queue) const fn used(self) -> usize {
        (self.used_event() + 2).next_multiple_of(self.alignment.bytes())
    }

    /// Offset of `avail_event`, behind the used ring's entries.
    pub(in crate::virtio::queue) const fn available_event(self) -> usize {
        self.used() + offset_of!(UsedRing, ring) + self.size as usize * size_of::<UsedElement>()
    }

    /// Size of the whole, in bytes. For a legacy device, whole pages (2.7.2).
    pub(in crate::virtio::queue) const fn bytes(self) -> usize {
        (self.available_event() + 2).next_multiple_of(self.alignment.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_up_to_32768_are_queue_sizes() {
        for size in 0..=u16::MAX {
            let valid = size != 0 && size & (size - 1) == 0;
            assert_eq!(SplitLayout::new(size, Alignment::Modern).is_some(), valid, "{size}");
        }
    }

    #[test]
    fn areas_are_aligned_and_apart_at_every_size() {
        for alignment in [Alignment::Modern, Alignment::Legacy] {
            for shift in 0..=15 {
                let layout = SplitLayout::new(1 << shift, alignment).unwrap();
                let size = usize::from(layout.size());
                assert_eq!(layout.available() % 2, 0);
                assert_eq!(layout.used() % 4, 0);
                assert!(layout.available() >= 16 * size);
                assert!(layout.used() >= layout.available() + 6 + 2 * size);
                assert!(layout.bytes() >= layout.used() + 6 + 8 * size);
            }
        }
    }

    #[test]
    fn the_legacy_layout_follows_the_formula_of_the_specification() {
        // vring_size() of the C header, for an alignment of 4096, rounded up as a legacy device does.
        for (size, used, bytes) in [(1, 4096, 8192), (128, 4096, 8192), (256, 8192, 12288), (1024, 20480, 32768)] {
            let layout = SplitLayout::new(size, Alignment::Legacy).unwrap();
            assert_eq!((layout.used(), layout.bytes()), (used, bytes), "{size}");
        }
    }
}
