//! Structures and bits of the split virtqueue (2.7). The driver accesses their fields one by one, by offset.

use bitflags::bitflags;

/// The most entries that a virtqueue can have (2.7).
pub const QUEUE_SIZE_MAX: u16 = 32768;

/// A descriptor (2.7.5).
#[doc(alias = "virtq_desc")]
#[derive(Debug)]
#[repr(C)]
pub struct Descriptor {
    /// Where the buffer is.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// [`DescriptorFlags`].
    pub flags: u16,
    /// The next descriptor of the chain, with [`DescriptorFlags::NEXT`].
    pub next: u16,
}

bitflags! {
    /// Flags of a descriptor, split or packed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct DescriptorFlags: u16 {
        /// The chain continues.
        #[doc(alias = "VIRTQ_DESC_F_NEXT")]
        const NEXT = 1;
        /// The device writes the buffer; without it the device reads.
        #[doc(alias = "VIRTQ_DESC_F_WRITE")]
        const WRITE = 2;
        /// The buffer is a table of descriptors.
        #[doc(alias = "VIRTQ_DESC_F_INDIRECT")]
        const INDIRECT = 4;
        /// Packed only. Equal to the driver's wrap counter, and different from `USED`: the descriptor is available.
        #[doc(alias = "VIRTQ_DESC_F_AVAIL")]
        const AVAIL = 1 << 7;
        /// Packed only. Equal to the device's wrap counter, and to `AVAIL`: the descriptor is used.
        #[doc(alias = "VIRTQ_DESC_F_USED")]
        const USED = 1 << 15;
    }
}

/// The available ring (2.7.6).
#[doc(alias = "virtq_avail")]
#[derive(Debug)]
#[repr(C)]
pub struct AvailableRing {
    /// [`AVAILABLE_F_NO_INTERRUPT`].
    pub flags: u16,
    /// Index of the driver's next entry, free-running.
    pub idx: u16,
    /// The entries, each the head of a chain; as many as the queue has, then `used_event`.
    pub ring: [u16; 0],
}

/// The used ring (2.7.8).
#[doc(alias = "virtq_used")]
#[derive(Debug)]
#[repr(C)]
pub struct UsedRing {
    /// [`USED_F_NO_NOTIFY`].
    pub flags: u16,
    /// Index of the device's next entry, free-running.
    pub idx: u16,
    /// The entries; as many as the queue has, then `avail_event`.
    pub ring: [UsedElement; 0],
}

/// An entry of the used ring.
#[doc(alias = "virtq_used_elem")]
#[derive(Debug)]
#[repr(C)]
pub struct UsedElement {
    /// The head of the chain.
    pub id: u32,
    /// How many bytes were written.
    pub len: u32,
}

/// In the available ring: the driver asks for no interrupts.
#[doc(alias = "VIRTQ_AVAIL_F_NO_INTERRUPT")]
pub const AVAILABLE_F_NO_INTERRUPT: u16 = 1;
/// In the used ring: the device asks for no kicks.
#[doc(alias = "VIRTQ_USED_F_NO_NOTIFY")]
pub const USED_F_NO_NOTIFY: u16 = 1;

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use virtio_bindings::virtio_ring as r;

    use super::*;

    #[test]
    fn ring_words_are_those_of_the_c_header() {
        assert_eq!(u32::from(DescriptorFlags::NEXT.bits()), r::VRING_DESC_F_NEXT);
        assert_eq!(u32::from(DescriptorFlags::WRITE.bits()), r::VRING_DESC_F_WRITE);
        assert_eq!(u32::from(DescriptorFlags::INDIRECT.bits()), r::VRING_DESC_F_INDIRECT);
        assert_eq!(u32::from(AVAILABLE_F_NO_INTERRUPT), r::VRING_AVAIL_F_NO_INTERRUPT);
        assert_eq!(u32::from(USED_F_NO_NOTIFY), r::VRING_USED_F_NO_NOTIFY);
        assert_eq!(size_of::<Descriptor>(), size_of::<r::vring_desc>());
        assert_eq!(offset_of!(Descriptor, len), offset_of!(r::vring_desc, len));
        assert_eq!(offset_of!(Descriptor, flags), offset_of!(r::vring_desc, flags));
        assert_eq!(offset_of!(Descriptor, next), offset_of!(r::vring_desc, next));
        assert_eq!(offset_of!(AvailableRing, idx), offset_of!(r::vring_avail, idx));
        assert_eq!(offset_of!(AvailableRing, ring), offset_of!(r::vring_avail, ring));
        assert_eq!(offset_of!(UsedRing, idx), offset_of!(r::vring_used, idx));
        assert_eq!(offset_of!(UsedRing, ring), offset_of!(r::vring_used, ring));
        assert_eq!(size_of::<UsedElement>(), size_of::<r::vring_used_elem>());
    }
}
