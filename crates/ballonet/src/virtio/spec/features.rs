//! Feature bits with the same meaning on every virtio device (6).

use core::fmt;

use bitflags::bitflags;

bitflags! {
    /// A set of feature bits. Those named here are common to all device types; bits 0 to 23 and from 50 up are defined
    /// by the device type.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Features: u64 {
        /// Legacy only: interrupt when the available ring runs empty, suppressed or not.
        #[doc(alias = "VIRTIO_F_NOTIFY_ON_EMPTY")]
        const NOTIFY_ON_EMPTY = 1 << 24;
        /// Legacy only: the device accepts any split of a request into descriptors.
        #[doc(alias = "VIRTIO_F_ANY_LAYOUT")]
        const ANY_LAYOUT = 1 << 27;
        /// Descriptors may point to tables of descriptors.
        #[doc(alias = "VIRTIO_F_INDIRECT_DESC")]
        #[doc(alias = "VIRTIO_RING_F_INDIRECT_DESC")]
        const INDIRECT_DESC = 1 << 28;
        /// Both sides name the index at which they next want to be notified.
        #[doc(alias = "VIRTIO_F_EVENT_IDX")]
        #[doc(alias = "VIRTIO_RING_F_EVENT_IDX")]
        const EVENT_IDX = 1 << 29;
        /// The device follows version 1 or later of the specification.
        #[doc(alias = "VIRTIO_F_VERSION_1")]
        const VERSION_1 = 1 << 32;
        /// Device addresses are assigned by the platform (IOMMU), not plain physical addresses.
        #[doc(alias = "VIRTIO_F_ACCESS_PLATFORM")]
        #[doc(alias = "VIRTIO_F_IOMMU_PLATFORM")]
        const ACCESS_PLATFORM = 1 << 33;
        /// Packed virtqueues.
        #[doc(alias = "VIRTIO_F_RING_PACKED")]
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available.
        #[doc(alias = "VIRTIO_F_IN_ORDER")]
        const IN_ORDER = 1 << 35;
        /// The device is not a CPU of the coherent system: memory is ordered as for real hardware.
        #[doc(alias = "VIRTIO_F_ORDER_PLATFORM")]
        const ORDER_PLATFORM = 1 << 36;
        /// Single-root I/O virtualization.
        #[doc(alias = "VIRTIO_F_SR_IOV")]
        const SR_IOV = 1 << 37;
        /// A kick carries the driver's progress.
        #[doc(alias = "VIRTIO_F_NOTIFICATION_DATA")]
        const NOTIFICATION_DATA = 1 << 38;
        /// A kick carries a number that the device chose, in place of the queue's index.
        #[doc(alias = "VIRTIO_F_NOTIF_CONFIG_DATA")]
        const NOTIF_CONFIG_DATA = 1 << 39;
        /// Queues can be reset one by one.
        #[doc(alias = "VIRTIO_F_RING_RESET")]
        const RING_RESET = 1 << 40;
        /// Administration virtqueues.
        #[doc(alias = "VIRTIO_F_ADMIN_VQ")]
        const ADMIN_VQ = 1 << 41;
        /// The device can be suspended and resumed.
        #[doc(alias = "VIRTIO_F_SUSPEND")]
        const SUSPEND = 1 << 43;

        // Bits of the device type, and undefined bits, are kept as they are.
        const _ = !0;
    }
}

impl From<Features> for [u32; 2] {
    /// The low and the high 32 bits, as the feature registers hold them.
    fn from(features: Features) -> Self {
        [features.bits() as u32, (features.bits() >> 32) as u32]
    }
}

impl From<[u32; 2]> for Features {
    /// From the two feature registers, low half first.
    fn from([low, high]: [u32; 2]) -> Self {
        Self::from_bits_retain(u64::from(low) | u64::from(high) << 32)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits())?;
        for (name, _) in self.iter_names() {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::{virtio_config as c, virtio_ring as r};

    use super::*;

    #[test]
    fn feature_bits_are_those_of_the_c_header() {
        for (ours, theirs) in [
            (Features::NOTIFY_ON_EMPTY, c::VIRTIO_F_NOTIFY_ON_EMPTY),
            (Features::ANY_LAYOUT, c::VIRTIO_F_ANY_LAYOUT),
            (Features::INDIRECT_DESC, r::VIRTIO_RING_F_INDIRECT_DESC),
            (Features::EVENT_IDX, r::VIRTIO_RING_F_EVENT_IDX),
            (Features::VERSION_1, c::VIRTIO_F_VERSION_1),
            (Features::ACCESS_PLATFORM, c::VIRTIO_F_ACCESS_PLATFORM),
            (Features::RING_PACKED, c::VIRTIO_F_RING_PACKED),
            (Features::IN_ORDER, c::VIRTIO_F_IN_ORDER),
            (Features::ORDER_PLATFORM, c::VIRTIO_F_ORDER_PLATFORM),
            (Features::SR_IOV, c::VIRTIO_F_SR_IOV),
            (Features::NOTIFICATION_DATA, c::VIRTIO_F_NOTIFICATION_DATA),
            (Features::NOTIF_CONFIG_DATA, c::VIRTIO_F_NOTIF_CONFIG_DATA),
            (Features::RING_RESET, c::VIRTIO_F_RING_RESET),
            (Features::ADMIN_VQ, c::VIRTIO_F_ADMIN_VQ),
        ] {
            assert_eq!(ours.bits(), 1u64 << theirs, "{ours}");
        }
    }

    #[test]
    fn version_1_survives_the_two_32_bit_registers() {
        let features = Features::VERSION_1 | Features::EVENT_IDX;
        assert_eq!(<[u32; 2]>::from(features), [1 << 29, 1]);
        assert_eq!(Features::from(<[u32; 2]>::from(features)), features);
    }

    #[test]
    fn unknown_bits_are_kept_and_shown_as_a_number_only() {
        assert_eq!(Features::from_bits_retain(1 << 30 | 1 << 29).to_string(), "0x60000000 EVENT_IDX");
    }
}
