//! Bits and sizes of the split virtqueue (2.7).

/// The most entries that a virtqueue can have (2.7).
pub const QUEUE_SIZE_MAX: u16 = 32768;

/// Size of a descriptor in bytes: address, length, flags, next (2.7.5).
#[doc(alias = "virtq_desc")]
pub const DESCRIPTOR_SIZE: usize = 16;
/// Offset of a descriptor's 64-bit address.
pub const DESCRIPTOR_ADDRESS: usize = 0;
/// Offset of a descriptor's 32-bit length.
pub const DESCRIPTOR_LENGTH: usize = 8;
/// Offset of a descriptor's 16-bit flags.
pub const DESCRIPTOR_FLAGS: usize = 12;
/// Offset of the 16-bit index of the next descriptor.
pub const DESCRIPTOR_NEXT: usize = 14;

/// The chain goes on at the index in the next field.
#[doc(alias = "VIRTQ_DESC_F_NEXT")]
pub const DESCRIPTOR_F_NEXT: u16 = 1;
/// The device writes the buffer; without it the device reads.
#[doc(alias = "VIRTQ_DESC_F_WRITE")]
pub const DESCRIPTOR_F_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
#[doc(alias = "VIRTQ_DESC_F_INDIRECT")]
pub const DESCRIPTOR_F_INDIRECT: u16 = 4;

/// Offset of the flags in the available and the used ring.
pub const RING_FLAGS: usize = 0;
/// Offset of the index in the available and the used ring.
pub const RING_INDEX: usize = 2;
/// Offset of the first entry of the available and the used ring.
pub const RING_ENTRIES: usize = 4;
/// Size of an entry of the available ring: the head of a chain.
#[doc(alias = "virtq_avail")]
pub const AVAILABLE_ENTRY: usize = 2;
/// Size of an entry of the used ring: the head as 32 bits, the bytes written as 32 bits.
#[doc(alias = "virtq_used_elem")]
pub const USED_ENTRY: usize = 8;

/// In the available ring: the driver would rather not be interrupted.
#[doc(alias = "VIRTQ_AVAIL_F_NO_INTERRUPT")]
pub const AVAILABLE_F_NO_INTERRUPT: u16 = 1;
/// In the used ring: the device need not be kicked.
#[doc(alias = "VIRTQ_USED_F_NO_NOTIFY")]
pub const USED_F_NO_NOTIFY: u16 = 1;

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use virtio_bindings::virtio_ring as r;

    use super::*;

    #[test]
    fn ring_words_are_those_of_the_c_header() {
        assert_eq!(u32::from(DESCRIPTOR_F_NEXT), r::VRING_DESC_F_NEXT);
        assert_eq!(u32::from(DESCRIPTOR_F_WRITE), r::VRING_DESC_F_WRITE);
        assert_eq!(u32::from(DESCRIPTOR_F_INDIRECT), r::VRING_DESC_F_INDIRECT);
        assert_eq!(u32::from(AVAILABLE_F_NO_INTERRUPT), r::VRING_AVAIL_F_NO_INTERRUPT);
        assert_eq!(u32::from(USED_F_NO_NOTIFY), r::VRING_USED_F_NO_NOTIFY);
        assert_eq!(DESCRIPTOR_SIZE, size_of::<r::vring_desc>());
        assert_eq!(DESCRIPTOR_LENGTH, offset_of!(r::vring_desc, len));
        assert_eq!(DESCRIPTOR_FLAGS, offset_of!(r::vring_desc, flags));
        assert_eq!(DESCRIPTOR_NEXT, offset_of!(r::vring_desc, next));
        assert_eq!(USED_ENTRY, size_of::<r::vring_used_elem>());
    }
}
