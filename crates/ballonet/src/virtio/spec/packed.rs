//! Structures and bits of the packed virtqueue (2.8). Its descriptors are as large as those of the split one, and their
//! flags are [`super::DescriptorFlags`].

/// A descriptor of a packed queue (2.8.13).
#[doc(alias = "pvirtq_desc")]
#[derive(Debug)]
#[repr(C)]
pub struct PackedDescriptor {
    /// Where the buffer is.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// The buffer id.
    pub id: u16,
    /// [`super::DescriptorFlags`].
    pub flags: u16,
}

/// An event suppression structure (2.8.14).
#[doc(alias = "pvirtq_event_suppress")]
#[derive(Debug)]
#[repr(C)]
pub struct EventSuppression {
    /// A descriptor's offset in 15 bits, and [`POSITION_WRAP`].
    pub desc: u16,
    /// [`RING_EVENT_ENABLE`], [`RING_EVENT_DISABLE`] or [`RING_EVENT_DESCRIPTOR`].
    pub flags: u16,
}

/// The bits of an event suppression structure's flags that are not reserved.
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
    use crate::virtio::spec::DescriptorFlags;

    #[test]
    fn packed_words_are_those_of_the_c_header() {
        assert_eq!(u32::from(DescriptorFlags::AVAIL.bits()), 1 << r::VRING_PACKED_DESC_F_AVAIL);
        assert_eq!(u32::from(DescriptorFlags::USED.bits()), 1 << r::VRING_PACKED_DESC_F_USED);
        assert_eq!(u32::from(RING_EVENT_ENABLE), r::VRING_PACKED_EVENT_FLAG_ENABLE);
        assert_eq!(u32::from(RING_EVENT_DISABLE), r::VRING_PACKED_EVENT_FLAG_DISABLE);
        assert_eq!(u32::from(RING_EVENT_DESCRIPTOR), r::VRING_PACKED_EVENT_FLAG_DESC);
        assert_eq!(u32::from(POSITION_WRAP), 1 << r::VRING_PACKED_EVENT_F_WRAP_CTR);
        assert_eq!(size_of::<PackedDescriptor>(), size_of::<r::vring_packed_desc>());
        assert_eq!(offset_of!(PackedDescriptor, len), offset_of!(r::vring_packed_desc, len));
        assert_eq!(offset_of!(PackedDescriptor, id), offset_of!(r::vring_packed_desc, id));
        assert_eq!(offset_of!(PackedDescriptor, flags), offset_of!(r::vring_packed_desc, flags));
        assert_eq!(size_of::<EventSuppression>(), size_of::<r::vring_packed_desc_event>());
        assert_eq!(offset_of!(EventSuppression, flags), offset_of!(r::vring_packed_desc_event, flags));
    }
}
