//! Bits and sizes of the packed virtqueue (2.8). Its descriptors are as large as those of the split one, and share its
//! NEXT, WRITE and INDIRECT flags.

/// Offset of a packed descriptor's 16-bit buffer id. Address and length are where split descriptors have them.
#[doc(alias = "pvirtq_desc")]
pub const PACKED_DESCRIPTOR_ID: usize = 12;
/// Offset of a packed descriptor's 16-bit flags.
pub const PACKED_DESCRIPTOR_FLAGS: usize = 14;

/// Equal to the driver's wrap counter, and different from [`PACKED_F_USED`]: the descriptor is available.
#[doc(alias = "VIRTQ_DESC_F_AVAIL")]
pub const PACKED_F_AVAILABLE: u16 = 1 << 7;
/// Equal to the device's wrap counter, and to [`PACKED_F_AVAILABLE`]: the descriptor is used.
#[doc(alias = "VIRTQ_DESC_F_USED")]
pub const PACKED_F_USED: u16 = 1 << 15;

/// Size of an event suppression structure in bytes: a position in 16 bits, flags in 16 bits.
#[doc(alias = "pvirtq_event_suppress")]
pub const EVENT_SUPPRESSION_SIZE: usize = 4;
/// Which bits of the flags of an event suppression structure count.
pub(crate) const RING_EVENT_FLAGS: u16 = 3;
/// Notify of every event.
#[doc(alias = "RING_EVENT_FLAGS_ENABLE")]
pub const RING_EVENT_ENABLE: u16 = 0;
/// Notify of none.
#[doc(alias = "RING_EVENT_FLAGS_DISABLE")]
pub const RING_EVENT_DISABLE: u16 = 1;
/// Notify when a position has been passed; only with `EVENT_IDX`.
#[doc(alias = "RING_EVENT_FLAGS_DESC")]
pub const RING_EVENT_DESCRIPTOR: u16 = 2;
/// The wrap counter beside a descriptor's offset of 15 bits.
pub const POSITION_WRAP: u16 = 1 << 15;

#[cfg(test)]
mod tests {
    use core::mem::{offset_of, size_of};

    use virtio_bindings::virtio_ring as r;

    use super::*;
    use crate::virtio::spec::{DESCRIPTOR_ADDRESS, DESCRIPTOR_LENGTH, DESCRIPTOR_SIZE};

    #[test]
    fn packed_words_are_those_of_the_c_header() {
        assert_eq!(u32::from(PACKED_F_AVAILABLE), 1 << r::VRING_PACKED_DESC_F_AVAIL);
        assert_eq!(u32::from(PACKED_F_USED), 1 << r::VRING_PACKED_DESC_F_USED);
        assert_eq!(u32::from(RING_EVENT_ENABLE), r::VRING_PACKED_EVENT_FLAG_ENABLE);
        assert_eq!(u32::from(RING_EVENT_DISABLE), r::VRING_PACKED_EVENT_FLAG_DISABLE);
        assert_eq!(u32::from(RING_EVENT_DESCRIPTOR), r::VRING_PACKED_EVENT_FLAG_DESC);
        assert_eq!(u32::from(POSITION_WRAP), 1 << r::VRING_PACKED_EVENT_F_WRAP_CTR);
        assert_eq!(DESCRIPTOR_SIZE, size_of::<r::vring_packed_desc>());
        assert_eq!(DESCRIPTOR_ADDRESS, offset_of!(r::vring_packed_desc, addr));
        assert_eq!(DESCRIPTOR_LENGTH, offset_of!(r::vring_packed_desc, len));
        assert_eq!(PACKED_DESCRIPTOR_ID, offset_of!(r::vring_packed_desc, id));
        assert_eq!(PACKED_DESCRIPTOR_FLAGS, offset_of!(r::vring_packed_desc, flags));
        assert_eq!(EVENT_SUPPRESSION_SIZE, size_of::<r::vring_packed_desc_event>());
        assert_eq!(offset_of!(r::vring_packed_desc_event, flags), 2);
    }
}
